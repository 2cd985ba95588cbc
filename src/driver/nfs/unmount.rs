//! Unmounting: plain, then forced, then lazy, each with a deadline.
//!
//! An unmount is forced only if the server does not answer. While its server is alive, a mount that is in use stays.

use super::nfs_driver::{MountLocation, NfsDriver};
use crate::check::Checked;
use crate::check::expected_mount::{MountCommand, PathMount};
use crate::check::nfs_reachable::nfs_reachable;
use crate::check::storage_failure::storage_failure;
use crate::check::tcp_reachable::addresses_of;
use crate::driver::driver_trait::DetachError;
use crate::model::report::{Finding, finding};
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
    pub(super) async fn unmount(&mut self, location: &MountLocation<'_>) -> Result<Option<String>, DetachError> {
        let mut remarks = Vec::new();
        let mut lookup: Option<Result<(), Finding>> = None;
        for _ in 0..=STACKED_MAX {
            let table = self.host.mounts.reread().map_err(unreadable)?;
            let here = self.expected_mount(location);
            here.resume(&table, &self.host.mount_stats).await;
            here.settle(&table, MountCommand::earlier(self.host.workers.census(), self.target));
            match here.at_path(&table) {
                PathMount::None => return Ok(join_remarks(remarks)),
                PathMount::Own(entry, _) => {
                    remarks.extend(self.unmount_topmost(location, entry).await?);
                }
                // Only the agent mounts there.
                PathMount::Foreign(entry) if location.is_private => {
                    remarks.extend(self.unmount_topmost(location, entry).await?);
                }
                PathMount::Foreign(entry) if here.may_hold_own(&table) => {
                    let lookup = match lookup.take() {
                        Some(lookup) => lookup,
                        // The name was never resolved, because the server was dead when the agent started.
                        None => {
                            let addresses =
                                addresses_of(location.mapped_export.address(), location.settings.probe.deadline).await;
                            let host = location.mapped_export.address();
                            lookup = Some(addresses.map(|addresses| self.addresses.update(host, addresses)));
                            continue;
                        }
                    };
                    return Err(DetachError::Failed(may_be_own(location, entry, lookup.err())));
                }
                PathMount::Foreign(entry) => {
                    let at = location.path.display();
                    remarks.push(format!("{} is mounted at {at}, and the agent did not touch it", entry.source));
                    return Ok(join_remarks(remarks));
                }
            }
        }
        Err(DetachError::Failed(finding!(
            Reason::MountStacked,
            "the export is mounted at {} more than {STACKED_MAX} times: `umount` it until findmnt shows none",
            location.path.display()
        )))
    }

    /// Unmounts the topmost mount, which belongs to the target according to the mount table.
    async fn unmount_topmost(
        &self,
        location: &MountLocation<'_>,
        topmost: &MountEntry,
    ) -> Result<Option<String>, DetachError> {
        let mut refusal = match self.try_unmount(location, topmost, UnmountHow::Plain).await {
            Ok(_) => return Ok(None),
            Err(refusal) => refusal,
        };
        if !depends_on_server(&refusal) {
            return Err(DetachError::Failed(finding(refusal)));
        }
        // The mount uses this address, and the server's name may have another one by now.
        let used = topmost.server_address().map(|address| address.to_string());
        let server = used.as_deref().unwrap_or(location.mapped_export.address());
        let answer = nfs_reachable(server, &location.options, location.settings.probe.deadline).await;
        if !is_silent(&answer) {
            return Err(if is_busy(&refusal) { DetachError::Busy } else { DetachError::Failed(finding(refusal)) });
        }
        for (how, word) in [(UnmountHow::Force, "by force"), (UnmountHow::Lazy, "lazily")] {
            // If another process has unmounted it meanwhile, the topmost mount is no longer the target's.
            self.host.mounts.reread().map_err(unreadable)?;
            if self.mount_id_at(&location.path) != Some(topmost.mount_id) {
                return Ok(None);
            }
            match self.try_unmount(location, topmost, how).await {
                Ok(ending) => {
                    let at = location.path.display();
                    return Ok(match ending {
                        Ending::Unmounted => Some(format!("the server does not answer, so {at} was unmounted {word}")),
                        Ending::Unconfirmed => Some(format!(
                            "the server does not answer, and {at} is not mounted any more: it was probably unmounted {word}"
                        )),
                        Ending::Elsewhere => None,
                    });
                }
                Err(error) => refusal = error,
            }
        }
        Err(DetachError::Failed(finding(refusal)))
    }

    async fn try_unmount(
        &self,
        location: &MountLocation<'_>,
        topmost: &MountEntry,
        how: UnmountHow,
    ) -> Result<Ending, CallError> {
        let mount_id = topmost.mount_id;
        let mut has_broken = false;
        loop {
            let request = Request::Unmount { path: location.path.clone(), mount_id, how };
            let answer =
                self.host.workers.call(self.target, self.lane, request, location.settings.probe.deadline).await;
            let is_gone = || self.host.mounts.reread().is_ok() && self.mount_id_at(&location.path) != Some(mount_id);
            match ending(answer, is_gone) {
                // A broken worker may not have unmounted it.
                Err(CallError::WorkerDied { .. }) if !has_broken => has_broken = true,
                ended => return ended,
            }
        }
    }

    /// Removes the mount point's directory. Returns a remark if it stays.
    pub(super) async fn remove_mount_point(&self, location: &MountLocation<'_>) -> Option<String> {
        let (root, relative) = (location.root.to_owned(), location.relative.clone());
        let request = Request::RemoveMountPoint { root, relative };
        match self.host.workers.call(self.target, self.lane, request, location.settings.probe.deadline).await {
            Ok(_) => None,
            Err(CallError::Fault(fault)) if fault.kind == FaultKind::Mounted => {
                Some(format!("the mount directory stays, because something else is mounted there: {fault}"))
            }
            Err(error) => Some(format!("the mount directory was not removed: {error}")),
        }
    }
}

/// How a mount ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The unmount succeeded.
    Unmounted,
    /// The unmount was not answered, and the mount is gone.
    Unconfirmed,
    /// Another process unmounted it, or mounted something on it. The caller finds that in the mount table.
    Elsewhere,
}

/// Returns how a mount ended, from the answer of the worker that should unmount it. `is_gone` looks whether another
/// mount or none is at the path.
fn ending(answer: Result<Response, CallError>, is_gone: impl Fn() -> bool) -> Result<Ending, CallError> {
    match answer {
        Ok(_) => Ok(Ending::Unmounted),
        // EINVAL means "not a mount point" (umount(2)).
        Err(CallError::Fault(fault)) if fault.kind == FaultKind::Mounted || fault.errno() == Some(Errno::EINVAL) => {
            Ok(Ending::Elsewhere)
        }
        // The kernel removes the mount first and then notifies the server (NFSv4), which may take long. So the mount
        // may be removed although the call timed out.
        Err(CallError::TimedOut { .. } | CallError::WorkerDied { .. }) if is_gone() => Ok(Ending::Unconfirmed),
        Err(error) => Err(error),
    }
}

/// Joins remarks to one sentence. `None` without remarks.
pub(super) fn join_remarks(remarks: impl IntoIterator<Item = String>) -> Option<String> {
    let remarks: Vec<String> = remarks.into_iter().collect();
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: std::io::Error) -> DetachError {
    DetachError::Failed(finding!(Reason::AgentError, "the mount table cannot be read: {error}"))
}

/// Whether a server does not answer at all. A server that refuses the version or the caller is alive. If the server
/// could not be queried, its state is unknown, and the unmount of a busy mount is not forced.
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

/// Finding for a mount at the path that may be the agent's own, so the target cannot be deleted yet.
fn may_be_own(location: &MountLocation<'_>, topmost: &MountEntry, lookup_failure: Option<Finding>) -> Finding {
    let (host, at) = (location.mapped_export.address(), location.path.display());
    let why = match lookup_failure {
        Some(finding) => format!("the address of {host} is unknown now ({})", finding.message),
        None => format!("its server is not at an address of {host}"),
    };
    finding!(
        Reason::MountConflict,
        "{} is mounted at {at}, and this or a mount below it may be {}: {why}. Check with `findmnt {at}`, `umount {at}`, and delete the target again",
        topmost.source,
        location.mapped_export
    )
}

fn is_busy(refusal: &CallError) -> bool {
    matches!(refusal, CallError::Fault(fault) if fault.errno() == Some(Errno::EBUSY))
}

fn depends_on_server(refusal: &CallError) -> bool {
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
        return finding!(Reason::MountNotPermitted, "{error}: run the agent as root or with CAP_SYS_ADMIN");
    }
    let text = error.to_string();
    storage_failure::<()>(error).finding().cloned().unwrap_or_else(|| Finding::new(Reason::AgentError, text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::sys::WorkerFault;

    #[test]
    fn server_is_dead_only_if_it_is_silent() {
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

    #[test]
    fn only_an_answered_unmount_is_reported_as_done() {
        let path = Path::new("/m/x");
        let fault = |errno| CallError::Fault(WorkerFault::system("umount", path, errno));
        let timed_out = || CallError::TimedOut { after: Duration::from_secs(1) };
        assert_eq!(ending(Ok(Response::Done), || false).expect("ended"), Ending::Unmounted);
        assert_eq!(ending(Err(fault(Errno::EINVAL)), || true).expect("ended"), Ending::Elsewhere);
        assert_eq!(ending(Err(timed_out()), || true).expect("ended"), Ending::Unconfirmed);
        assert!(ending(Err(timed_out()), || false).is_err());
        assert!(ending(Err(fault(Errno::EBUSY)), || true).is_err());
    }
}
