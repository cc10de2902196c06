//! The `appliance` binary; everything is in [`control::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    control::cli::main()
}
