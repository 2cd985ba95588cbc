//! Throughput: the list of targets from the daemon, beside the same bytes from nginx.
//!
//! Rounds alternate, so that whatever else the machine does meets both. A connection that is kept
//! open is what both are asked over.

use std::time::Duration;

use anyhow::ensure;

use crate::daemon::Daemon;
use crate::http;
use crate::nginx::Nginx;
use crate::rest;
use crate::table::{Sample, Table};
use crate::wrk;

/// How many rounds each side has.
const ROUNDS: usize = 5;

/// The goal: this part of nginx's requests per second, or more.
const RATIO_MIN: f64 = 0.5;

/// What one side did in its rounds.
#[derive(Default)]
struct Side {
    per_second: Vec<f64>,
    requests: f64,
    busy: Duration,
}

impl Side {
    fn add(&mut self, load: wrk::Load, busy: Duration) {
        self.per_second.push(load.per_second);
        self.requests += load.requests;
        self.busy += busy;
    }

    fn microseconds_per_request(&self) -> f64 {
        self.busy.as_secs_f64() * 1e6 / self.requests
    }
}

/// Measures both in turn.
pub async fn measure(daemon: &Daemon, table: &mut Table) -> anyhow::Result<()> {
    let list = http::get(daemon.address, "/backup_targets").await?.body;
    let nginx = Nginx::start("backup_targets", &list).await?;
    let same = http::get(nginx.address, "/backup_targets").await?.body;
    ensure!(same == list, "nginx answers with other bytes than it was given");

    let (mut ours, mut theirs) = (Side::default(), Side::default());
    for _ in 0..ROUNDS {
        let before = rest::processor_time(daemon.pid)?;
        let load = wrk::run(daemon.address, "/backup_targets").await?;
        ours.add(load, rest::processor_time(daemon.pid)? - before);

        let before = nginx.processor_time()?;
        let load = wrk::run(nginx.address, "/backup_targets").await?;
        theirs.add(load, nginx.processor_time()? - before);
    }
    nginx.stop().await?;
    let ratios = ours.per_second.iter().zip(&theirs.per_second).map(|(ours, theirs)| ours / theirs).collect();
    let ratio = Sample::new(ratios)?.median();
    let (cost, their_cost) = (ours.microseconds_per_request(), theirs.microseconds_per_request());
    let (rate, their_rate) = (Sample::new(ours.per_second)?.median(), Sample::new(theirs.per_second)?.median());

    table.tell("size of the list", format!("{} bytes", list.len()));
    table.tell("nginx, requests per second", format!("{their_rate:.0}"));
    table.tell("GET /backup_targets, requests per second", format!("{rate:.0}"));
    table.judge("  ratio to nginx, median of rounds", format!("{ratio:.2}"), "0.50 or more", ratio >= RATIO_MIN);
    table.tell("  processor time per request, beside nginx's", format!("{cost:.1} / {their_cost:.1} µs"));
    table.tell("resident memory after this load", rest::megabytes(rest::resident_bytes(daemon.pid)?));
    Ok(())
}
