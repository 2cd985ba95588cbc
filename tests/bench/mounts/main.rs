//! The benchmark of mounts: what it costs to watch a thousand of them, beside Prometheus node_exporter.
//!
//! ```text
//! apt-get install --no-install-recommends gcc libc6-dev prometheus-node-exporter
//! cargo bench --bench mounts        # as root
//! ```
//!
//! It mounts in a namespace of its own, which ends with it: nothing is left and nobody else sees
//! it. The agent is the true release binary.
//!
//! | figure | measured | goal |
//! |---|---|---|
//! | sweep ([`sweep`]) | the mount table and statvfs of 1,000 tmpfs, each through a probe worker as for a target, in turn with a bare loop in C and with node_exporter's filesystem collector | 10 × the loop, or less |
//! | answers ([`answers`]) | polls of the list of 1,000 targets, beside scrapes of node_exporter for 1,000 mounts | shorter |
//! | memory ([`answers`]) | resident memory of both meanwhile | less |
//! | mounts that hang ([`hung`]) | processor time of the workers that are given up on fifty of them, and of what starts and kills them, for each interval | under 2 % of a core |
//!
//! How long a scrape and a poll take while mounts hang is seen in the lab (`tests/lab/beside_node_exporter.rs`), since that
//! takes the kernel's NFS client.

#![allow(clippy::disallowed_methods, reason = "local files, and programs that are killed when this ends")]
#![allow(dead_code, reason = "what it shares with the benchmark of the agent is not all used here")]

mod answers;
mod exporter;
mod hung;
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

/// How many mounts there are, and targets.
const MOUNTS: usize = 1000;

fn main() -> ExitCode {
    table::finish(run())
}

fn run() -> anyhow::Result<Table> {
    ensure!(Uid::effective().is_root(), "mounting takes root");
    let directory = tempfile::tempdir()?;
    // Before there are threads, which would stay in the other namespace.
    let points = mount_many(directory.path())?;
    targetwatch::cli::runtime::block_on(async {
        let mut table = Table::default();
        let exporter = exporter::Exporter::start().await?;
        sweep::measure(&points, &exporter, &mut table).await.context("sweeps")?;
        answers::measure(MOUNTS, &exporter, &mut table).await.context("answers")?;
        hung::measure(directory.path(), &mut table).await.context("mounts that hang")?;
        anyhow::Ok(table)
    })?
}

fn mount_many(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    unshare(CloneFlags::CLONE_NEWNS).context("a namespace of mounts")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("mounts that nobody else sees")?;
    mount(Some("bench"), directory, Some("tmpfs"), MsFlags::empty(), none)?;
    let mount_one = |number: usize| {
        let point = directory.join(format!("{number:04}"));
        std::fs::create_dir(&point)?;
        mount(Some("bench"), &point, Some("tmpfs"), MsFlags::empty(), none)?;
        Ok(point)
    };
    (0..MOUNTS).map(mount_one).collect()
}
