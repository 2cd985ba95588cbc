//! The `targetwatch` command: parse, dispatch, exit code.

use std::process::ExitCode;

use targetwatch::cli;
use targetwatch::sys::worker;

fn main() -> ExitCode {
    // A probe worker is this program again: it wants none of what a command line is parsed with,
    // and there may be many.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == worker::ARGUMENT) {
        return worker::child::main();
    }
    cli::main()
}
