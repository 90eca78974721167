#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dispatch_worker::fuzz::tool_input(data));
