//! Growth: how each figure grows from ten to ten thousand targets, which is the most that an agent accepts.
//!
//! One daemon gets more and more targets. It probes only on request after the first verdict of each target, so that
//! every figure is the cost of one operation.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use targetwatch::api::wire;
use tokio::time::interval;

use crate::caches::Caches;
use crate::daemon::{Daemon, Workspace};
use crate::http::{self as client, Connection};
use crate::process::{anonymous_bytes, exact_processor_time};
use crate::rest::probes;
use crate::storage::{self, Kind, Storage};
use crate::table::{Sample, Table, exponent};

/// Numbers of targets.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// Probe interval of the daemon. No routine probe follows the first one.
const NO_ROUTINE_PROBE: Duration = Duration::from_secs(24 * 3600);

/// Number of measured checks of one target.
const CHECKS: usize = 300;

/// Number of measured lists, scrapes and creations.
const REPEATED: usize = 15;

/// Number of measured starts.
const STARTS: usize = 5;

/// Time in which the daemon returns the memory of the requests to the kernel. It does so every 10 s.
const MEMORY_RETURNED_AFTER: Duration = Duration::from_secs(22);

/// Time limit of the first probes of all targets.
const FIRST_ROUND_TIMEOUT: Duration = Duration::from_secs(120);

/// Polling interval until those are complete.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Goal: the exponent of a figure between the two largest sizes. The margin is for noise.
const EXPONENT_MAX: f64 = 1.1;

/// Goal: the exponent of a figure that should not grow, between the smallest and the largest size. The margin is for
/// the caches of the processor.
const CONSTANT_EXPONENT_MAX: f64 = 0.1;

/// The figures with one number of targets.
#[derive(Debug, Clone, Copy)]
struct Figures {
    check: Duration,
    list: Duration,
    scrape: Duration,
    creation: Duration,
    start: Duration,
    anonymous_bytes: u64,
}

/// Measures a daemon with more and more targets.
pub async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let largest = SIZES.into_iter().max().context("no size")?;
    let storage = Storage::start(largest).await.context("the NFS server")?;
    let workspace = storage.workspace(NO_ROUTINE_PROBE)?;
    let mut measured: Vec<(usize, Figures)> = Vec::new();
    for size in SIZES {
        let known = measured.last().map_or(0, |(known, _)| *known);
        measured.push((size, with_targets(&workspace, known, size).await.with_context(|| format!("{size} targets"))?));
    }
    let microseconds = |duration: Duration| duration.as_secs_f64() * 1e6;
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let figure = |name: &str, unit: &str, of: &dyn Fn(&Figures) -> f64| {
        (
            name.to_owned(),
            unit.to_owned(),
            measured.iter().map(|(size, figures)| (*size, of(figures))).collect::<Vec<_>>(),
        )
    };
    let constant = [figure("processor time of a check", "µs", &|it| microseconds(it.check))];
    let linear = [
        figure("processor time of GET /backup_targets after a check, caches empty", "µs", &|it| microseconds(it.list)),
        figure("processor time of GET /metrics after a check, caches empty", "µs", &|it| microseconds(it.scrape)),
        figure("POST /backup_targets, median", "ms", &|it| milliseconds(it.creation)),
        figure("exec to /healthz, median", "ms", &|it| milliseconds(it.start)),
        figure("anonymous memory after these requests", "MB", &|it| it.anonymous_bytes as f64 / 1e6),
    ];
    let sizes = SIZES.map(|size| size.to_string()).join(" / ");
    table.add("growth: figures of this many targets", sizes);
    for (name, unit, values) in &constant {
        add(table, name, unit, values, (values[0], values[values.len() - 1]), CONSTANT_EXPONENT_MAX);
    }
    for (name, unit, values) in &linear {
        add(table, name, unit, values, (values[values.len() - 2], values[values.len() - 1]), EXPONENT_MAX);
    }
    Ok(())
}

/// Adds a figure with the exponent between two sizes.
fn add(
    table: &mut Table,
    name: &str,
    unit: &str,
    values: &[(usize, f64)],
    ends: ((usize, f64), (usize, f64)),
    max: f64,
) {
    let grows = exponent(ends.0, ends.1);
    let values = values.iter().map(|(_, value)| format!("{value:.1}")).collect::<Vec<_>>().join(" / ");
    table.add_with_goal(
        format!("  {name}"),
        format!("{values} {unit}, exponent {grows:.2}"),
        format!("exponent at most {max} from {} to {}", ends.0.0, ends.1.0),
        grows <= max,
    );
}

/// Starts the daemon, creates the targets from `known` to `size`, and measures.
async fn with_targets(workspace: &Workspace, known: usize, size: usize) -> anyhow::Result<Figures> {
    let daemon = Daemon::start(workspace).await?;
    let mut created = Vec::with_capacity(size - known);
    for number in known..size {
        created.push(daemon.create(&storage::export(Kind::Healthy, number)).await?);
    }
    let creation = Sample::new(created.split_off(created.len().saturating_sub(REPEATED)))?.median();
    wait_until_probed(&daemon, size).await?;

    let mut connection = Connection::open(daemon.address).await?;
    let list = send(&mut connection, Method::GET, "/backup_targets").await?;
    let list: wire::TargetList = serde_json::from_slice(&list)?;
    let id = &list.backup_targets.first().context("no target")?.id;
    let check = format!("/backup_targets/{id}/check");
    let before = exact_processor_time(daemon.pid)?;
    for _ in 0..CHECKS {
        send(&mut connection, Method::POST, &check).await?;
    }
    let checks = exact_processor_time(daemon.pid)?.saturating_sub(before);
    let list = after_a_check(&daemon, &mut connection, &check, "/backup_targets").await?;
    let scrape = after_a_check(&daemon, &mut connection, &check, "/metrics").await?;
    // This is a part of the figure, not a wait for an event.
    tokio::time::sleep(MEMORY_RETURNED_AFTER).await;
    let anonymous_bytes = anonymous_bytes(daemon.pid)?;
    daemon.stop().await?;
    let start = start(workspace).await?;
    let check = checks / u32::try_from(CHECKS)?;
    Ok(Figures { check, list, scrape, creation, start, anonymous_bytes })
}

/// Waits until every target was probed once.
async fn wait_until_probed(daemon: &Daemon, size: usize) -> anyhow::Result<()> {
    let all = async {
        let mut ticks = interval(POLL_INTERVAL);
        while probes(daemon).await? < size as u64 {
            ticks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(FIRST_ROUND_TIMEOUT, all).await.context("not every target was probed")?
}

/// Processor time of an answer that a check has changed, with empty caches, as the median.
async fn after_a_check(
    daemon: &Daemon,
    connection: &mut Connection,
    check: &str,
    path: &str,
) -> anyhow::Result<Duration> {
    let (caches, mut times) = (Caches::new(), Vec::with_capacity(REPEATED));
    for _ in 0..REPEATED {
        send(connection, Method::POST, check).await?;
        caches.empty()?;
        let before = exact_processor_time(daemon.pid)?;
        send(connection, Method::GET, path).await?;
        times.push(exact_processor_time(daemon.pid)?.saturating_sub(before));
    }
    Ok(Sample::<Duration>::new(times)?.median())
}

async fn send(connection: &mut Connection, method: Method, path: &str) -> anyhow::Result<Bytes> {
    let request = Request::builder().method(method).uri(path).header(http::header::HOST, "localhost");
    Ok(connection.send(request.body(Full::<Bytes>::default())?).await?.body)
}

/// Median time from exec to the answer of `/healthz`.
async fn start(workspace: &Workspace) -> anyhow::Result<Duration> {
    let mut starts = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let began = Instant::now();
        let daemon = Daemon::start(workspace).await?;
        client::get(daemon.address, "/healthz").await?;
        starts.push(began.elapsed());
        daemon.stop().await?;
    }
    Ok(Sample::<Duration>::new(starts)?.median())
}
