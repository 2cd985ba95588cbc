//! Child setup: parent-death signal and priority of every child process.
//!
//! This file does not depend on the rest of the crate, so that a separate worker program can include it.

use std::io;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Sets SIGKILL as the parent-death signal (prctl(2)) and lowers the priority of this process. Makes only
/// system calls, so it may run between fork and exec.
///
/// # Errors
/// As prctl(2), `PR_SET_PDEATHSIG`.
pub(super) fn apply() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)
}
