//! The program; all of it is in the library, this runs one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel::cli::run()
}
