//! The clock of this host, as the kernel reports it (adjtimex(2)).

use std::io;
use std::time::Duration;

/// What the kernel knows about its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockState {
    /// Whether a time service synchronizes the clock (`STA_UNSYNC` is not set).
    pub is_synchronized: bool,
    /// Largest error of the clock, as the time service estimates it.
    pub error_max: Duration,
}

impl ClockState {
    /// Reads the state. Changes nothing.
    ///
    /// # Errors
    /// When a container or a hardened unit forbids the system call.
    #[allow(unsafe_code, reason = "only the C library has this call")]
    pub fn read() -> io::Result<Self> {
        // SAFETY: `timex` consists of numbers, for which zero is valid. Without modes, adjtimex only writes to it.
        let (outcome, state) = unsafe {
            let mut state: nix::libc::timex = std::mem::zeroed();
            (nix::libc::adjtimex(&raw mut state), state)
        };
        if outcome == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            is_synchronized: state.status & nix::libc::STA_UNSYNC == 0,
            error_max: Duration::from_micros(u64::try_from(state.maxerror).unwrap_or_default()),
        })
    }
}
