//! Memory of the agent: it is bounded while clients do not read, and the memory of a burst is returned to the kernel.

use serde_json::{Value, json};
use targetwatch::api::ANSWERS_MAX_BYTES;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::daemon::{Daemon, eventually};
use crate::storage::nfs_target;
use crate::workspace::Workspace;

/// Number of targets in the burst. Their metadata takes about 17 MiB, and lists of the targets take as much again.
const TARGETS: usize = 300;
/// Memory that may stay after the burst, in bytes.
const KEPT_MAX_BYTES: u64 = 8 << 20;

/// Number of targets in a list of about 6 MB.
const LISTED: usize = 100;
/// Memory of the agent beside its answers while clients do not read, in bytes.
const OTHER_MAX_BYTES: u64 = 96 << 20;

/// A target with about 60 kB of metadata.
fn large_target(path: &str) -> Value {
    let metadata: serde_json::Map<_, _> = (0..15).map(|n| (format!("key{n}"), json!("x".repeat(4000)))).collect();
    let mut target = nfs_target(path);
    target["metadata"] = json!(metadata);
    target
}

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
    let mut ids = Vec::new();
    for n in 0..TARGETS {
        ids.push(daemon.create(large_target(&format!("/burst/{n}"))).await);
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

#[tokio::test]
async fn memory_is_bounded_while_clients_do_not_read_their_lists() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let id = daemon.create(nfs_target("/changed")).await;
    for n in 1..LISTED {
        daemon.create(large_target(&format!("/listed/{n}"))).await;
    }
    let mut unread = Vec::new();
    let mut asked_bytes = 0;
    while asked_bytes < 2 * ANSWERS_MAX_BYTES {
        // Each change makes another list.
        daemon.modify(&id, json!({"metadata": {"number": asked_bytes}})).await;
        let mut client = TcpStream::connect(daemon.address()).await.expect("connected");
        client.write_all(b"GET /backup_targets/detail HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        let mut head = [0; 1024];
        let read = client.read(&mut head).await.expect("an answer");
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        asked_bytes += length.parse::<usize>().expect("a number");
        unread.push(client);
    }
    // Memory of answers that ended early is returned to the kernel at intervals.
    let is_bounded = async || (resident_bytes(&daemon) < ANSWERS_MAX_BYTES as u64 + OTHER_MAX_BYTES).then_some(());
    eventually("the memory is bounded", is_bounded).await;
    assert_eq!(daemon.targets().await.len(), LISTED, "another client gets its list");
    let mut first = Vec::new();
    assert!(unread[0].read_to_end(&mut first).await.is_ok_and(|read| read < asked_bytes / unread.len()), "ended early");
}
