//! Answers: what a poll costs its client and the host, beside a scrape.

use std::time::Duration;

use crate::daemon::{self, Daemon};
use crate::exporter::Exporter;
use crate::http;
use crate::process::{anonymous_bytes, megabytes, processor_time, resident_bytes};
use crate::storage::{self, Kind, Storage};
use crate::table::{Sample, Table};

/// How many polls and scrapes, in turn.
const ROUNDS: usize = 100;

/// Measures.
pub async fn measure(targets: usize, exporter: &Exporter, table: &mut Table) -> anyhow::Result<()> {
    let storage = Storage::start(targets).await?;
    let home = storage.home(daemon::DEFAULT_INTERVAL)?;
    let daemon = Daemon::start(&home).await?;
    for number in 0..targets {
        daemon.create(&storage::export(Kind::Healthy, number)).await?;
    }
    daemon.has_probed_all().await?;
    let (pid, their_pid) = (daemon.pid, exporter.pid()?);
    let before = processor_time(their_pid)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(http::get(daemon.address, "/backup_targets").await?.took);
        theirs.push(exporter.scrape().await?.took);
    }
    let their_time = (processor_time(their_pid)? - before) / u32::try_from(ROUNDS)?;
    let (ours, theirs) = (Sample::<Duration>::new(ours)?, Sample::<Duration>::new(theirs)?);
    table.judge(
        format!("poll of {targets} targets that are probed: median / p99 / max"),
        ours.summary(),
        "shorter than a scrape",
        ours.median() < theirs.median() && ours.percentile(99) < theirs.percentile(99),
    );
    table.tell(format!("scrape of {targets} mounts: median / p99 / max"), theirs.summary());
    table.tell("processor time of node_exporter for a scrape", format!("{:.1} ms", their_time.as_secs_f64() * 1e3));
    let (our_memory, their_memory) = (resident_bytes(pid)?, resident_bytes(their_pid)?);
    table.judge(
        format!("resident memory with {targets} targets"),
        megabytes(our_memory),
        "less than node_exporter",
        our_memory < their_memory,
    );
    table.tell(format!("resident memory of node_exporter with {targets} mounts"), megabytes(their_memory));
    let own = format!("{} / {}", megabytes(anonymous_bytes(pid)?), megabytes(anonymous_bytes(their_pid)?));
    table.tell("of these, not of programs and other files: ours / node_exporter's", own);
    daemon.stop().await
}
