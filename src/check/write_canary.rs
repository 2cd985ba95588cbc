//! `write_canary`: writes a file as the backup user, reads it back and removes it, through a mount or over the wire.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::checked::Checked;
use super::storage_failure::{storage_failure, wrong_answer};
use crate::model::canary_file::{CANARY_FILE_BYTES, CanaryFileNames};
use crate::model::report::{Finding, finding};
use crate::model::settings::{BackupUser, CanarySettings};
use crate::model::{Reason, TargetId};
use crate::nfs::{NfsError, Volume};
use crate::sys::worker::{CanaryRequest, ReadBack};
use crate::sys::{CallError, Lane, Request, Response, WorkerPool};

/// Writes the canary into a mounted export, in a probe worker. `hostname` is the name of this node and
/// distinguishes its canaries from those of other nodes.
pub async fn write_canary(
    workers: &WorkerPool,
    target: TargetId,
    lane: Lane,
    mount_path: &Path,
    hostname: &str,
    settings: &CanarySettings,
    deadline: Duration,
) -> Checked {
    let user = settings.user;
    let (path, names) = (mount_path.to_owned(), CanaryFileNames::new(hostname));
    let request = CanaryRequest { path, uid: user.uid, gid: user.gid, names, expect_nfs: true };
    match workers.call(target, lane, Request::Canary(request), deadline).await {
        Ok(Response::Canary(canary)) => {
            let from = match canary.read_back {
                ReadBack::Direct => "from the server",
                ReadBack::Advised => "perhaps from this host's cache",
            };
            Checked::passed(())
                .detail(format!("wrote {} bytes as {user}, read them back {from} and removed the file", canary.bytes))
        }
        Ok(other) => wrong_answer(&other),
        Err(CallError::Fault(fault)) if matches!(fault.errno(), Some(Errno::EACCES | Errno::EPERM)) => {
            Checked::failed(denied(&fault, user))
        }
        Err(CallError::TimedOut { after }) => Checked::timed_out(late(after)),
        Err(error) => storage_failure(error),
    }
}

/// Writes the canary into an export that is not mounted. Skipped if that would leave something behind on the server.
pub async fn write_canary_over_the_wire(
    volume: &Volume,
    hostname: &str,
    settings: &CanarySettings,
    deadline: Duration,
) -> Checked {
    let user = settings.user;
    let names = CanaryFileNames::new(hostname);
    match volume.write_canary((user.uid, user.gid), &names, deadline).await {
        None => Checked::not_needed(format!(
            "with NFS {}, the server keeps the state of a client that writes until its lease ends: writing is not verified",
            volume.version()
        )),
        Some(Ok(())) => Checked::passed(()).detail(format!(
            "wrote {CANARY_FILE_BYTES} bytes as {user}, read them back from the server and removed the file"
        )),
        Some(Err(failure)) => {
            let (reason, described) = (failure.error.write_reason(), failure.error.to_string());
            match reason {
                Reason::WriteDenied => {
                    let cause = failure.cause.map(|cause| format!("; {cause}")).unwrap_or_default();
                    Checked::failed(denied(&format!("{}{cause}", failure.error.denial()), user))
                }
                Reason::StorageTimedOut => Checked::timed_out(late(match failure.error {
                    NfsError::TimedOut { after, .. } => after,
                    _ => deadline,
                })),
                Reason::StorageFull => {
                    let used_up = volume
                        .counts(None, deadline)
                        .await
                        .ok()
                        .filter(|counts| counts.inodes > 0 && counts.inodes_free == 0);
                    let cause = used_up.map(|counts| inodes_used_up(counts.inodes)).unwrap_or_default();
                    Checked::failed(finding!(reason, "{described}{cause}"))
                }
                _ if failure.error.is_timeout() => Checked::timed_out(Finding::new(reason, described)),
                _ => Checked::failed(Finding::new(reason, described)),
            }
        }
    }
}

fn inodes_used_up(inodes: u64) -> String {
    format!("; all {inodes} inodes are used, so no file can be created")
}

/// Finding for a write that did not end within the deadline.
fn late(after: Duration) -> Finding {
    finding!(
        Reason::StorageTimedOut,
        "the canary file was not written within {} ms, although the file system was measured just before: check the load and the disks of the server. A server of NFSv4 that has just restarted creates no file before its grace period ends, which takes 90 s on Linux",
        after.as_millis()
    )
}

/// Finding for a refused write. `refusal` already describes the root of the export.
fn denied(refusal: &impl Display, user: BackupUser) -> Finding {
    finding!(
        Reason::WriteDenied,
        "{refusal}. The agent wrote as {user}, which is {}: let this user write there, or set uid and gid of [probe.canary] to the user that writes backups",
        user.origin
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::BackupUserOrigin;
    use crate::sys::WorkerFault;

    #[test]
    fn write_denied_names_the_user_and_its_origin() {
        let fault = WorkerFault::system("create", Path::new("/m/x"), Errno::EACCES);
        for (origin, expected) in [
            (BackupUserOrigin::Configured, "uid 162 gid 163, which is set in [probe.canary]: "),
            (BackupUserOrigin::HostUser, "uid 162 gid 163, which is the user nova of this host, because"),
            (BackupUserOrigin::Default, "uid 162 gid 163, which is the default, because"),
        ] {
            let finding = denied(&fault, BackupUser { uid: 162, gid: 163, origin });
            assert_eq!(finding.reason, Reason::WriteDenied);
            assert!(finding.message.starts_with("create /m/x: "), "{}", finding.message);
            assert!(finding.message.contains(expected), "{}", finding.message);
        }
    }
}
