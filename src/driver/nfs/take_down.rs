//! Unmounting: plain, then forced, then lazy, each with a deadline.
//!
//! An unmount is forced only if the server does not answer. A mount of a live server that is in use is
//! never taken from its users.

use super::{NfsDriver, Place};
use crate::check::Checked;
use crate::check::mount_place::Occupant;
use crate::check::nfs_reachable::nfs_reachable;
use crate::check::storage_failure::storage_failure;
use crate::check::tcp_reachable::addresses_of;
use crate::driver::DetachError;
use crate::model::report::Finding;
use crate::model::settings::AgentSettings;
use crate::model::{Outcome, Reason};
use crate::sys::worker::{FaultKind, UnmountHow};
use crate::sys::{CallError, MountEntry, Request, Response};

use nix::errno::Errno;

/// Largest number of mounts of one export, stacked at one path, that one call unmounts.
const STACKED_MAX: usize = 8;

impl NfsDriver {
    /// Unmounts the target's export, and nothing else. Returns a remark if the unmount was not plain,
    /// or if something else stays mounted at the path.
    ///
    /// # Errors
    /// [`DetachError`] when the export is still mounted.
    pub(super) async fn unmount(
        &mut self,
        settings: &AgentSettings,
        place: &Place,
    ) -> Result<Option<String>, DetachError> {
        let mut remarks = Vec::new();
        let mut looked_up: Option<Result<(), Finding>> = None;
        for _ in 0..=STACKED_MAX {
            let table = self.host.mounts.reread().map_err(unreadable)?;
            let here = self.mount_place(settings, place);
            match here.occupant(&table) {
                Occupant::Nobody => return Ok(join_remarks(remarks)),
                Occupant::Ours(entry, _) => {
                    let server = entry.server_address().map(|address| address.to_string());
                    remarks.extend(self.unmount_topmost(settings, place, server.as_deref()).await?);
                }
                Occupant::Stranger(entry) if here.may_hold_ours(&table) => {
                    let looked_up = match looked_up.take() {
                        Some(looked_up) => looked_up,
                        // The name was not resolved yet: the server was dead when the agent started.
                        None => {
                            let addresses = addresses_of(place.export_here.address(), settings.probe.deadline).await;
                            let host = place.export_here.address();
                            let found = addresses.map(|addresses| self.servers.learn(host, addresses));
                            looked_up = Some(found);
                            continue;
                        }
                    };
                    return Err(DetachError::Failed(may_be_ours(place, entry, looked_up.err())));
                }
                Occupant::Stranger(entry) => {
                    let at = place.path.display();
                    remarks.push(format!("{} is mounted at {at} and was left alone", entry.source));
                    return Ok(join_remarks(remarks));
                }
            }
        }
        let message =
            format!("{} more than {STACKED_MAX} times: `umount` it until findmnt shows none", place.path.display());
        Err(DetachError::Failed(Finding::new(Reason::MountStacked, format!("the export is mounted at {message}"))))
    }

    /// Unmounts the topmost mount. `server` is the address that it talks to. The server's name may point to
    /// another address by now.
    async fn unmount_topmost(
        &self,
        settings: &AgentSettings,
        place: &Place,
        server: Option<&str>,
    ) -> Result<Option<String>, DetachError> {
        let topmost = self.mount_id(settings);
        let mut refusal = match self.try_unmount(settings, place, UnmountHow::Plain).await {
            Ok(()) => return Ok(None),
            Err(refusal) => refusal,
        };
        if !matters_whether_the_server_is_alive(&refusal) {
            return Err(DetachError::Failed(finding(refusal)));
        }
        let options = settings.mounts.options_for(&self.export);
        let answer =
            nfs_reachable(server.unwrap_or(place.export_here.address()), options, settings.probe.deadline).await;
        if !is_silent(&answer) {
            return Err(if is_busy(&refusal) { DetachError::Busy } else { DetachError::Failed(finding(refusal)) });
        }
        for (how, word) in [(UnmountHow::Force, "by force"), (UnmountHow::Lazy, "lazily")] {
            // Another process may have unmounted it, and the topmost mount is not ours any more.
            self.host.mounts.reread().map_err(unreadable)?;
            if self.mount_id(settings) != topmost {
                return Ok(None);
            }
            match self.try_unmount(settings, place, how).await {
                Ok(()) => {
                    return Ok(Some(format!(
                        "the server does not answer, so {} was unmounted {word}",
                        place.path.display()
                    )));
                }
                Err(error) => refusal = error,
            }
        }
        Err(DetachError::Failed(finding(refusal)))
    }

    async fn try_unmount(&self, settings: &AgentSettings, place: &Place, how: UnmountHow) -> Result<(), CallError> {
        let before = self.mount_id(settings);
        let mut has_broken = false;
        loop {
            let request = Request::Unmount { path: place.path.clone(), how };
            match self.host.workers.call(self.target, self.lane, request, settings.probe.deadline).await {
                // EINVAL means "not a mount point" (umount(2)): another process was faster.
                Err(CallError::Fault(fault)) if fault.errno() == Some(Errno::EINVAL) => return Ok(()),
                // The kernel removes the mount first and then notifies the server (NFSv4), which may take long.
                // So the mount may be gone although the call timed out. A worker that broke may not have got so far.
                Err(error @ (CallError::TimedOut { .. } | CallError::WorkerDied { .. })) => {
                    if self.host.mounts.reread().is_ok() && self.mount_id(settings) != before {
                        return Ok(());
                    }
                    if has_broken || matches!(error, CallError::TimedOut { .. }) {
                        return Err(error);
                    }
                    has_broken = true;
                }
                outcome => return outcome.map(|_: Response| ()),
            }
        }
    }

    /// Removes the mount point's directory. Returns a remark if it stays.
    pub(super) async fn remove_mount_point(&self, settings: &AgentSettings) -> Option<String> {
        let (root, relative) = (settings.mounts.root.clone(), self.name.as_str().into());
        let request = Request::RemoveMountPoint { root, relative };
        match self.host.workers.call(self.target, self.lane, request, settings.probe.deadline).await {
            Ok(_) => None,
            Err(CallError::Fault(fault)) if fault.kind == FaultKind::Mounted => {
                Some(format!("the mount directory stays, because something else is mounted there: {fault}"))
            }
            Err(error) => Some(format!("the mount directory stays: {error}")),
        }
    }
}

/// Joins remarks to one sentence. `None` without remarks.
pub(super) fn join_remarks(remarks: impl IntoIterator<Item = String>) -> Option<String> {
    let remarks: Vec<String> = remarks.into_iter().collect();
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn unreadable(error: std::io::Error) -> DetachError {
    let message = format!("the mount table cannot be read: {error}");
    DetachError::Failed(Finding::new(Reason::AgentError, message))
}

/// Whether a server does not answer at all. A server that refuses the version or the caller is alive. If
/// it could not be queried, its state is unknown, and a busy mount is not forced.
fn is_silent<T>(answer: &Checked<T>) -> bool {
    let reason = answer.finding().map(|finding| finding.reason);
    answer.outcome() != Outcome::Passed
        && matches!(
            reason,
            Some(
                Reason::ConnectionRefused
                    | Reason::ConnectTimedOut
                    | Reason::ResponseTimedOut
                    | Reason::HostUnreachable
                    | Reason::ConnectionBroken
                    | Reason::NotNfs
            )
        )
}

/// Finding for a mount at the path that may be the agent's own, so it must not be left there.
fn may_be_ours(place: &Place, topmost: &MountEntry, not_looked_up: Option<Finding>) -> Finding {
    let (host, at) = (place.export_here.address(), place.path.display());
    let why = match not_looked_up {
        Some(finding) => format!("where {host} leads cannot be found out now ({})", finding.message),
        None => format!("it is not at an address that {host} leads to"),
    };
    Finding::new(
        Reason::MountConflict,
        format!(
            "{} is mounted at {at}, and {} may lie there, on top or beneath: {why}. Look with `findmnt {at}`, `umount {at}` what is there, and delete again",
            topmost.source, place.export_here
        ),
    )
}

fn is_busy(refusal: &CallError) -> bool {
    matches!(refusal, CallError::Fault(fault) if fault.errno() == Some(Errno::EBUSY))
}

fn matters_whether_the_server_is_alive(refusal: &CallError) -> bool {
    match refusal {
        CallError::TimedOut { .. } => true,
        CallError::Fault(fault) => {
            matches!(fault.errno(), Some(Errno::EBUSY | Errno::EIO | Errno::ETIMEDOUT | Errno::ESTALE))
        }
        _ => false,
    }
}

fn finding(error: CallError) -> Finding {
    let is_denied = matches!(&error, CallError::Fault(fault) if fault.errno() == Some(Errno::EPERM));
    if is_denied {
        let message = format!("{error}: run the agent as root or with CAP_SYS_ADMIN");
        return Finding::new(Reason::MountNotPermitted, message);
    }
    let text = error.to_string();
    storage_failure::<()>(error).finding().cloned().unwrap_or_else(|| Finding::new(Reason::AgentError, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_makes_a_server_a_dead_one() {
        let failed = |reason| Checked::<()>::failed(Finding::new(reason, "why"));
        let silent = Finding::new(Reason::ResponseTimedOut, "why");
        assert!(is_silent(&Checked::<()>::timed_out(silent)) && is_silent(&failed(Reason::ConnectionRefused)));
        for reason in [
            Reason::NfsVersionUnsupported,
            Reason::NfsAccessRefused,
            Reason::NameNotResolved,
            Reason::NameLookupTimedOut,
            Reason::AgentError,
        ] {
            assert!(!is_silent(&failed(reason)), "{reason:?}");
        }
        let slow = Finding::new(Reason::ResponseTimedOut, "a warning");
        assert!(!is_silent(&Checked::passed(()).with_warnings(Some(slow))));
    }
}
