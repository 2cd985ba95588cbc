//! Three agents and an aggregator on one machine, each a process of its own, with an NFS server in this one.
//!
//! It needs a Rust toolchain and a C compiler, and no privileges, because the agents verify targets over the wire
//! (`mode = "none"`). If etcd is installed, it starts one, and the nodes share a registry. Otherwise each agent has its
//! own, and one target is missing on a node. One target is broken on purpose. With arguments, this program is
//! `targetwatch`, so that it can start the processes.

#![allow(clippy::disallowed_methods, reason = "a temporary directory, and processes that end with this program")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use targetwatch::cli::{self, terminal};
use targetwatch::etcd::{EtcdClient, EtcdSettings, KeyValueStore as _, RangeRequest};
use targetwatch::sys::worker;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use support::nfs_server::{NfsExportFixture, NfsServer};

/// Number of nodes.
const NODES: usize = 3;

/// Number of targets.
const TARGETS: usize = 3;

/// A target that the user may create in the registry that all nodes share.
const NEW_TARGET: &str = r#"{"backup_target": {"type": "nfs", "filesystem_export": "127.0.0.1:/weekly"}}"#;

/// Address of the aggregator if no other process uses it.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8782);

/// Time limit of etcd's first answer, and of the first complete view.
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
    let exports = ["/backups", "/archive", "/weekly"]
        .map(|path| NfsExportFixture { path: path.to_owned(), directory: exported.clone() });
    let nfs = NfsServer::start(exports.into()).await?;

    let etcd = Etcd::start(directory.path()).await?;
    let mut processes = Vec::new();
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let address = free_address()?;
        let files = directory.path().join(format!("node-{number}"));
        std::fs::create_dir(&files)?;
        // Without a shared registry, the last node does not have one of the targets.
        let targets: &[&str] =
            if etcd.is_some() || number < NODES { &["backups", "archive", "broken"] } else { &["backups", "broken"] };
        let mut registry = registry(etcd.as_ref(), &files);
        if etcd.is_some() {
            // All agents of one host would have the same name.
            write!(registry, "[fleet]\nnode = \"node-{number}\"\n")?;
        }
        let config = agent(&registry, &files, address, nfs.port(), targets);
        std::fs::write(files.join("config.toml"), config)?;
        processes.push(start("serve", &files.join("config.toml"))?);
        nodes.push(address);
    }
    let address = if TcpListener::bind(ADDRESS).is_ok() { ADDRESS } else { free_address()? };
    let config = directory.path().join("aggregate.toml");
    std::fs::write(&config, aggregator(etcd.as_ref(), directory.path(), address, &nodes))?;
    processes.push(start("aggregate", &config)?);

    let shared = if etcd.is_some() { ", etcd" } else { "" };
    println!(
        "An NFS server{shared}, {NODES} agents and an aggregator run on this machine. Waiting for the first verdicts.\n"
    );
    let api = format!("http://{address}");
    tokio::select! {
        table = first_table(&api, etcd.is_some()) => println!("{}", table?),
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    }
    println!("Try:\n");
    println!("  curl -s {api}/backup_targets");
    println!("  curl -s {api}/nodes");
    println!("  kill {}     # an agent: its node is unknown after 8 s", pid(&processes[0]));
    if let Some(etcd) = &etcd {
        println!("  curl -s {api}/backup_targets --json '{NEW_TARGET}'     # all agents have it after 2 s");
        println!("  kill {}     # etcd: probes go on, and changes get 503", pid(&etcd.process));
    } else {
        println!("\nTo let the nodes share a registry, install etcd and start again: apt-get install etcd-server");
    }
    println!("\nIn a browser: {api}/ui/fleet");
    println!("\nPress Ctrl-C to stop.");
    std::io::stdout().flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Processes are killed when they are dropped.
    drop((processes, etcd));
    nfs.stop().await;
    Ok(())
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn pid(process: &Child) -> u32 {
    process.id().unwrap_or_default()
}

/// The registry that the nodes share.
struct Etcd {
    process: Child,
    address: SocketAddr,
}

impl Etcd {
    /// Starts etcd with its data in `directory`, and waits until it answers. `None` if it is not installed.
    async fn start(directory: &Path) -> anyhow::Result<Option<Self>> {
        let (address, peers) = (free_address()?, free_address()?);
        let (url, peers) = (format!("http://{address}"), format!("http://{peers}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(directory.join("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}"), "--auto-compaction-retention", "1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = match command.spawn() {
            Ok(process) => process,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("cannot start etcd"),
        };
        let client = EtcdClient::new(EtcdSettings { endpoints: vec![url], ca_file: None, login: None }).await?;
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        let answering = async {
            while client.range(&RangeRequest::key("ready")).await.is_err() {
                looks.tick().await;
            }
        };
        tokio::time::timeout(START_TIMEOUT, answering).await.context("etcd does not answer")?;
        Ok(Some(Self { process, address }))
    }
}

/// The section of the registry for a process with its files in `directory`.
fn registry(etcd: Option<&Etcd>, directory: &Path) -> String {
    let file = directory.join("registry.db");
    let file = file.display();
    match etcd {
        Some(Etcd { address, .. }) => format!(
            "[registry]\nurl = \"etcd://{address}/targetwatch\"\ncache = \"{file}\"\ncompare_interval = \"1s\"\n"
        ),
        None => format!("[registry]\nurl = \"sqlite://{file}\"\n"),
    }
}

/// The configuration of an agent.
fn agent(registry: &str, directory: &Path, address: SocketAddr, nfs_port: u16, targets: &[&str]) -> String {
    let directory = directory.display();
    let targets = targets.iter().map(|name| {
        format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"127.0.0.1:/{name}\"\nbtt_name = \"{name}\"\n")
    });
    format!(
        r#"
        {registry}
        [api]
        listen = ["{address}"]
        [mounts]
        root = "{directory}/mounts"
        mode = "none"
        nfs_options = "nfsvers=3,port={nfs_port},mountport={nfs_port}"
        {}"#,
        targets.collect::<String>()
    )
}

/// The configuration of the aggregator.
fn aggregator(etcd: Option<&Etcd>, directory: &Path, address: SocketAddr, nodes: &[SocketAddr]) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("\"http://{node}\"")).collect();
    // An aggregator without a shared registry has none.
    let registry = if etcd.is_some() { registry(etcd, directory) } else { String::new() };
    format!(
        "{registry}[api]\nlisten = [\"{address}\"]\n[aggregate]\nnodes = [{}]\ninterval = \"1s\"\n",
        nodes.join(", ")
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

/// Waits until every agent has probed its targets, and has all of them if it shares the registry. Returns what
/// `targetwatch status --fleet` prints then.
async fn first_table(api: &str, is_shared: bool) -> anyhow::Result<String> {
    let looking = async {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            let status = targetwatch(&["--api", api, "status", "--fleet"])?.output();
            let list = targetwatch(&["--api", api, "status", "--fleet", "--json"])?.output().await?;
            // It fails until the nodes have been polled, and its exit code says that a target is offline.
            if serde_json::from_slice::<Value>(&list.stdout).is_ok_and(|list| is_known(&list, is_shared)) {
                return anyhow::Ok(String::from_utf8(status.await?.stdout)?);
            }
        }
    };
    let table = tokio::time::timeout(START_TIMEOUT, looking).await;
    ensure!(table.is_ok(), "the agents have no verdicts after {} s", START_TIMEOUT.as_secs());
    table?
}

/// Whether every target has a state on every node, and is on every node if they share the registry.
fn is_known(list: &Value, is_shared: bool) -> bool {
    let targets = list["backup_targets"].as_array().map_or(&[][..], Vec::as_slice);
    let is_complete = |nodes: &Value| nodes["unknown"] == 0 && (!is_shared || nodes["missing"] == 0);
    targets.len() == TARGETS && targets.iter().all(|target| is_complete(&target["nodes"]))
}
