//! The `targetwatch` program.

use std::process::ExitCode;

use targetwatch::cli;
use targetwatch::sys::worker;

fn main() -> ExitCode {
    // A probe worker is the same program. It skips the parser of the command line to save memory,
    // because many workers may run.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == worker::ARGUMENT) {
        return worker::child::main();
    }
    cli::main()
}
