//! `write_canary`: writes a file as the backup user, reads it back and removes it.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::checked::Checked;
use super::storage_failure::{storage_failure, wrong_answer};
use crate::model::report::{Finding, finding};
use crate::model::settings::{BackupUser, CanarySettings};
use crate::model::{Reason, TargetId};
use crate::sys::worker::{CanaryFileNames, CanaryRequest, ReadBack};
use crate::sys::{CallError, Lane, Request, Response, WorkerFault, WorkerPool};

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
        Err(CallError::TimedOut { after }) => Checked::timed_out(finding!(
            Reason::StorageTimedOut,
            "the canary file was not written within {} ms, although the file system was measured just before: check the load and the disks of the server. A server of NFSv4 that has just restarted creates no file before its grace period ends, which takes 90 s on Linux",
            after.as_millis()
        )),
        Err(error) => storage_failure(error),
    }
}

/// Finding for a refused write. The fault already describes the root of the export.
fn denied(fault: &WorkerFault, user: BackupUser) -> Finding {
    finding!(
        Reason::WriteDenied,
        "{fault}. The agent wrote as {user}, which is {}: let this user write there, or set uid and gid of [probe.canary] to the user that writes backups",
        user.origin
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::BackupUserOrigin;

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
