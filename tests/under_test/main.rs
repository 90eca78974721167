//! The program as it ships, built where the tests find it: for what only a true process shows.

use std::process::ExitCode;

use dispatch_worker::{roles, surface};

fn main() -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(surface::cli::run(std::env::args_os(), &roles::WIRING)),
        Err(error) => {
            eprintln!("error: the async runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}
