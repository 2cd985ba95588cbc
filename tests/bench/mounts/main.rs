//! Benchmark of mounts: the cost of monitoring a thousand of them, compared with Prometheus node_exporter.
//!
//! ```text
//! apt-get install --no-install-recommends gcc libc6-dev prometheus-node-exporter
//! cargo bench --bench mounts        # as root
//! ```
//!
//! It mounts in its own mount namespace, which ends with it. The agent is the binary that packages contain.
//!
//! | figure | measured | goal |
//! |---|---|---|
//! | sweep ([`sweep`]) | the mount table and statvfs of 1,000 tmpfs, each through a probe worker, alternating with a plain loop in C and with node_exporter's filesystem collector | 5 × the loop, or less, and no worker started |
//! | growth ([`sweep`]) | sweeps of 10, 100 and 1,000 of these mounts | exponent at most 1.1 |
//! | cost ([`sweep`]) | processor time per mount of the agent with its workers, and of node_exporter | |
//! | answers ([`answers`]) | polls of the list of 1,000 targets, and scrapes of node_exporter with 1,000 mounts | shorter |
//! | scrapes ([`scrapes`]) | `GET /metrics` of 1,000 targets, and scrapes of node_exporter with 1,000 mounts: time, size, processor time | p99 under 20 ms, compressed under 1 MB, shorter and with less processor time than node_exporter |
//! | memory ([`answers`]) | resident memory of both directly after the polls, and after the scrapes | under 18 MB, and less than node_exporter |
//! | memory at rest ([`answers`]) | resident memory of the agent 45 s later, and the time of the next poll | under 18 MB |
//! | hanging mounts ([`hung`]) | processor time of probes of fifty of them per interval, with the start and end of their workers | under 2 % of a core |
//!
//! The lab measures scrapes and polls while NFS mounts hang (`tests/lab/node_exporter.rs`).

#![allow(clippy::disallowed_methods, reason = "local files, and child processes that end with this program")]
#![allow(dead_code, reason = "it uses a part of the modules shared with the benchmark of the agent")]

mod answers;
mod exporter;
mod hung;
mod scrapes;
mod sweep;

#[path = "../daemon.rs"]
mod daemon;
#[path = "../http.rs"]
mod http;
#[path = "../process.rs"]
mod process;
#[path = "../storage.rs"]
mod storage;
#[path = "../table.rs"]
mod table;

#[path = "../../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use table::Table;

/// Number of mounts, and of targets.
const MOUNTS: usize = 1000;

fn main() -> ExitCode {
    table::finish(run())
}

fn run() -> anyhow::Result<Table> {
    ensure!(Uid::effective().is_root(), "mounting requires root");
    let directory = tempfile::tempdir()?;
    // Before other threads exist, which would stay in the old namespace.
    let points = mount_many(directory.path())?;
    // Sweeps run in this process, as in an agent.
    targetwatch::cli::runtime::block_on_agent(async |_| {
        let mut table = Table::default();
        let exporter = exporter::Exporter::start().await?;
        sweep::measure(&points, &exporter, &mut table).await.context("sweeps")?;
        answers::measure(MOUNTS, &exporter, &mut table).await.context("answers")?;
        hung::measure(directory.path(), &mut table).await.context("hanging mounts")?;
        anyhow::Ok(table)
    })?
}

fn mount_many(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("private mounts")?;
    mount(Some("bench"), directory, Some("tmpfs"), MsFlags::empty(), none)?;
    let mount_one = |number: usize| {
        let point = directory.join(format!("{number:04}"));
        std::fs::create_dir(&point)?;
        mount(Some("bench"), &point, Some("tmpfs"), MsFlags::empty(), none)?;
        Ok(point)
    };
    (0..MOUNTS).map(mount_one).collect()
}
