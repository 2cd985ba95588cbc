//! `capacity` of an NFS target: total and used space.
//!
//! Through the mount it is statvfs(3), for which the Linux NFS client queries the server each time. Over
//! the wire it is the same query (FSSTAT) without a mount.

use std::path::Path;
use std::time::Duration;

use super::capacity::{implausible, inodes_nearly_used_up, nearly_full};
use super::checked::Checked;
use super::exported::wire_failure;
use super::storage_failure::storage_failure;
use crate::model::{BlockCounts, Capacity, TargetId};
use crate::nfs::{Records, Volume};
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
        Ok(Response::Counts(counts)) => measured(&counts.block_counts(), nearly_full_percent),
        Ok(other) => super::storage_failure::wrong_answer(&other),
        Err(error) => storage_failure(error),
    }
}

/// Measures an export over the wire, over this connection to its server if there is one.
pub async fn capacity_of_volume(
    volume: &Volume,
    connection: Option<Records>,
    nearly_full_percent: f64,
    deadline: Duration,
) -> Checked<Capacity> {
    match volume.counts(connection, deadline).await {
        Ok(counts) => measured(&counts, nearly_full_percent),
        Err(error) => wire_failure(&error),
    }
}

fn measured(counts: &BlockCounts, nearly_full_percent: f64) -> Checked<Capacity> {
    let capacity = counts.capacity();
    Checked::passed(capacity)
        .with_warnings(nearly_full(&capacity, nearly_full_percent))
        .with_warnings(inodes_nearly_used_up(&capacity, nearly_full_percent))
        .with_warnings(implausible(counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Outcome, Reason};

    #[test]
    fn capacity_has_a_warning_for_each_problem() {
        let healthy =
            BlockCounts { unit_bytes: 4096, blocks: 1000, free: 500, available: 500, inodes: 100, inodes_free: 50 };
        let reasons = |counts: BlockCounts| {
            let checked = measured(&counts, 90.0);
            assert_eq!(checked.outcome(), Outcome::Passed);
            checked.findings().iter().map(|finding| finding.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(healthy), []);
        assert_eq!(reasons(BlockCounts { inodes: 0, inodes_free: 0, ..healthy }), [], "no fixed number of inodes");
        assert_eq!(reasons(BlockCounts { inodes_free: 9, ..healthy }), [Reason::InodesNearlyUsedUp]);
        assert_eq!(reasons(BlockCounts { blocks: 0, free: 0, available: 0, ..healthy }), [Reason::CapacityImplausible]);
        assert_eq!(reasons(BlockCounts { available: 1001, ..healthy }), [Reason::CapacityImplausible]);
        let negative = BlockCounts { free: 10, available: u64::MAX - 5, inodes_free: 0, ..healthy };
        let all = [Reason::NearlyFull, Reason::InodesNearlyUsedUp, Reason::CapacityImplausible];
        assert_eq!(reasons(negative), all);
    }
}
