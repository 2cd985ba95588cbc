//! Throughput: the list of targets from the daemon, beside the same bytes from nginx.
//!
//! Rounds alternate, so that whatever else the machine does meets both. A connection that is kept
//! open is what both are asked over.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::daemon::Daemon;
use crate::http;
use crate::nginx::Nginx;
use crate::process;
use crate::table::{Sample, Table};
use crate::wrk;

/// How many rounds each side has.
pub const ROUNDS: usize = 5;

/// The goal: this part of nginx's requests per second, or more.
const RATIO_MIN: f64 = 0.5;

/// What one side did in its rounds.
#[derive(Default)]
pub struct Side {
    per_second: Vec<f64>,
    requests: f64,
    busy: Duration,
}

impl Side {
    /// Asks a daemon for one round.
    pub async fn add_round(&mut self, daemon: &Daemon, path: &str, headers: &[String]) -> anyhow::Result<()> {
        let before = process::processor_time(daemon.pid)?;
        let load = wrk::run(daemon.address, path, headers).await?;
        self.add(load, process::processor_time(daemon.pid)? - before);
        Ok(())
    }

    /// Adds a round, and how long processors were busy with it.
    fn add(&mut self, load: wrk::Load, busy: Duration) {
        self.per_second.push(load.per_second);
        self.requests += load.requests;
        self.busy += busy;
    }

    /// Processor time for each request.
    pub fn microseconds_per_request(&self) -> f64 {
        self.busy.as_secs_f64() * 1e6 / self.requests
    }

    /// The median of its rounds.
    pub fn per_second(&self) -> anyhow::Result<f64> {
        Ok(Sample::new(self.per_second.clone())?.median())
    }

    /// The median of its rounds, each as a part of the other side's beside it.
    pub fn ratio_to(&self, other: &Self) -> anyhow::Result<f64> {
        let ratios = self.per_second.iter().zip(&other.per_second).map(|(one, other)| one / other);
        Ok(Sample::new(ratios.collect())?.median())
    }
}

/// Measures both in turn, on a daemon with so many targets.
pub async fn measure(daemon: &Daemon, targets: usize, table: &mut Table) -> anyhow::Result<()> {
    let list = http::get(daemon.address, "/backup_targets").await?.body;
    let nginx = Nginx::start("backup_targets", &list).await?;
    let same = http::get(nginx.address, "/backup_targets").await?.body;
    ensure!(same == list, "nginx answers with other bytes than it was given");

    let (mut ours, mut theirs) = (Side::default(), Side::default());
    for _ in 0..ROUNDS {
        ours.add_round(daemon, "/backup_targets", &[]).await?;
        let before = nginx.processor_time()?;
        let load = wrk::run(nginx.address, "/backup_targets", &[]).await?;
        theirs.add(load, nginx.processor_time()? - before);
    }
    nginx.stop().await?;
    let (cost, their_cost) = (ours.microseconds_per_request(), theirs.microseconds_per_request());
    let ratio = ours.ratio_to(&theirs)?;
    table.tell(format!("GET /backup_targets of {targets}, size"), format!("{} bytes", list.len()));
    table.tell("  requests per second", format!("{:.0}", ours.per_second()?));
    table.tell("  nginx with the same bytes", format!("{:.0}", theirs.per_second()?));
    table.judge("  ratio to nginx, median of rounds", format!("{ratio:.2}"), "0.50 or more", ratio >= RATIO_MIN);
    table.tell("  processor time per request, beside nginx's", format!("{cost:.1} / {their_cost:.1} µs"));
    table.tell("  resident memory after this load", process::megabytes(process::resident_bytes(daemon.pid)?));
    Ok(())
}

/// A list for who takes it compressed, and one for who has it already: that of types, which no probe
/// changes.
pub async fn measure_savings(daemon: &Daemon, table: &mut Table) -> anyhow::Result<()> {
    let types = http::get(daemon.address, "/backup_target_types").await?;
    let tag = types.headers.get(::http::header::ETAG).and_then(|tag| tag.to_str().ok()).context("no ETag")?;
    for (name, path, header) in [
        ("the same, gzip", "/backup_targets", "accept-encoding: gzip".to_owned()),
        ("GET /backup_target_types, 304", "/backup_target_types", format!("if-none-match: {tag}")),
    ] {
        let mut side = Side::default();
        for _ in 0..ROUNDS {
            side.add_round(daemon, path, std::slice::from_ref(&header)).await?;
        }
        let size = http::get_with(daemon.address, path, &header).await?.body.len();
        table.tell(format!("  {name}"), format!("{size} bytes, {:.0} per second", side.per_second()?));
    }
    Ok(())
}
