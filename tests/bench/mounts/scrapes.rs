//! Scrapes: the cost of `GET /metrics`, compared with a scrape of node_exporter's filesystem collector.
//!
//! Both answers are compressed, as Prometheus requests. Rounds of both alternate in one run.

use std::time::Duration;

use anyhow::ensure;

use crate::daemon::Daemon;
use crate::exporter::Exporter;
use crate::http;
use crate::process::{megabytes, processor_time};
use crate::table::{Sample, Table};

/// Number of scrapes of each.
const ROUNDS: usize = 100;

/// The header of Prometheus that affects the cost.
const GZIP: &str = "accept-encoding: gzip";

/// Longest time of a scrape at the 99th percentile.
const P99_MAX: Duration = Duration::from_millis(20);

/// Largest answer, in bytes.
const BYTES_MAX: usize = 1_000_000;

/// Measures a daemon with this many probed targets, and node_exporter with as many mounts.
pub async fn measure(targets: usize, daemon: &Daemon, exporter: &Exporter, table: &mut Table) -> anyhow::Result<()> {
    let (pid, their_pid) = (daemon.pid, exporter.pid()?);
    let whole = http::get(daemon.address, "/metrics").await?.body;
    let shown = String::from_utf8_lossy(&whole);
    let shown = shown.lines().filter(|line| line.starts_with("targetwatch_target_available{")).count();
    ensure!(shown == targets, "the scrape shows {shown} targets");
    let (mut ours, mut theirs, mut bytes) = (Vec::new(), Vec::new(), 0);
    let (mut our_time, mut their_time) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let before = processor_time(pid)?;
        let answer = http::get_with(daemon.address, "/metrics", GZIP).await?;
        our_time += processor_time(pid)? - before;
        bytes = answer.body.len();
        ours.push(answer.took);
        let before = processor_time(their_pid)?;
        theirs.push(http::get_with(exporter.address(), "/metrics", GZIP).await?.took);
        their_time += processor_time(their_pid)? - before;
    }
    let (ours, theirs) = (Sample::<Duration>::new(ours)?, Sample::<Duration>::new(theirs)?);
    table.add_with_goal(
        format!("scrape of {targets} targets: median / p99 / max"),
        ours.summary(),
        "p99 under 20 ms, and shorter than node_exporter",
        ours.percentile(99) < P99_MAX && ours.median() < theirs.median() && ours.percentile(99) < theirs.percentile(99),
    );
    table.add(format!("the same of node_exporter with {targets} mounts"), theirs.summary());
    table.add_with_goal(
        "size of a scrape, compressed / whole",
        format!("{} / {}", megabytes(bytes as u64), megabytes(whole.len() as u64)),
        "compressed under 1 MB",
        bytes < BYTES_MAX,
    );
    let per_scrape = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3 / ROUNDS as f64);
    table.add_with_goal(
        "processor time per scrape, probes meanwhile included",
        per_scrape(our_time),
        "less than node_exporter",
        our_time < their_time,
    );
    table.add("processor time per scrape of node_exporter", per_scrape(their_time));
    Ok(())
}
