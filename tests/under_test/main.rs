//! The program as it ships, built where the tests find it: for what only a true process shows.

use std::process::ExitCode;

use dispatch_worker::{roles, sandbox, surface, telemetry, toolhost};

fn main() -> ExitCode {
    // Before anything else: what stands between a worker and an agent is small.
    if let Some(code) = sandbox::exec::run_if_asked() {
        return code;
    }
    if let Some(code) = toolhost::run_if_asked() {
        return code;
    }
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let code = runtime.block_on(surface::cli::run(std::env::args_os(), &roles::WIRING));
            telemetry::finish();
            code
        }
        Err(error) => {
            eprintln!("error: the async runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}
