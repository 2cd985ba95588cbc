//! Answers: the cost of a poll for the client and the host, compared with a scrape.

use std::time::Duration;

use crate::daemon::{self, Daemon};
use crate::exporter::Exporter;
use crate::http;
use crate::process::{anonymous_bytes, megabytes, processor_time, resident_bytes};
use crate::scrapes;
use crate::storage::{self, Kind, Storage};
use crate::table::{Sample, Table};

/// Number of polls and scrapes, which alternate.
const ROUNDS: usize = 100;

/// Time from these requests to the measurement at rest. The agent drops lists after at most 10 s, and returns memory
/// every 3 s.
const REST: Duration = Duration::from_secs(45);

/// Goal: less resident memory than this, in bytes.
const RESIDENT_BYTES_MAX: u64 = 18_000_000;

/// Measures a daemon with this many targets, and node_exporter with as many mounts.
pub async fn measure(targets: usize, exporter: &Exporter, table: &mut Table) -> anyhow::Result<()> {
    let storage = Storage::start(targets).await?;
    let workspace = storage.workspace(daemon::DEFAULT_INTERVAL)?;
    let daemon = Daemon::start(&workspace).await?;
    for number in 0..targets {
        daemon.create(&storage::export(Kind::Healthy, number)).await?;
    }
    daemon.wait_until_all_probed().await?;
    let (pid, their_pid) = (daemon.pid, exporter.pid()?);
    let before = processor_time(their_pid)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(http::get(daemon.address, "/backup_targets").await?.took);
        theirs.push(exporter.scrape().await?.took);
    }
    let their_time = (processor_time(their_pid)? - before) / u32::try_from(ROUNDS)?;
    let (ours, theirs) = (Sample::<Duration>::new(ours)?, Sample::<Duration>::new(theirs)?);
    table.add_with_goal(
        format!("poll of {targets} targets during probes: median / p99 / max"),
        ours.summary(),
        "shorter than a scrape",
        ours.median() < theirs.median() && ours.percentile(99) < theirs.percentile(99),
    );
    table.add(format!("scrape of {targets} mounts: median / p99 / max"), theirs.summary());
    table.add("processor time of node_exporter per scrape", format!("{:.1} ms", their_time.as_secs_f64() * 1e3));
    table.add(format!("resident memory with {targets} targets directly after these polls"), memory(pid)?.1);
    scrapes::measure(targets, &daemon, exporter, table).await?;
    let ((our_memory, ours), (their_memory, theirs)) = (memory(pid)?, memory(their_pid)?);
    table.add_with_goal(
        format!("resident memory with {targets} targets directly after these scrapes"),
        ours,
        "under 18 MB, and less than node_exporter",
        our_memory < their_memory.min(RESIDENT_BYTES_MAX),
    );
    table.add(format!("resident memory of node_exporter with {targets} mounts"), theirs);
    // This is a measured state, not a wait for an event.
    tokio::time::sleep(REST).await;
    let (at_rest, ours) = memory(pid)?;
    table.add_with_goal(
        format!("resident memory with {targets} targets, {} s after these requests", REST.as_secs()),
        ours,
        "under 18 MB",
        at_rest < RESIDENT_BYTES_MAX,
    );
    let first = http::get(daemon.address, "/backup_targets").await?.took;
    table.add("  the first poll after that", format!("{:.1} ms", first.as_secs_f64() * 1e3));
    daemon.stop().await
}

/// Resident memory of a process, in bytes and for the table.
fn memory(pid: i32) -> anyhow::Result<(u64, String)> {
    let (resident, anonymous) = (resident_bytes(pid)?, anonymous_bytes(pid)?);
    Ok((resident, format!("{}, {} of it anonymous", megabytes(resident), megabytes(anonymous))))
}
