//! The clock. S3 services refuse requests with a wrong time, and lock proofs and tokens depend on it.

use super::result::HostCheck;
use crate::sys::clock::ClockState;

pub(super) async fn check() -> HostCheck {
    match ClockState::read() {
        Ok(ClockState { is_synchronized: true, error_max }) => {
            HostCheck::passed(format!("synchronized, with an error of at most {} ms", error_max.as_millis()))
        }
        Ok(_) => HostCheck::warning(
            "the kernel reports that no time service synchronizes the clock: start chronyd, systemd-timesyncd or ntpd (chronyd needs rtcsync in its configuration for this report), and check with `timedatectl`",
        ),
        Err(error) => HostCheck::unknown(format!(
            "the kernel does not report the state of the clock ({error}): check with `timedatectl`"
        )),
    }
}
