//! The benchmark: what the agent costs its host and its clients, in figures with goals.
//!
//! ```text
//! apt-get install --no-install-recommends nginx-light wrk python3-venv curl iproute2 openssl
//! cargo bench --bench agent
//! ```
//!
//! It runs the true binary as packages have it, on NFS servers in this process and with `mode = "none"`, so it
//! needs no privileges; it takes about five minutes, prints a table, and exits non-zero when a goal
//! is missed. Nothing here is a test: figures belong to the machine that they were taken on, so
//! goals are ratios where they can be, medians are of interleaved rounds, and the rest has room.
//!
//! | figure | measured | goal |
//! |---|---|---|
//! | throughput ([`throughput`]) | requests per second of `GET /backup_targets` with 10, 100 and 1,000 targets, beside nginx with the same bytes as a static file; wrk with 16 connections, in turn | half of nginx, or more |
//! | savings ([`throughput`]) | the same with 1,000 targets, compressed; and the list of types for who has it already | |
//! | authentication ([`keystone`]) | requests per second with a token that Keystone has validated, beside none | nine tenths, or more |
//! | pollers ([`pollers`]) | polls of the list by 16 pollers while 1,000 targets are probed | p99 under 5 ms |
//! | cost ([`throughput`]) | processor time for each of these requests, which tells the two apart even where wrk is the bottleneck | |
//! | creation ([`creation`]) | from connecting to the answer of `POST /backup_targets`, for targets that work, that are silent, that refuse, and that have no address, while a hundred silent ones are probed | each under 100 ms |
//! | polling ([`creation`]) | from connecting to the answer of `GET /backup_targets` at 20 Hz, meanwhile | |
//! | memory ([`rest`]) | resident memory at rest with 100 targets, after three rounds of probes | under 20 MB |
//! | processor ([`rest`]) | user and system time of the same rest | under 0.5 % of a core |
//! | start ([`start`]) | from exec to the answer of `/healthz`, with 100 targets in the registry | each under 50 ms |

#![allow(clippy::disallowed_methods, reason = "local files, and programs that are killed when this ends")]

mod creation;
mod daemon;
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

/// How many targets the daemon has, unless the figure says otherwise.
const TARGETS: usize = 100;

/// How many it has at first, and at last.
const FEW: usize = 10;
const MANY: usize = 1000;

/// What has to be installed, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[(nginx::PROGRAM, "nginx-light"), (wrk::PROGRAM, "wrk")];

fn main() -> ExitCode {
    table::finish(missing_programs().and_then(|()| targetwatch::cli::runtime::block_on(run())?))
}

async fn run() -> anyhow::Result<Table> {
    let mut table = Table::default();
    let storage = Storage::start(MANY).await.context("the NFS servers")?;

    let home = storage.home(daemon::DEFAULT_INTERVAL)?;
    let daemon = Daemon::start(&home).await?;
    create(&daemon, 0..FEW).await?;
    throughput::measure(&daemon, FEW, &mut table).await.context("throughput")?;
    create(&daemon, FEW..TARGETS).await?;
    throughput::measure(&daemon, TARGETS, &mut table).await.context("throughput")?;
    keystone::measure(&daemon, &storage, TARGETS, &mut table).await.context("with Keystone")?;
    daemon.stop().await?;
    start::measure(&home, &mut table).await.context("start")?;
    let daemon = Daemon::start(&home).await?;
    rest::measure(&daemon, &mut table).await.context("at rest")?;
    create(&daemon, TARGETS..MANY).await?;
    throughput::measure(&daemon, MANY, &mut table).await.context("throughput")?;
    throughput::measure_savings(&daemon, &mut table).await.context("throughput")?;
    pollers::measure(&daemon, MANY, &mut table).await.context("pollers")?;
    daemon.stop().await?;

    let home = storage.home(daemon::SHORT_INTERVAL)?;
    let daemon = Daemon::start(&home).await?;
    creation::measure(&daemon, &mut table).await.context("with silent storage")?;
    daemon.stop().await?;
    Ok(table)
}

/// Creates targets on storage that works.
async fn create(daemon: &Daemon, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    for number in numbers {
        daemon.create(&storage::export(Kind::Healthy, number)).await?;
    }
    Ok(())
}

fn missing_programs() -> anyhow::Result<()> {
    let path = search_path();
    let is_there = |program: &str| path.split(':').any(|directory| Path::new(directory).join(program).is_file());
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    bail!("{} not found: apt-get install --no-install-recommends {}", programs.join(" and "), packages.join(" "))
}

/// Where programs are: nginx is in a directory that only root's PATH has.
fn search_path() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())
}
