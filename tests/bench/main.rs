//! Benchmark of the agent: its cost for the host and its clients, as figures with goals.
//!
//! ```text
//! apt-get install --no-install-recommends nginx-light wrk python3-venv curl iproute2 openssl
//! cargo bench --bench agent
//! cargo bench --bench agent -- growth
//! ```
//!
//! It runs the binary that packages contain, on NFS servers in this process and with `mode = "none"`, so it needs no
//! privileges. It takes about nine minutes and prints a table. With the argument `growth`, it measures only the growth.
//! The exit code is not zero when a goal is missed. Figures depend on the machine, so goals are ratios where possible,
//! and medians come from alternating rounds. Other goals leave a margin.
//!
//! | figure | measured | goal |
//! |---|---|---|
//! | throughput ([`throughput`]) | requests per second of `GET /backup_targets` with 10, 100 and 1,000 targets, and of nginx with the same bytes as a static file; wrk with 16 connections, in alternating rounds | four fifths of nginx, or more |
//! | savings ([`throughput`]) | the same with 1,000 targets, compressed; the list of types for a client that has it | |
//! | authentication ([`keystone`]) | requests per second with a token that Keystone has validated, compared with no authentication | nine tenths, or more |
//! | pollers ([`pollers`]) | polls of the list by 16 pollers while 1,000 targets are probed | p99 under 5 ms |
//! | cost ([`throughput`]) | processor time of each of these requests, which is comparable even where wrk is the bottleneck | |
//! | creation ([`creation`]) | from connecting to the answer of `POST /backup_targets`, for targets on healthy, silent, refusing and unresolvable servers, while a hundred silent ones are probed | each under 100 ms |
//! | polling ([`creation`]) | from connecting to the answer of `GET /backup_targets` at 20 Hz, meanwhile | |
//! | memory ([`rest`]) | resident memory at rest with 100 targets, after seven rounds of probes | under 12 MB |
//! | processor ([`rest`]) | user and system time of the same rest, also for each probe, and wakeups | under 0.25 % of a core |
//! | growth ([`growth`]) | processor time of one check, of the list and of a scrape, memory, start and creation with 10, 100, 1,000 and 10,000 targets | nothing grows faster than linearly, and one check costs the same |
//! | start ([`start`]) | from exec to the answer of `/healthz`, with 100 targets in the registry | each under 50 ms |

#![allow(clippy::disallowed_methods, reason = "local files, and child processes that end with this program")]

mod caches;
mod creation;
mod daemon;
mod growth;
mod http;
mod keystone;
mod nginx;
mod pollers;
mod process;
mod rest;
mod start;
mod storage;
mod table;
mod throughput;
mod wrk;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use daemon::Daemon;
use storage::{Kind, Storage};
use table::Table;

/// Number of targets, unless the figure says otherwise.
const TARGETS: usize = 100;

/// Number of targets at the beginning.
const FEW: usize = 10;

/// Number of targets at the end.
const MANY: usize = 1000;

/// Required programs, each with its Debian package.
const PROGRAMS: &[(&str, &str)] = &[(nginx::PROGRAM, "nginx-light"), (wrk::PROGRAM, "wrk")];

fn main() -> ExitCode {
    table::finish(missing_programs().and_then(|()| targetwatch::cli::runtime::block_on(run())?))
}

async fn run() -> anyhow::Result<Table> {
    let mut table = Table::default();
    if std::env::args().any(|argument| argument == "growth") {
        growth::measure(&mut table).await.context("growth")?;
        return Ok(table);
    }
    let storage = Storage::start(MANY).await.context("the NFS servers")?;

    let workspace = storage.workspace(daemon::DEFAULT_INTERVAL)?;
    let daemon = Daemon::start(&workspace).await?;
    create(&daemon, 0..FEW).await?;
    throughput::measure(&daemon, FEW, &mut table).await.context("throughput")?;
    create(&daemon, FEW..TARGETS).await?;
    throughput::measure(&daemon, TARGETS, &mut table).await.context("throughput")?;
    keystone::measure(&daemon, &storage, TARGETS, &mut table).await.context("with Keystone")?;
    daemon.stop().await?;
    start::measure(&workspace, &mut table).await.context("start")?;
    let daemon = Daemon::start(&workspace).await?;
    rest::measure(&daemon, &mut table).await.context("at rest")?;
    create(&daemon, TARGETS..MANY).await?;
    throughput::measure(&daemon, MANY, &mut table).await.context("throughput")?;
    throughput::measure_savings(&daemon, &mut table).await.context("throughput")?;
    pollers::measure(&daemon, MANY, &mut table).await.context("pollers")?;
    daemon.stop().await?;

    growth::measure(&mut table).await.context("growth")?;

    let workspace = storage.workspace(daemon::SHORT_INTERVAL)?;
    let daemon = Daemon::start(&workspace).await?;
    creation::measure(&daemon, &mut table).await.context("with silent storage")?;
    daemon.stop().await?;
    Ok(table)
}

/// Creates targets on healthy storage.
async fn create(daemon: &Daemon, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    for number in numbers {
        daemon.create(&storage::export(Kind::Healthy, number)).await?;
    }
    Ok(())
}

fn missing_programs() -> anyhow::Result<()> {
    let path = search_path();
    let is_installed = |program: &str| path.split(':').any(|directory| Path::new(directory).join(program).is_file());
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    bail!("{} not found: apt-get install --no-install-recommends {}", programs.join(" and "), packages.join(" "))
}

/// The search path of programs. nginx is in a directory that only root's PATH contains.
fn search_path() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())
}
