//! Throughput: the list of targets from the daemon, compared with the same bytes from nginx.
//!
//! Rounds alternate, so that other load of the machine affects both. Connections are persistent.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::daemon::Daemon;
use crate::http;
use crate::nginx::Nginx;
use crate::process;
use crate::table::{Sample, Table};
use crate::wrk;

/// Number of rounds of each side.
pub const ROUNDS: usize = 5;

/// Goal: at least this ratio of requests per second to those of nginx.
const RATIO_MIN: f64 = 0.8;

/// The rounds of one side.
#[derive(Default)]
pub struct Side {
    per_second: Vec<f64>,
    requests: f64,
    busy: Duration,
}

impl Side {
    /// Loads a daemon for one round.
    pub async fn add_round(&mut self, daemon: &Daemon, path: &str, headers: &[String]) -> anyhow::Result<()> {
        let before = process::processor_time(daemon.pid)?;
        let load = wrk::run(daemon.address, path, headers).await?;
        self.add(load, process::processor_time(daemon.pid)? - before);
        Ok(())
    }

    /// Adds a round and its processor time.
    fn add(&mut self, load: wrk::Load, busy: Duration) {
        self.per_second.push(load.per_second);
        self.requests += load.requests;
        self.busy += busy;
    }

    /// Processor time per request.
    pub fn microseconds_per_request(&self) -> f64 {
        self.busy.as_secs_f64() * 1e6 / self.requests
    }

    /// Requests per second, as the median of the rounds.
    pub fn per_second(&self) -> anyhow::Result<f64> {
        Ok(Sample::new(self.per_second.clone())?.median())
    }

    /// Ratio of requests per second to the other side, as the median of the rounds.
    pub fn ratio_to(&self, other: &Self) -> anyhow::Result<f64> {
        let ratios = self.per_second.iter().zip(&other.per_second).map(|(one, other)| one / other);
        Ok(Sample::new(ratios.collect())?.median())
    }
}

/// Measures a daemon with this many targets, and nginx.
pub async fn measure(daemon: &Daemon, targets: usize, table: &mut Table) -> anyhow::Result<()> {
    let list = http::get(daemon.address, "/backup_targets").await?.body;
    let nginx = Nginx::start("backup_targets", &list).await?;
    let copy = http::get(nginx.address, "/backup_targets").await?.body;
    ensure!(copy == list, "nginx answers with other bytes than it was given");

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
    table.add(format!("GET /backup_targets of {targets}, size"), format!("{} bytes", list.len()));
    table.add("  requests per second", format!("{:.0}", ours.per_second()?));
    table.add("  requests per second of nginx with the same bytes", format!("{:.0}", theirs.per_second()?));
    table.add_with_goal(
        "  ratio to nginx, median of rounds",
        format!("{ratio:.2}"),
        "0.80 or more",
        ratio >= RATIO_MIN,
    );
    table.add("  processor time per request, agent / nginx", format!("{cost:.1} / {their_cost:.1} µs"));
    table.add("  resident memory after this load", process::megabytes(process::resident_bytes(daemon.pid)?));
    Ok(())
}

/// Measures compressed answers, and 304 for a client that has the list. The latter uses the list of types, which no
/// probe changes.
pub async fn measure_savings(daemon: &Daemon, table: &mut Table) -> anyhow::Result<()> {
    let types = http::get(daemon.address, "/backup_target_types").await?;
    let tag = types.headers.get(::http::header::ETAG).and_then(|tag| tag.to_str().ok()).context("no ETag")?;
    for (name, path, header) in [
        ("GET /backup_targets, gzip", "/backup_targets", "accept-encoding: gzip".to_owned()),
        ("GET /backup_target_types, 304", "/backup_target_types", format!("if-none-match: {tag}")),
    ] {
        let mut side = Side::default();
        for _ in 0..ROUNDS {
            side.add_round(daemon, path, std::slice::from_ref(&header)).await?;
        }
        let size = http::get_with(daemon.address, path, &header).await?.body.len();
        table.add(format!("  {name}"), format!("{size} bytes, {:.0} per second", side.per_second()?));
    }
    Ok(())
}
