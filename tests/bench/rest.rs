//! At rest: memory, processor time and wakeups with a hundred healthy targets and no client.

use std::time::{Duration, Instant};

use anyhow::ensure;
use procfs::process::all_processes;

use crate::daemon::{DEFAULT_INTERVAL, Daemon};
use crate::http;
use crate::process::{anonymous_bytes, megabytes, processor_time, resident_bytes, wakeups};
use crate::table::Table;

/// Length of the measurement: six rounds of probes after the first, with their jitter. A clock tick of 10 ms, the unit
/// of the processor time, is 0.016 % of it.
const REST: Duration = Duration::from_secs(6 * DEFAULT_INTERVAL.as_secs() + 3);

/// Goal: less resident memory than this, in bytes.
const RESIDENT_BYTES_MAX: u64 = 12_000_000;

/// Goal: less processor time than this, in percent of a core.
const PROCESSOR_MAX: f64 = 0.25;

/// Measures a daemon without clients.
pub async fn measure(daemon: &Daemon, table: &mut Table) -> anyhow::Result<()> {
    daemon.wait_until_all_probed().await?;
    let first_round = daemon.details().await?;
    ensure!(
        first_round.backup_targets.iter().all(|one| one.target.status == targetwatch::model::Status::Available),
        "a healthy target is offline"
    );
    let probes_before = probes(daemon).await?;
    let (began, wakeups_before) = (Instant::now(), wakeups(daemon.pid)?);
    let busy_before = processor_time(daemon.pid)?;
    // This is the measured time, not a wait for an event.
    tokio::time::sleep(REST).await;
    let busy = processor_time(daemon.pid)? - busy_before;
    let rest = began.elapsed().as_secs_f64();
    let percent = 100.0 * busy.as_secs_f64() / rest;
    let wakeups_per_second = (wakeups(daemon.pid)? - wakeups_before) as f64 / rest;
    let (resident, own) = (resident_bytes(daemon.pid)?, anonymous_bytes(daemon.pid)?);
    let children = memory_of_children(daemon.pid)?;
    let per_probe = busy.as_secs_f64() * 1e6 / (probes(daemon).await? - probes_before) as f64;

    let last_round = daemon.details().await?;
    let is_later = first_round
        .backup_targets
        .iter()
        .zip(&last_round.backup_targets)
        .all(|(first, last)| first.report.checked_at < last.report.checked_at);
    ensure!(is_later, "not every target was probed again in {} s", REST.as_secs());

    table.add_with_goal("resident memory at rest", megabytes(resident), "under 12 MB", resident < RESIDENT_BYTES_MAX);
    table.add("  of this, anonymous (without program and mapped files)", megabytes(own));
    let children = match children.len() {
        0 => "none".to_owned(),
        count => format!("{count} with {}", megabytes(children.iter().sum::<u64>())),
    };
    table.add("children at rest, with their proportional memory", children);
    let limit = format!("under {PROCESSOR_MAX} %");
    table.add_with_goal(
        "processor use at rest, of one core",
        format!("{percent:.2} %"),
        &limit,
        percent < PROCESSOR_MAX,
    );
    table.add("  of this, per probe of an NFS target over the network", format!("{per_probe:.0} µs"));
    table.add("wakeups per second at rest", format!("{wakeups_per_second:.0}"));
    Ok(())
}

/// Number of probes that have ended, from the metrics of the daemon.
pub async fn probes(daemon: &Daemon) -> anyhow::Result<u64> {
    let metrics = http::get(daemon.address, "/metrics").await?.body;
    let counts = std::str::from_utf8(&metrics)?.lines().filter(|line| line.starts_with("targetwatch_probes_total{"));
    counts.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
}

/// The proportional set size of each child.
fn memory_of_children(parent: i32) -> anyhow::Result<Vec<u64>> {
    let mut sizes = Vec::new();
    // Processes may end during this loop.
    for process in all_processes()?.filter_map(Result::ok) {
        if process.stat().is_ok_and(|stat| stat.ppid == parent) {
            let rollup = process.smaps_rollup()?;
            let sizes_of_all = rollup.memory_map_rollup.iter().filter_map(|map| map.extension.map.get("Pss"));
            sizes.push(sizes_of_all.sum());
        }
    }
    Ok(sizes)
}
