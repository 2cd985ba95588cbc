//! The cost of a registry in etcd: nodes at rest, the death of a server, and the return of all nodes after an outage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use targetwatch::etcd::{FleetSize, KeyValueStore as _, RangeRequest};
use targetwatch::model::{MountName, NfsExport, NfsTarget, PathKey, Target, TargetId, TargetSpec, TargetType};
use targetwatch::registry::{Change, EtcdRegistry, MemoryStore, Registry, ReplicaStore};
use tokio::time::sleep;
use uuid::Uuid;

use crate::agents::{self, DEAD_TARGETS, TARGETS};
use crate::member::{Member, Work};
use crate::meter::Times;
use crate::nodes::{self, PREFIX, SharingNodes};
use crate::process::megabytes;
use crate::table::{Sample, Table};

/// A number of nodes, and its goals.
pub struct SharingGoals {
    pub nodes: usize,
    pub renewals_per_second: f64,
    pub writes_per_second: f64,
    /// Processor time of etcd, in cores.
    pub cores: f64,
}

pub const SIZES: [SharingGoals; 2] = [
    SharingGoals { nodes: 1_000, renewals_per_second: 50.0, writes_per_second: 1.0, cores: 0.1 },
    SharingGoals { nodes: 10_000, renewals_per_second: 250.0, writes_per_second: 5.0, cores: 0.5 },
];

/// Goal of 99 % of the writes.
const WRITES_P99_MAX: Duration = Duration::from_millis(50);

/// Time over which nodes at rest are measured: two intervals of renewals with 10,000 nodes.
const REST_MEASURED: Duration = Duration::from_secs(180);

/// Nodes that start each second before the measurements. Each sends about eight requests: it counts the nodes, gets a
/// lease, registers, looks at the facts, and joins and reads the registry.
const STARTS_PER_SECOND: u32 = 40;

/// Nodes that start each second when all start at once.
const STARTS_AT_ONCE: u32 = 1_000;

/// Time between two lines about a start.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// Number of times to live until each node has counted the nodes again and has seen that the facts do not change.
const TTLS_BEFORE_REST: u32 = 2;

/// Time for which nodes write each verdict.
const NAIVE_MEASURED: Duration = Duration::from_secs(30);

/// Time by which an outage is longer than the time to live of the leases.
const OUTAGE_MARGIN: Duration = Duration::from_secs(15);

/// Time limit of each state of the nodes.
const STATE_TIMEOUT: Duration = Duration::from_secs(600);

/// Time between two looks at the nodes.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Measures one fleet.
pub async fn measure(goals: &SharingGoals, table: &mut Table) -> anyhow::Result<()> {
    let mut member = Member::start().await?;
    let targets = create_targets(&member).await?;
    let mut fleet = SharingNodes::start(goals.nodes, STARTS_PER_SECOND, &member, &targets).await?;
    rest(goals, &member, &fleet, table).await.context("at rest")?;
    server_dies(&member, &fleet, table).await.context("a server dies")?;
    restart(&mut member, &fleet, table).await.context("etcd is restarted")?;
    outage(&member, &fleet, table).await.context("the nodes are cut off")?;
    naive(&member, &mut fleet, table).await.context("each verdict is written")
}

/// Starts all nodes within some seconds, and measures until they are at rest.
pub async fn start(nodes: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut member = Member::start().await?;
    let targets = create_targets(&member).await?;
    let began = Instant::now();
    let starting = member.work().await?;
    let fleet = SharingNodes::start(nodes, STARTS_AT_ONCE, &member, &targets).await?;
    let (mut present, mut whole, mut latest) = (None, None, (Instant::now(), starting));
    let rested = loop {
        sleep(LOOK_INTERVAL * 4).await;
        if present.is_none() && fleet.present(Duration::ZERO) == nodes {
            present = Some((began.elapsed(), member.work().await? - starting));
        }
        if whole.is_none() && fleet.with_targets(TARGETS) == nodes {
            whole = Some((began.elapsed(), member.work().await? - starting));
        }
        if latest.0.elapsed() >= SAMPLE_INTERVAL {
            let now = (Instant::now(), member.work().await?);
            let (work, seconds) = (now.1 - latest.1, (now.0 - latest.0).as_secs_f64());
            let each = |count: u64| count as f64 / seconds;
            eprintln!(
                "after {:.0} s: {} present, {} with {} s, {} with all targets. Per second: {:.0} renewals, {:.0} transactions, {:.0} reads, {:.1} grants, {:.1} writes, {:.2} cores",
                began.elapsed().as_secs_f64(),
                fleet.present(Duration::ZERO),
                fleet.present(ttl(nodes) * 2 / 3),
                (ttl(nodes) * 2 / 3).as_secs(),
                fleet.with_targets(TARGETS),
                each(work.renewals),
                each(work.transactions),
                each(work.reads),
                each(work.grants),
                each(work.writes),
                work.processor.as_secs_f64() / seconds
            );
            latest = now;
        }
        if whole.is_some() && fleet.present(ttl(nodes) * 2 / 3) == nodes && is_complete(&member, &fleet).await? {
            break began.elapsed();
        }
        ensure!(began.elapsed() < STATE_TIMEOUT, "not at rest within {} s", STATE_TIMEOUT.as_secs());
    };
    for (what, at) in [("are present", present), ("have all targets", whole)] {
        let (time, work) = at.context("it was seen before")?;
        let requests = work.renewals + work.transactions + work.reads + work.grants;
        table.add(
            name(&fleet, &format!("start at once: until all {what} / requests / processor time of etcd")),
            format!("{:.0} s / {requests} / {:.1} s", time.as_secs_f64(), work.processor.as_secs_f64()),
        );
    }
    table.add(name(&fleet, "start at once: until all have long leases"), format!("{:.0} s", rested.as_secs_f64()));
    member.kill()
}

fn name(fleet: &SharingNodes, figure: &str) -> String {
    format!("{} nodes with etcd: {figure}", fleet.count())
}

/// Time to live of the leases of a fleet: see `docs/fleet.md`. A node that counted fewer nodes when it started keeps a
/// lease that is at most a third shorter.
fn ttl(nodes: usize) -> Duration {
    Duration::from_secs(60).mul_f64((nodes as f64 / 10.0).log10())
}

async fn create_targets(member: &Member) -> anyhow::Result<Vec<TargetId>> {
    let client = Arc::new(nodes::client(&member.url(0)).await?);
    let shared = Arc::new(EtcdRegistry::new(client, PREFIX));
    let copy = ReplicaStore::new(MemoryStore::copy(), shared, Duration::from_secs(20), FleetSize::default());
    ensure!(copy.compare().await, "the registry in etcd cannot be created");
    let registry = Registry::new(Arc::new(copy));
    let mut ids = Vec::new();
    for number in 0..TARGETS {
        let change = target(&agents::export(number))?;
        if let Change::CreateTarget { target, .. } = &change {
            ids.push(target.id);
        }
        registry.change(&change).await?;
    }
    Ok(ids)
}

fn target(export: &str) -> anyhow::Result<Change> {
    let export = NfsExport::parse(export).map_err(|error| anyhow::anyhow!("{export}: {error}"))?;
    let spec = TargetSpec::Nfs(NfsTarget { export, options: None, mode: None });
    let now = Timestamp::now();
    let (target_id, version) = (Uuid::new_v4(), env!("CARGO_PKG_VERSION").to_owned());
    let mount_name = MountName::derive(&spec, PathKey::Path).context("no mount name")?;
    let first_type = TargetType {
        id: Uuid::new_v4(),
        target_id,
        name: spec.export(),
        description: None,
        is_public: true,
        is_default: false,
        user_id: None,
        created_at: now,
        updated_at: None,
        version: version.clone(),
        projects: Vec::new(),
        metadata: [].into(),
    };
    let target = Target {
        scope: None,
        id: target_id,
        mount_name,
        is_default: false,
        created_at: now,
        updated_at: now,
        version,
        metadata: [].into(),
        spec,
    };
    Ok(Change::CreateTarget { target: target.into(), first_type, declines_default: false })
}

/// Number of keys with this prefix, as etcd counts them.
async fn keys(member: &Member, folder: &str) -> anyhow::Result<u64> {
    let client = nodes::client(&member.url(0)).await?;
    let request = RangeRequest { limit: Some(1), ..RangeRequest::prefix(format!("/{PREFIX}/v1/{folder}/")) };
    Ok(client.range(&request).await?.total)
}

/// Waits for a state of the nodes. Returns the time until then.
async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !condition().await {
        ensure!(began.elapsed() < STATE_TIMEOUT, "not within {} s: {what}", STATE_TIMEOUT.as_secs());
        sleep(LOOK_INTERVAL).await;
    }
    Ok(began.elapsed())
}

/// Waits until all nodes are present with long enough leases, and every fact has a holder and is known.
async fn wait_until_at_rest(member: &Member, fleet: &SharingNodes) -> anyhow::Result<Duration> {
    let count = fleet.count();
    wait_for("all nodes at rest", async || {
        fleet.present(ttl(count) * 2 / 3) == count
            && fleet.with_targets(TARGETS) == count
            && is_complete(member, fleet).await.unwrap_or(false)
    })
    .await
}

/// Whether etcd has every node, and for each target a claim and a fact.
async fn is_complete(member: &Member, fleet: &SharingNodes) -> anyhow::Result<bool> {
    Ok(keys(member, "claims").await? == TARGETS as u64
        && keys(member, "facts").await? == TARGETS as u64
        && keys(member, "nodes").await? == 2 * fleet.count() as u64)
}

fn p99(times: Vec<Duration>) -> anyhow::Result<(String, Duration)> {
    let (count, sample) = (times.len(), Sample::new(times)?);
    Ok((format!("{} of {count}", sample.summary()), sample.percentile(99)))
}

async fn rest(goals: &SharingGoals, member: &Member, fleet: &SharingNodes, table: &mut Table) -> anyhow::Result<()> {
    wait_until_at_rest(member, fleet).await?;
    sleep(ttl(fleet.count()) * TTLS_BEFORE_REST).await;
    fleet.meter.take();
    let (before, began) = (member.work().await?, Instant::now());
    sleep(REST_MEASURED).await;
    let (Work { renewals, reads, transactions, writes, processor, .. }, seconds) =
        (member.work().await? - before, began.elapsed().as_secs_f64());
    let reads = reads + transactions;
    let (renewals, writes, cores) =
        (renewals as f64 / seconds, writes as f64 / seconds, processor.as_secs_f64() / seconds);
    table.add_with_goal(
        name(fleet, "renewals / reads / writes per second"),
        format!("{renewals:.0} / {:.0} / {writes:.2}", reads as f64 / seconds),
        format!("{:.0} / – / {:.0}", goals.renewals_per_second, goals.writes_per_second),
        // The time between two renewals varies by 20 %.
        renewals <= goals.renewals_per_second * 1.05 && writes <= goals.writes_per_second,
    );
    table.add_with_goal(
        name(fleet, "processor time of etcd"),
        format!("{:.1} % of a core", 100.0 * cores),
        format!("{:.0} %", 100.0 * goals.cores),
        cores <= goals.cores,
    );
    table.add(name(fleet, "resident memory of etcd"), megabytes(member.resident_bytes()?));
    let Times { reads, .. } = fleet.meter.take();
    table.add(name(fleet, "reads, median / p99 / longest"), p99(reads)?.0);
    Ok(())
}

async fn server_dies(member: &Member, fleet: &SharingNodes, table: &mut Table) -> anyhow::Result<()> {
    let before = member.work().await?;
    fleet.kill_server(true);
    let living = (TARGETS - DEAD_TARGETS) as u64;
    let given_back =
        wait_for("its claims are given back", async || keys(member, "claims").await.is_ok_and(|n| n == living)).await?;
    fleet.kill_server(false);
    let held =
        wait_for("its claims are held again", async || is_complete(member, fleet).await.unwrap_or(false)).await?;
    let (Work { writes, .. }, Times { writes: times, .. }) = (member.work().await? - before, fleet.meter.take());
    table.add(
        name(fleet, "a server dies: until its claims are given back / held again / writes"),
        format!("{:.0} s / {:.0} s / {writes}", given_back.as_secs_f64(), held.as_secs_f64()),
    );
    add_writes(fleet, "a server dies", times, table)
}

fn add_writes(fleet: &SharingNodes, event: &str, times: Vec<Duration>, table: &mut Table) -> anyhow::Result<()> {
    if times.is_empty() {
        table.add(name(fleet, &format!("{event}: writes")), "none");
        return Ok(());
    }
    let (text, p99) = p99(times)?;
    table.add_with_goal(
        name(fleet, &format!("{event}: writes, median / p99 / longest")),
        text,
        format!("{} ms", WRITES_P99_MAX.as_millis()),
        p99 <= WRITES_P99_MAX,
    );
    Ok(())
}

/// Kills etcd for longer than the leases last, and starts it again.
async fn restart(member: &mut Member, fleet: &SharingNodes, table: &mut Table) -> anyhow::Result<()> {
    let (failed, time) = (fleet.meter.failed(), ttl(fleet.count()) + OUTAGE_MARGIN);
    member.kill()?;
    sleep(time).await;
    let failed = (fleet.meter.failed() - failed) as f64 / time.as_secs_f64();
    table.add(name(fleet, "etcd is down: requests that fail per second"), format!("{failed:.0}"));
    member.restart()?;
    returns(member, fleet, "etcd was down", table).await
}

/// Cuts all nodes off for longer than their leases last. etcd ends the leases.
async fn outage(member: &Member, fleet: &SharingNodes, table: &mut Table) -> anyhow::Result<()> {
    fleet.meter.cut(true);
    wait_for("no node is present", async || keys(member, "nodes").await.is_ok_and(|keys| keys == fleet.count() as u64))
        .await?;
    sleep(OUTAGE_MARGIN).await;
    fleet.meter.cut(false);
    returns(member, fleet, "all leases had ended", table).await
}

/// Waits until all nodes are present again, and nothing is lost.
async fn returns(member: &Member, fleet: &SharingNodes, event: &str, table: &mut Table) -> anyhow::Result<()> {
    let count = fleet.count();
    fleet.meter.take();
    let (began, cpu) = (Instant::now(), member.processor_time()?);
    let (mut peak_requests, mut peak_cores) = (0.0_f64, 0.0_f64);
    let mut latest = (Instant::now(), fleet.meter.answered(), cpu);
    let mut sample = |peak_requests: &mut f64, peak_cores: &mut f64| -> anyhow::Result<()> {
        let seconds = latest.0.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            let now = (Instant::now(), fleet.meter.answered(), member.processor_time()?);
            *peak_requests = peak_requests.max((now.1 - latest.1) as f64 / seconds);
            *peak_cores = peak_cores.max(now.2.saturating_sub(latest.2).as_secs_f64() / seconds);
            latest = now;
        }
        Ok(())
    };
    while fleet.present(Duration::ZERO) < count {
        ensure!(began.elapsed() < STATE_TIMEOUT, "not all nodes are present");
        sample(&mut peak_requests, &mut peak_cores)?;
        sleep(LOOK_INTERVAL).await;
    }
    let (present, cpu) = (began.elapsed(), member.processor_time()? - cpu);
    table.add(
        name(fleet, &format!("{event}: until all are present / most requests per second / processor time, most cores")),
        format!("{:.0} s / {peak_requests:.0} / {:.1} s, {peak_cores:.2}", present.as_secs_f64(), cpu.as_secs_f64()),
    );
    wait_for("every target, claim and fact", async || {
        fleet.with_targets(TARGETS) == count && is_complete(member, fleet).await.unwrap_or(false)
    })
    .await?;
    let whole = began.elapsed().as_secs_f64();
    table.add(
        name(fleet, &format!("{event}: until every node has all targets, and every fact a holder")),
        format!("{whole:.0} s"),
    );
    add_writes(fleet, event, fleet.meter.take().writes, table)?;
    wait_until_at_rest(member, fleet).await?;
    Ok(())
}

/// Lets every node write each verdict after each probe, as one would do without the rules of this program.
async fn naive(member: &Member, fleet: &mut SharingNodes, table: &mut Table) -> anyhow::Result<()> {
    fleet.stop();
    fleet.meter.take();
    let (before, began) = (member.work().await?, Instant::now());
    fleet.write_verdicts(TARGETS, NAIVE_MEASURED).await;
    let (Work { writes, processor, .. }, seconds) = (member.work().await? - before, began.elapsed().as_secs_f64());
    let offered = (fleet.count() * TARGETS) as f64 / 10.0;
    table.add(
        name(fleet, "each verdict is written each 10 s: due / written per second / processor time of etcd"),
        format!("{offered:.0} / {:.0} / {:.2} cores", writes as f64 / seconds, processor.as_secs_f64() / seconds),
    );
    table
        .add(name(fleet, "each verdict is written: writes, median / p99 / longest"), p99(fleet.meter.take().writes)?.0);
    Ok(())
}
