//! The `targetwatch-probe-worker` program: a probe worker and nothing else. It starts faster than `targetwatch
//! probe-worker`, because it is a small fraction of its size.

use std::process::ExitCode;

use targetwatch::sys::worker::child;

fn main() -> ExitCode {
    child::main()
}
