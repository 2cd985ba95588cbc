//! Benchmark of fleets with 1,000 and with 10,000 nodes of 20 targets each: the cost of an aggregator, and that of a
//! registry in etcd.
//!
//! ```text
//! apt-get install --no-install-recommends wrk curl python3 iproute2 etcd-server
//! cargo bench --bench fleet                 # or only one part: cargo bench --bench fleet -- aggregator
//! ```
//!
//! # The aggregator
//!
//! The agents are one server in this process, with an address of its own for each node ([`agents`]). Their answers are
//! those of a real agent with 20 targets on four servers, which the benchmark starts first. Each agent probes its
//! targets every 10 s, so the times in its reports change as often. The aggregator is the binary that packages contain,
//! with its default interval: 5 s and 20 s. It takes about six minutes.
//!
//! | figure | measured | goal |
//! |---|---|---|
//! | list | requests per second of `GET /backup_targets` of the aggregator and of the real agent; wrk with 16 connections, in alternating rounds, while the aggregator polls | half of the agent, or more |
//! | memory | resident memory of the aggregator after some rounds of polls, and its peak | 100 MB with 1,000 agents, 600 MB with 10,000 |
//! | polls | processor time of the aggregator without clients, its requests per second, their answers, and the bytes of these; also with 1,000 agents of an earlier release, whose list changes at each probe | |
//! | outage | from the moment when one of the four servers is dead for all agents, until the list is right about all of them | 10 s with 1,000 agents, 30 s with 10,000 |
//! | loop ([`loops`]) | wall and processor time of one round over all agents by Python with 32 threads, and by `curl --parallel`, compared with the processor time of the aggregator for as many agents | |

//!
//! # The registry in etcd
//!
//! The nodes are tasks of this process ([`nodes`]), each with the client, the presence, the claims and the copy of an
//! agent, and with connections of its own. A driver probes each 10 s, answers at once, and proves the lock of each
//! target. etcd is a real member on this host, with its directory in the temporary one. This part takes about half an
//! hour, and needs a limit of 20,000 open files (`ulimit -n`).
//!
//! | figure ([`shared`]) | measured | goal |
//! |---|---|---|
//! | at rest | renewals, reads, writes and processor time of etcd in 180 s, as its metrics and the kernel say | 50 renewals and 1 write per second and 0.1 core with 1,000 nodes, 250, 5 and 0.5 with 10,000 |
//! | a server dies | until the claims of its five targets are given back, and held again when it has returned. 99 % of the writes, seen by the nodes | 50 ms |
//! | etcd was down | it is killed for longer than the leases last, and started again. Leases go on then | 50 ms |
//! | all leases had ended | the nodes are cut off until etcd has ended all leases. Until all are present, and until every target, claim and fact is there as before | 50 ms |
//! | each verdict is written | what one would do otherwise: each node writes 20 verdicts of 700 bytes each 10 s | |
//!
//! `cargo bench --bench fleet -- start-3000` starts that number of nodes, 1,000 each second. It prints a line about them
//! each 15 s, and then the times until all are present, have all targets, and have leases that are long enough.
//!
//! All parts print one table. The exit code is not zero when a goal is missed.

#![allow(clippy::disallowed_methods, reason = "local files, and child processes that end with this program")]

mod agents;
mod loops;
mod member;
mod meter;
mod nodes;
mod shared;

#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/daemon.rs"]
mod daemon;
#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/http.rs"]
mod http;
#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/table.rs"]
mod table;
#[allow(dead_code, reason = "the benchmark of the agent uses the rest")]
#[path = "../bench/wrk.rs"]
mod wrk;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use procfs::process::Process;
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::time::{interval, sleep, timeout};

use agents::{Agents, DEAD_TARGETS, TARGETS};
use daemon::{Daemon, Workspace};
use process::megabytes;
use shared::SharingGoals;
use support::nfs_server::{NfsExportFixture, NfsServer};
use table::{Sample, Table};

/// Numbers of agents, each with the goals of resident memory, in MB, and of an outage.
const SIZES: [(usize, u64, Duration); 2] =
    [(1_000, 100, Duration::from_secs(10)), (10_000, 600, Duration::from_secs(30))];

/// Time over which the cost of polls is measured.
const POLLS_MEASURED: Duration = Duration::from_secs(40);

/// Rounds of load.
const ROUNDS: usize = 3;

/// Time limit of the first view and of the view after an outage.
const VIEW_TIMEOUT: Duration = Duration::from_secs(120);

/// Time between two looks at the list.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let is_list = std::env::args().any(|argument| argument == "--list");
    if is_list {
        // A test runner asks for the tests of each binary.
        return ExitCode::SUCCESS;
    }
    table::finish(targetwatch::cli::runtime::block_on(run()).and_then(|outcome| outcome))
}

/// A part of the benchmark.
enum Part {
    Aggregator,
    Registry(SharingGoals),
    /// Starts this number of nodes.
    Start(usize),
}

impl Part {
    /// Returns the parts that an argument names.
    ///
    /// # Errors
    /// When it names none.
    fn named(argument: &str) -> anyhow::Result<Vec<Self>> {
        if argument == "aggregator" {
            return Ok(vec![Self::Aggregator]);
        }
        if let Some(nodes) = argument.strip_prefix("start-").and_then(|nodes| nodes.parse().ok()) {
            return Ok(vec![Self::Start(nodes)]);
        }
        let is_named = |goals: &SharingGoals| argument == "etcd" || argument == format!("etcd-{}", goals.nodes);
        let named: Vec<_> = shared::SIZES.into_iter().filter(is_named).map(Self::Registry).collect();
        ensure!(
            !named.is_empty(),
            "there is no part {argument:?}, expected aggregator, etcd, etcd-1000, etcd-10000 or start-NUMBER"
        );
        Ok(named)
    }
}

/// Returns the parts to measure: all except starts, unless the arguments name others.
fn parts() -> anyhow::Result<Vec<Part>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let named = if arguments.is_empty() { vec!["aggregator".to_owned(), "etcd".to_owned()] } else { arguments };
    let parts: Vec<_> = named.iter().map(|argument| Part::named(argument)).collect::<anyhow::Result<_>>()?;
    Ok(parts.into_iter().flatten().collect())
}

async fn run() -> anyhow::Result<Table> {
    let mut table = Table::default();
    for part in parts()? {
        match part {
            Part::Aggregator => aggregators(&mut table).await?,
            Part::Registry(goals) => {
                let measured = shared::measure(&goals, &mut table).await;
                measured.with_context(|| format!("{} nodes with etcd", goals.nodes))?;
            }
            Part::Start(nodes) => {
                let measured = shared::start(nodes, &mut table).await;
                measured.with_context(|| format!("start of {nodes} nodes with etcd"))?;
            }
        }
    }
    Ok(table)
}

async fn aggregators(table: &mut Table) -> anyhow::Result<()> {
    let exported = tempfile::tempdir()?;
    let export = |number| NfsExportFixture { path: agents::path(number), directory: exported.path().into() };
    let server = NfsServer::start((0..TARGETS).map(export).collect()).await?;
    let port = server.port();
    let options = format!("nfsvers=3,port={port},mountport={port}");
    let workspace = Workspace::new(&format!("[[mounts.nfs]]\nlocation = \"*\"\noptions = {options:?}"))?;
    let agent = Daemon::start(&workspace).await?;
    for number in 0..TARGETS {
        agent.create(&agents::export(number)).await?;
    }
    agent.wait_until_all_probed().await?;
    let (nodes, ..) = SIZES[0];
    measure_details(&Agents::start(nodes, &agent, false).await?, table).await.context("earlier release")?;
    for (nodes, memory_goal, outage_goal) in SIZES {
        let agents = Agents::start(nodes, &agent, true).await?;
        measure(&agent, &agents, memory_goal, outage_goal, table).await.with_context(|| format!("{nodes} nodes"))?;
    }
    Ok(())
}

/// Measures the polls of agents of an earlier release, whose lists change at each probe.
async fn measure_details(agents: &Agents, table: &mut Table) -> anyhow::Result<()> {
    let nodes = agents.addresses().len();
    let (aggregator, _files) = aggregator(agents).await?;
    wait_for(&aggregator, |list| is_right(list, nodes, 0)).await?;
    measure_polls(&format!("{nodes} agents of an earlier release"), &aggregator, agents, table).await?;
    aggregator.stop().await
}

/// Measures the polls without clients. Returns the processor time of a round.
async fn measure_polls(
    name: &str,
    aggregator: &Daemon,
    agents: &Agents,
    table: &mut Table,
) -> anyhow::Result<Duration> {
    sleep(POLLS_MEASURED / 2).await;
    let (cpu, counts, began) = (process::processor_time(aggregator.pid)?, agents.counts(), Instant::now());
    sleep(POLLS_MEASURED).await;
    let (cpu, polled) = (process::processor_time(aggregator.pid)? - cpu, agents.counts() - counts);
    let (elapsed, polls) = (began.elapsed().as_secs_f64(), polled.requests.max(1) as f64);
    table.add(
        format!("{name}: polls per second / answered with 304 / bytes of each answer"),
        format!(
            "{:.0} / {:.0} % / {:.0}",
            polls / elapsed,
            100.0 * polled.unchanged as f64 / polls,
            polled.bytes as f64 / polls
        ),
    );
    let cpu = cpu.as_secs_f64();
    table.add(
        format!("{name}: processor time of the aggregator / of each poll"),
        format!("{:.1} % of a core / {:.0} us", 100.0 * cpu / elapsed, cpu * 1e6 / polls),
    );
    Ok(Duration::from_secs_f64(cpu * agents.addresses().len() as f64 / polls))
}

/// Starts an aggregator of these agents. Returns its files too, which must outlive it.
async fn aggregator(agents: &Agents) -> anyhow::Result<(Daemon, (Workspace, NamedTempFile))> {
    let list = NamedTempFile::new()?;
    std::fs::write(list.path(), agents.addresses().join("\n"))?;
    let workspace = Workspace::new(&format!("[aggregate]\nnodes_file = {:?}", list.path()))?;
    Ok((Daemon::start_role("aggregate", &workspace).await?, (workspace, list)))
}

async fn measure(
    agent: &Daemon,
    agents: &Agents,
    memory_goal: u64,
    outage_goal: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    let nodes = agents.addresses().len();
    let name = |figure: &str| format!("{nodes} agents: {figure}");
    let began = Instant::now();
    let (aggregator, (_workspace, list)) = aggregator(agents).await?;
    wait_for(&aggregator, |list| list["complete"] == true && is_right(list, nodes, 0)).await?;
    table.add(name("from start to the first complete list"), seconds(began.elapsed()));

    let round = measure_polls(&format!("{nodes} agents"), &aggregator, agents, table).await?;

    let (mut ours, mut single) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        single.push(wrk::run(agent.address, "/backup_targets", &[]).await?.per_second);
        ours.push(wrk::run(aggregator.address, "/backup_targets", &[]).await?.per_second);
    }
    let (ours, single) = (Sample::new(ours)?.median(), Sample::new(single)?.median());
    table.add_with_goal(
        name("GET /backup_targets: aggregator / single agent"),
        format!("{ours:.0} / {single:.0} per s"),
        "half of the agent, or more",
        ours * 2.0 >= single,
    );

    let peak = peak_bytes(aggregator.pid)?;
    let resident = process::resident_bytes(aggregator.pid)?;
    table.add_with_goal(
        name("resident memory / peak"),
        format!("{} / {}", megabytes(resident), megabytes(peak)),
        format!("{memory_goal} MB"),
        resident <= memory_goal * 1_000_000,
    );

    let began = Instant::now();
    agents.kill_a_server();
    let cpu = process::processor_time(aggregator.pid)?;
    wait_for(&aggregator, |list| is_right(list, nodes, nodes)).await?;
    let took = began.elapsed();
    table.add_with_goal(
        name("a server dies: until the list is right / processor time"),
        format!("{} / {}", seconds(took), seconds(process::processor_time(aggregator.pid)? - cpu)),
        seconds(outage_goal),
        took <= outage_goal,
    );
    aggregator.stop().await?;

    for run in [loops::python(list.path()).await?, loops::curl(list.path()).await?] {
        table.add(
            name(&format!("{}: wall time of a round / processor time of a round / of the aggregator", run.name)),
            format!("{} / {} / {}", seconds(run.wall), seconds(run.processor), seconds(round)),
        );
    }
    Ok(())
}

/// Whether a list has every target with the right number of nodes. The targets of the dead server are offline on `dead`
/// of them.
fn is_right(list: &Value, nodes: usize, dead: usize) -> bool {
    let targets = list["backup_targets"].as_array().map_or(&[][..], Vec::as_slice);
    let of_dead_server = |target: &Value| target["nodes"]["offline"] == dead;
    let of_living_server = |target: &Value| target["nodes"]["available"] == nodes;
    let is_dead = |target: &Value| agents::is_of_dead_server(target["filesystem_export"].as_str().unwrap_or_default());
    targets.len() == TARGETS
        && targets.iter().filter(|target| is_dead(target)).count() == DEAD_TARGETS
        && targets.iter().all(|one| if is_dead(one) && dead > 0 { of_dead_server(one) } else { of_living_server(one) })
}

/// Waits until the list of an aggregator meets a condition.
async fn wait_for(aggregator: &Daemon, condition: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let looking = async {
        let mut ticks = interval(LOOK_INTERVAL);
        loop {
            ticks.tick().await;
            // It answers with 503 until the nodes have been polled.
            if let Ok(answer) = http::get(aggregator.address, "/backup_targets").await
                && condition(&serde_json::from_slice(&answer.body)?)
            {
                return anyhow::Ok(());
            }
        }
    };
    let result = timeout(VIEW_TIMEOUT, looking).await;
    ensure!(result.is_ok(), "the list is not right after {} s", VIEW_TIMEOUT.as_secs());
    result?
}

/// Largest resident memory of a process so far.
fn peak_bytes(pid: i32) -> anyhow::Result<u64> {
    let kib = Process::new(pid)?.status()?.vmhwm.context("the kernel reports no VmHWM")?;
    Ok(kib * 1024)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
