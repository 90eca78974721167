//! Parse arguments, start telemetry, run the role.

use std::process::ExitCode;

fn main() -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(dispatch_worker::surface::cli::run(std::env::args_os())),
        Err(error) => {
            eprintln!("error: the async runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}
