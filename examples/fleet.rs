//! Three agents and an aggregator on one machine, each a process of its own, with an NFS server in this one.
//!
//! It needs a Rust toolchain and a C compiler, and no privileges, because the agents verify targets over the wire
//! (`mode = "none"`). One target is on all nodes, one is missing on a node, and one is broken on purpose. With
//! arguments, this program is `targetwatch`, so that it can start the processes.

#![allow(clippy::disallowed_methods, reason = "a temporary directory, and processes that end with this program")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use targetwatch::cli::{self, terminal};
use targetwatch::sys::worker;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use support::nfs_server::{NfsExportFixture, NfsServer};

/// Number of nodes.
const NODES: usize = 3;

/// Number of targets.
const TARGETS: usize = 3;

/// Address of the aggregator if no other process uses it.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8782);

/// Time limit of the first complete view.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two looks at the view.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == worker::ARGUMENT => return worker::child::main(),
        Some(_) => return cli::main(),
        None => {}
    }
    match cli::runtime::block_on(run()).and_then(|outcome| outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {}", terminal::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let exported = directory.path().join("exported");
    std::fs::create_dir(&exported)?;
    let exports =
        ["/backups", "/archive"].map(|path| NfsExportFixture { path: path.to_owned(), directory: exported.clone() });
    let nfs = NfsServer::start(exports.into()).await?;

    let mut processes = Vec::new();
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let address = free_address()?;
        let files = directory.path().join(format!("node-{number}"));
        std::fs::create_dir(&files)?;
        // The last node does not have one of the targets.
        let targets: &[&str] = if number < NODES { &["backups", "archive", "broken"] } else { &["backups", "broken"] };
        std::fs::write(files.join("config.toml"), agent(&files, address, nfs.port(), targets))?;
        processes.push(start("serve", &files.join("config.toml"))?);
        nodes.push(address);
    }
    let address = if TcpListener::bind(ADDRESS).is_ok() { ADDRESS } else { free_address()? };
    let config = directory.path().join("aggregate.toml");
    let listed: Vec<String> = nodes.iter().map(|address| format!("\"http://{address}\"")).collect();
    std::fs::write(
        &config,
        format!("[api]\nlisten = [\"{address}\"]\n[aggregate]\nnodes = [{}]\ninterval = \"1s\"\n", listed.join(", ")),
    )?;
    processes.push(start("aggregate", &config)?);

    println!("An NFS server, {NODES} agents and an aggregator run on this machine. Waiting for the first verdicts.\n");
    let api = format!("http://{address}");
    tokio::select! {
        table = first_table(&api) => println!("{}", table?),
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    }
    println!("Try:\n");
    println!("  curl -s {api}/backup_targets");
    println!("  curl -s {api}/nodes");
    println!("  kill {}     # an agent: its node is unknown after 8 s", processes[0].id().unwrap_or_default());
    println!("\nIn a browser: {api}/ui/fleet");
    println!("\nPress Ctrl-C to stop.");
    std::io::stdout().flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Processes are killed when they are dropped.
    drop(processes);
    nfs.stop().await;
    Ok(())
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The configuration of an agent.
fn agent(directory: &Path, address: SocketAddr, nfs_port: u16, targets: &[&str]) -> String {
    let directory = directory.display();
    let targets = targets.iter().map(|name| {
        format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"127.0.0.1:/{name}\"\nbtt_name = \"{name}\"\n")
    });
    format!(
        r#"
        [api]
        listen = ["{address}"]
        [registry]
        url = "sqlite://{directory}/registry.db"
        [mounts]
        root = "{directory}/mounts"
        mode = "none"
        nfs_options = "nfsvers=3,port={nfs_port},mountport={nfs_port}"
        {}"#,
        targets.collect::<String>()
    )
}

/// Starts a role of `targetwatch`, which is killed when the handle is dropped.
fn start(role: &str, config: &Path) -> anyhow::Result<Child> {
    targetwatch(&[role, "--config"])?
        .arg(config)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {role}"))
}

/// This program as `targetwatch`.
fn targetwatch(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).env("TARGETWATCH_LOG", "error").stdin(Stdio::null());
    Ok(command)
}

/// Waits until every agent has probed its targets. Returns what `targetwatch status --fleet` prints then.
async fn first_table(api: &str) -> anyhow::Result<String> {
    let looking = async {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            let status = targetwatch(&["--api", api, "status", "--fleet"])?.output();
            let list = targetwatch(&["--api", api, "status", "--fleet", "--json"])?.output().await?;
            // It fails until the nodes have been polled, and its exit code says that a target is offline.
            if serde_json::from_slice::<Value>(&list.stdout).is_ok_and(|list| is_known(&list)) {
                return anyhow::Ok(String::from_utf8(status.await?.stdout)?);
            }
        }
    };
    let table = tokio::time::timeout(START_TIMEOUT, looking).await;
    ensure!(table.is_ok(), "the agents have no verdicts after {} s", START_TIMEOUT.as_secs());
    table?
}

/// Whether every target has a state on every node.
fn is_known(list: &Value) -> bool {
    let targets = list["backup_targets"].as_array().map_or(&[][..], Vec::as_slice);
    targets.len() == TARGETS && targets.iter().all(|target| target["nodes"]["unknown"] == 0)
}
