//! `capacity` of an NFS target: total and used space.
//!
//! Through the mount it is statvfs(3), for which the Linux NFS client queries the server each time. Over
//! the wire it is the same query (FSSTAT) without a mount.

use std::path::Path;
use std::time::Duration;

use super::Checked;
use super::capacity::nearly_full;
use super::exported::wire_failure;
use super::storage_failure::storage_failure;
use crate::model::{Capacity, TargetId};
use crate::nfs::Volume;
use crate::sys::{Lane, Request, Response, WorkerPool};

/// Measures a mounted export, in a probe worker.
pub async fn capacity_of_mount(
    workers: &WorkerPool,
    target: TargetId,
    lane: Lane,
    mount_path: &Path,
    nearly_full_percent: f64,
    deadline: Duration,
) -> Checked<Capacity> {
    let request = Request::StatVfs { path: mount_path.to_owned(), expect_nfs: true };
    match workers.call(target, lane, request, deadline).await {
        Ok(Response::Counts(counts)) => measured(counts.capacity(), nearly_full_percent),
        Ok(other) => super::storage_failure::wrong_answer(&other),
        Err(error) => storage_failure(error),
    }
}

/// Measures an export over the wire.
pub async fn capacity_of_volume(volume: &Volume, nearly_full_percent: f64, deadline: Duration) -> Checked<Capacity> {
    match volume.capacity(deadline).await {
        Ok(capacity) => measured(capacity, nearly_full_percent),
        Err(error) => wire_failure(&error),
    }
}

fn measured(capacity: Capacity, nearly_full_percent: f64) -> Checked<Capacity> {
    Checked::passed(capacity).with_warnings(nearly_full(&capacity, nearly_full_percent))
}
