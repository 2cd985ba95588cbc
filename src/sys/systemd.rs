//! The service manager: readiness, status line and watchdog (sd_notify(3)).
//!
//! These functions do nothing unless systemd started this process with a `NOTIFY_SOCKET`. Each notification is one
//! datagram to a local socket. Unlike `notify` of the `sd-notify` crate, sending never waits for room in the socket,
//! because a stuck service manager must not stop the agent. A failure is only logged. The timeouts of the service
//! manager then apply.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// Maximum length of the status line, in characters.
const STATUS_MAX_CHARS: usize = 512;

/// Reports that start-up is complete and the API answers.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// Sets the status line of `systemctl status`.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(&line(text))]);
}

/// Reports that the configuration is being read again. [`ready`] follows when that is done. Includes the time,
/// which `Type=notify-reload` requires (systemd 253 and later).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot report the reload to the service manager: no monotonic clock"),
    }
}

/// Reports that the agent is shutting down.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Reports that the agent is alive. Must be called at every [`watchdog_interval`].
pub fn watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// Returns the interval of [`watchdog`]: half of `WatchdogSec=`, or `None` if the unit does not set it.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

/// Removes line breaks, which would begin another variable of the protocol.
fn line(text: &str) -> String {
    text.chars().take(STATUS_MAX_CHARS).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn notify(states: &[NotifyState<'_>]) {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&address, states) {
        tracing::warn!(%error, "cannot report the state of this service to the service manager");
    }
}

fn send(address: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let mut message = String::new();
    for state in states {
        writeln!(message, "{state}").map_err(io::Error::other)?;
    }
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    // A datagram is sent whole or not at all.
    socket.send(message.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notification_reaches_path_and_abstract_sockets() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let name = format!("targetwatch-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("an address");
        for (socket, address) in [
            (UnixDatagram::bind(&path).expect("bound"), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address).expect("bound"), format!("@{name}").into()),
        ] {
            let status = line("3 targets\nREADY=0");
            send(&address, &[NotifyState::Ready, NotifyState::Status(&status)]).expect("sent");
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).expect("received");
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=3 targets READY=0\n");
        }
    }

    #[test]
    fn notification_never_blocks_when_systemd_does_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let _socket = UnixDatagram::bind(&path).expect("bound");
        let full = (0..100_000).find_map(|_| send(path.as_os_str(), &[NotifyState::Watchdog]).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
