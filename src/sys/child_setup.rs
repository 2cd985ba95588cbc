//! Child setup: the parent-death signal of every child process.

use std::io;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Sets SIGKILL as the parent-death signal of this process (prctl(2)). Makes only a system call, so it may run between
/// fork and exec.
///
/// # Errors
/// As prctl(2), `PR_SET_PDEATHSIG`.
pub(super) fn apply() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)
}
