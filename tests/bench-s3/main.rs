//! Benchmark of buckets: the cost of checking a hundred of them, compared with the usual ways.
//!
//! ```text
//! apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common curl openssl iproute2 python3-venv
//! cargo bench --bench s3
//! ```
//!
//! One Ceph RADOS Gateway has a hundred buckets. Three programs request the same of each: HEAD of the bucket, its
//! object-lock configuration and its versioning. None retries, and none writes.
//!
//! | program | how |
//! |---|---|
//! | the agent | `POST …/check` of every target, over 16 persistent connections. The check `reachable` opens one more connection for each |
//! | boto3 | one client, 16 threads (`sweep.py`) |
//! | `aws s3api` | a shell loop over some of the buckets, scaled to all, with a process for each request |
//!
//! The first two alternate, and medians are compared. Both must send the same number of requests. The agent's processor
//! time is that of its process during the sweep. For boto3 there are two figures: one with the start of the program,
//! which a periodic job pays each time, and one of the sweep alone. Wall time is that of the sweep alone.

#![allow(clippy::disallowed_methods, reason = "local files, and child processes that end with this program")]

mod agent;
mod peers;

#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/daemon.rs"]
mod daemon;
#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/http.rs"]
mod http;
#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/process.rs"]
mod process;
#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/table.rs"]
mod table;

use std::process::ExitCode;

use anyhow::ensure;

use agent::Agent;
use peers::{Cost, Gateway, Python};
use table::{Sample, Table};

/// Number of buckets.
const BUCKETS: usize = 100;

/// Number of buckets that the shell loop checks.
const SHELL_BUCKETS: usize = 5;

/// Number of sweeps of each program.
const ROUNDS: usize = 7;

/// Number of requests per bucket.
const REQUESTS: usize = 3;

/// Goal: boto3 needs at least this many times the processor time of the agent, with the start of its program.
const PROCESSOR_RATIO_MIN: f64 = 8.0;

/// Goal: the same for the sweep alone.
const SWEEP_RATIO_MIN: f64 = 6.0;

fn main() -> ExitCode {
    table::finish(targetwatch::cli::runtime::block_on(run()).and_then(|outcome| outcome))
}

async fn run() -> anyhow::Result<Table> {
    let python = Python::prepare()?;
    let gateway = Gateway::start()?;
    let buckets: Vec<String> = (0..BUCKETS).map(|number| format!("bench-{number:03}")).collect();
    python.create(&gateway, &buckets)?;
    let mut agent = Agent::start(&gateway, &buckets).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(agent.sweep().await?);
        theirs.push(python.sweep("boto3", &gateway, &buckets)?);
    }
    for cost in ours.iter().chain(&theirs) {
        ensure!(cost.requests == (BUCKETS * REQUESTS) as u64, "unexpected number of requests: {cost:?}");
    }
    let shell = python.sweep("shell", &gateway, &buckets[..SHELL_BUCKETS])?;
    report(&median(&ours)?, &median(&theirs)?, &shell)
}

/// The medians of all figures.
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
    let scale = BUCKETS as f64 / SHELL_BUCKETS as f64;
    table.add("requests per sweep: agent / boto3", format!("{} / {}", ours.requests, boto3.requests));
    table.add(
        "agent: wall time / processor time / peak memory",
        joined([ms(ours.seconds), ms(ours.cpu_all), mb(ours.peak_kib)]),
    );
    let whole = joined([ms(boto3.seconds), ms(boto3.cpu_all), mb(boto3.peak_kib)]);
    table.add("boto3: wall time / processor time / peak memory", whole);
    table.add("boto3: processor time of the sweep alone", ms(boto3.cpu_sweep));
    let looped = joined([ms(shell.seconds * scale), ms(shell.cpu_all * scale), mb(shell.peak_kib)]);
    table.add(
        format!("aws s3api, scaled from {SHELL_BUCKETS} buckets: wall time / processor time / peak memory"),
        looped,
    );
    table.add_with_goal(
        "processor time: boto3 / agent",
        times(boto3.cpu_all, ours.cpu_all),
        format!("{PROCESSOR_RATIO_MIN} x or more"),
        boto3.cpu_all >= PROCESSOR_RATIO_MIN * ours.cpu_all,
    );
    table.add_with_goal(
        "processor time of the sweep alone: boto3 / agent",
        times(boto3.cpu_sweep, ours.cpu_sweep),
        format!("{SWEEP_RATIO_MIN} x or more"),
        boto3.cpu_sweep >= SWEEP_RATIO_MIN * ours.cpu_sweep,
    );
    table.add(
        "processor time of the agent per check of a bucket",
        format!("{:.0} µs", ours.cpu_sweep * 1e6 / BUCKETS as f64),
    );
    table.add_with_goal(
        "wall time: boto3 / agent",
        times(boto3.seconds, ours.seconds),
        "1 x or more",
        boto3.seconds >= ours.seconds,
    );
    table.add("processor time: aws s3api / agent", times(shell.cpu_all * scale, ours.cpu_all));
    Ok(table)
}

fn joined(figures: [String; 3]) -> String {
    figures.join(" / ")
}
