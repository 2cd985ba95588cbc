//! At rest: what a hundred healthy targets cost when nobody asks.

use std::time::{Duration, Instant};

use anyhow::ensure;
use procfs::process::all_processes;

use crate::daemon::{DEFAULT_INTERVAL, Daemon};
use crate::process::{anonymous_bytes, megabytes, processor_time, resident_bytes};
use crate::table::Table;

/// How long it rests: two rounds of probes after the first, with their jitter.
const REST: Duration = Duration::from_secs(2 * DEFAULT_INTERVAL.as_secs() + 3);

/// The goal: less resident memory than this, in bytes.
const RESIDENT_BYTES_MAX: u64 = 20_000_000;

/// The goal: less processor time than this, in percent of a core.
const PROCESSOR_MAX: f64 = 0.5;

/// Rests and measures.
pub async fn measure(daemon: &Daemon, table: &mut Table) -> anyhow::Result<()> {
    daemon.has_probed_all().await?;
    let first_round = daemon.details().await?;
    ensure!(
        first_round.backup_targets.iter().all(|one| one.target.status == targetwatch::model::Status::Available),
        "a target is offline that should not be"
    );
    let began = Instant::now();
    let busy_before = processor_time(daemon.pid)?;
    // The measurement itself: nothing is waited for.
    tokio::time::sleep(REST).await;
    let busy = processor_time(daemon.pid)? - busy_before;
    let percent = 100.0 * busy.as_secs_f64() / began.elapsed().as_secs_f64();
    let (resident, own) = (resident_bytes(daemon.pid)?, anonymous_bytes(daemon.pid)?);
    let children = memory_of_children(daemon.pid)?;

    let last_round = daemon.details().await?;
    let is_later = first_round
        .backup_targets
        .iter()
        .zip(&last_round.backup_targets)
        .all(|(first, last)| first.report.checked_at < last.report.checked_at);
    ensure!(is_later, "not every target was probed again in {} s", REST.as_secs());

    table.judge("resident memory at rest", megabytes(resident), "under 20 MB", resident < RESIDENT_BYTES_MAX);
    table.tell("of that, not of its program and other files", megabytes(own));
    let children = match children.len() {
        0 => "none".to_owned(),
        count => format!("{count} with {}", megabytes(children.iter().sum::<u64>())),
    };
    table.tell("children at rest, with their proportional memory", children);
    let limit = format!("under {PROCESSOR_MAX} %");
    table.judge("processor at rest, of one core", format!("{percent:.2} %"), &limit, percent < PROCESSOR_MAX);
    Ok(())
}

/// The proportional set size of each child.
fn memory_of_children(parent: i32) -> anyhow::Result<Vec<u64>> {
    let mut sizes = Vec::new();
    // Processes come and go while they are walked.
    for process in all_processes()?.filter_map(Result::ok) {
        if process.stat().is_ok_and(|stat| stat.ppid == parent) {
            let rollup = process.smaps_rollup()?;
            let sizes_of_all = rollup.memory_map_rollup.iter().filter_map(|map| map.extension.map.get("Pss"));
            sizes.push(sizes_of_all.sum());
        }
    }
    Ok(sizes)
}
