//! The benchmark of buckets: what watching a hundred of them costs, beside the usual ways to do it.
//!
//! ```text
//! apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common curl openssl iproute2 python3-venv
//! cargo bench --bench s3
//! ```
//!
//! One Ceph RADOS Gateway has a hundred buckets, and three programs ask about each: HEAD of the bucket, its
//! object-lock configuration and its versioning; none retries and none writes.
//!
//! | program | how |
//! |---|---|
//! | the agent | `POST …/check` of every target, 16 at a time; it connects once more for each, to see that the service accepts |
//! | boto3 | one client, 16 threads (`sweep.py`) |
//! | `aws s3api` | a shell loop over some of the buckets, scaled to all: a process for each request |
//!
//! The first two take turns, and medians are compared; requests are counted on both sides and must be the
//! same. The agent's processor time is that of its process during the sweep. boto3's is told twice: with the
//! start of the program, which whoever runs it at an interval pays each time, and of the sweep alone. Wall time
//! is of the sweep alone.

#![allow(clippy::disallowed_methods, reason = "local files, and programs that are stopped when this ends")]

mod agent;
mod peers;

#[allow(dead_code, reason = "the other benchmark uses all of it")]
#[path = "../bench/daemon.rs"]
mod daemon;
#[allow(dead_code, reason = "the other benchmark uses all of it")]
#[path = "../bench/http.rs"]
mod http;
#[allow(dead_code, reason = "the other benchmark uses all of it")]
#[path = "../bench/table.rs"]
mod table;

use std::process::ExitCode;

use anyhow::ensure;

use agent::Agent;
use peers::{Cost, Gateway, Python};
use table::{Sample, Table};

/// How many buckets there are.
const BUCKETS: usize = 100;

/// How many of them the shell loop asks about.
const BUCKETS_OF_THE_SHELL: usize = 5;

/// How often each sweep is made.
const ROUNDS: usize = 7;

/// How many requests a bucket costs.
const REQUESTS: usize = 3;

/// The goal: processor time of boto3, by that of the agent, at least.
const AHEAD_IN_PROCESSOR: f64 = 5.0;

fn main() -> ExitCode {
    table::finish(targetwatch::cli::runtime::block_on(run()).and_then(|outcome| outcome))
}

async fn run() -> anyhow::Result<Table> {
    let python = Python::prepare()?;
    let gateway = Gateway::start()?;
    let buckets: Vec<String> = (0..BUCKETS).map(|number| format!("bench-{number:03}")).collect();
    python.make(&gateway, &buckets)?;
    let agent = Agent::start(&gateway, &buckets).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(agent.sweep().await?);
        theirs.push(python.sweep("boto3", &gateway, &buckets)?);
    }
    for cost in ours.iter().chain(&theirs) {
        ensure!(cost.requests == (BUCKETS * REQUESTS) as u64, "other requests were sent: {cost:?}");
    }
    let shell = python.sweep("shell", &gateway, &buckets[..BUCKETS_OF_THE_SHELL])?;
    report(&median(&ours)?, &median(&theirs)?, &shell)
}

/// The median of each figure.
fn median(costs: &[Cost]) -> anyhow::Result<Cost> {
    let of =
        |figure: fn(&Cost) -> f64| Ok::<_, anyhow::Error>(Sample::new(costs.iter().map(figure).collect())?.median());
    Ok(Cost {
        seconds: of(|cost| cost.seconds)?,
        cpu_sweep: of(|cost| cost.cpu_sweep)?,
        cpu_all: of(|cost| cost.cpu_all)?,
        peak_kib: Sample::new(costs.iter().map(|cost| cost.peak_kib).collect())?.median(),
        requests: Sample::new(costs.iter().map(|cost| cost.requests).collect())?.median(),
    })
}

fn report(ours: &Cost, boto3: &Cost, shell: &Cost) -> anyhow::Result<Table> {
    let mut table = Table::default();
    let ms = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
    let mb = |kib: u64| format!("{:.1} MB", kib as f64 * 1024.0 / 1e6);
    let times = |theirs: f64, ours: f64| format!("{:.1} x", theirs / ours);
    let scale = BUCKETS as f64 / BUCKETS_OF_THE_SHELL as f64;
    table.tell("requests of a sweep, ours and boto3's", format!("{} / {}", ours.requests, boto3.requests));
    table.tell(
        "agent: wall time / processor / peak memory",
        all([ms(ours.seconds), ms(ours.cpu_all), mb(ours.peak_kib)]),
    );
    let whole = all([ms(boto3.seconds), ms(boto3.cpu_all), mb(boto3.peak_kib)]);
    table.tell("boto3: wall time / processor / peak memory", whole);
    table.tell("boto3: processor of the sweep alone", ms(boto3.cpu_sweep));
    let looped = all([ms(shell.seconds * scale), ms(shell.cpu_all * scale), mb(shell.peak_kib)]);
    table.tell(format!("aws s3api, scaled from {BUCKETS_OF_THE_SHELL} buckets: the same"), looped);
    table.judge(
        "processor: boto3 by ours",
        times(boto3.cpu_all, ours.cpu_all),
        format!("{AHEAD_IN_PROCESSOR} x or more"),
        boto3.cpu_all >= AHEAD_IN_PROCESSOR * ours.cpu_all,
    );
    table.tell("processor of the sweep alone: boto3 by ours", times(boto3.cpu_sweep, ours.cpu_sweep));
    table.judge(
        "wall time: boto3 by ours",
        times(boto3.seconds, ours.seconds),
        "1 x or more",
        boto3.seconds >= ours.seconds,
    );
    table.tell("processor: aws s3api by ours", times(shell.cpu_all * scale, ours.cpu_all));
    Ok(table)
}

fn all(figures: [String; 3]) -> String {
    figures.join(" / ")
}
