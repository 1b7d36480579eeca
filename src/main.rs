//! The program. Everything it can do is in the library; `cli` holds its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    notihub::cli::main()
}
