//! `write_canary`: writes a file as the backup user, reads it back and removes it.

use std::path::Path;
use std::time::Duration;

use super::Checked;
use super::storage_failure::{storage_failure, wrong_answer};
use crate::model::TargetId;
use crate::model::settings::CanarySettings;
use crate::sys::worker::{CanaryNames, CanaryRequest, ReadBack};
use crate::sys::{Lane, Request, Response, WorkerPool};

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
    let (uid, gid) = (settings.uid, settings.gid);
    let request =
        CanaryRequest { path: mount_path.to_owned(), uid, gid, names: CanaryNames::new(hostname), expect_nfs: true };
    match workers.call(target, lane, Request::Canary(request), deadline).await {
        Ok(Response::Canary(canary)) => {
            let from = match canary.read_back {
                ReadBack::Direct => "from the server",
                ReadBack::Advised => "perhaps from this host's cache",
            };
            Checked::passed(()).detail(format!(
                "wrote {} bytes as uid {uid} gid {gid}, read them back {from} and removed the file",
                canary.bytes
            ))
        }
        Ok(other) => wrong_answer(&other),
        Err(error) => storage_failure(error),
    }
}
