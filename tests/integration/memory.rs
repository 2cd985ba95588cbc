//! Memory of the agent: the memory of a burst of requests is returned to the kernel.

use serde_json::json;

use crate::daemon::{Daemon, eventually};
use crate::storage::nfs_target;
use crate::workspace::Workspace;

/// Number of targets in the burst. Their metadata takes about 17 MiB, and lists of the targets take as much again.
const TARGETS: usize = 300;
/// Memory that may stay after the burst, in bytes.
const KEPT_MAX_BYTES: u64 = 8 << 20;

/// Resident memory without the pages of files (proc_pid_status(5)), in bytes.
fn resident_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    line.trim().strip_suffix(" kB").expect("its unit").parse::<u64>().expect("a number") << 10
}

#[tokio::test]
async fn memory_of_a_burst_is_returned() {
    let daemon = Daemon::start(&Workspace::new()).await;
    // The default target must be the last one to be deleted.
    daemon.create(nfs_target("/default")).await;
    daemon.targets().await;
    let before = resident_bytes(&daemon);
    let metadata: serde_json::Map<_, _> = (0..15).map(|n| (format!("key{n}"), json!("x".repeat(4000)))).collect();
    let mut ids = Vec::new();
    for n in 0..TARGETS {
        let mut target = nfs_target(&format!("/burst/{n}"));
        target["metadata"] = json!(metadata);
        ids.push(daemon.create(target).await);
    }
    daemon.targets().await;
    let taken = resident_bytes(&daemon) - before;
    assert!(taken > 2 * KEPT_MAX_BYTES, "{taken} bytes");
    for id in ids {
        daemon.delete(&id).await;
    }
    // A list that was cached is rendered again.
    daemon.targets().await;
    let is_returned = async || (resident_bytes(&daemon) < before + KEPT_MAX_BYTES).then_some(());
    eventually("the memory is returned", is_returned).await;
}
