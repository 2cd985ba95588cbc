//! Sweeps: the capacity of a thousand mounts, measured once by the agent, by a plain loop, and by node_exporter.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use procfs::process::all_processes;
use targetwatch::model::TargetId;
use targetwatch::sys::{ChildCensus, Lane, MountTableWatch, Request, Response, WorkerPool, WorkerPoolSettings};
use tokio::task::JoinSet;

use crate::exporter::Exporter;
use crate::process::exact_processor_time;
use crate::table::{Sample, Table, exponent};

/// Number of sweeps of each.
const ROUNDS: usize = 21;

/// Deadline of one mount.
const DEADLINE: Duration = Duration::from_secs(5);

/// Goal: a sweep takes at most this many times as long as the plain loop.
const TIMES_BASELINE_MAX: f64 = 5.0;

/// Goal: the exponent with which sweeps grow with the number of mounts. The margin is for noise.
const EXPONENT_MAX: f64 = 1.1;

/// The plain loop in C.
const BASELINE: &str = include_str!("baseline.c");

/// Measures sweeps of these mount points.
pub async fn measure(points: &[PathBuf], exporter: &Exporter, table: &mut Table) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let baseline = compile(directory.path())?;
    let program = env!("CARGO_BIN_EXE_targetwatch").into();
    let pool = WorkerPool::new(WorkerPoolSettings::new(program), ChildCensus::default());
    let watch = Arc::new(MountTableWatch::start()?);
    let targets: Vec<(TargetId, PathBuf)> = points.iter().map(|point| (uuid::Uuid::new_v4(), point.clone())).collect();

    // The first round only warms up, and starts the workers that are kept.
    let (mut started_before, mut our_time) = (0, Duration::ZERO);
    let their_pid = exporter.pid()?;
    let their_time_before = exact_processor_time(their_pid)?;
    let (mut plain, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let by_loop = run_loop(&baseline, points)?;
        let time_before = time_with_workers()?;
        let by_agent = sweep(&pool, &watch, &targets).await?;
        our_time += time_with_workers()?.saturating_sub(time_before);
        let scrape = exporter.scrape().await?;
        ensure!(scrape.mounts >= points.len(), "the exporter reports only {} mounts", scrape.mounts);
        if round == 0 {
            started_before = pool.stats().spawned_total;
        } else {
            plain.push(by_loop);
            ours.push(by_agent);
            theirs.push(scrape.collected);
        }
    }
    let started = pool.stats().spawned_total - started_before;
    let growth = growth(&pool, &watch, &targets).await?;
    pool.shut_down();
    let (plain, ours, theirs) = (Sample::new(plain)?, Sample::new(ours)?, Sample::new(theirs)?);
    let ratio = |other: Duration| other.as_secs_f64() / ours.median().as_secs_f64();
    let times = 1.0 / ratio(plain.median());
    let count = points.len();
    table.add(format!("{count} × statvfs in a loop in C: median / p99 / max"), plain.summary());
    table.add_with_goal(
        format!("sweep of {count} mounts by probe workers: median / p99 / max"),
        format!("{} ({times:.1} × the loop)", ours.summary()),
        "5 × the loop, or less",
        times <= TIMES_BASELINE_MAX,
    );
    table.add_with_goal(
        format!("{count} mounts by node_exporter's collector: median / p99 / max"),
        format!("{} ({:.1} × ours)", theirs.summary(), ratio(theirs.median())),
        "longer than ours",
        theirs.median() > ours.median(),
    );
    let per_mount = |time: Duration| time.as_secs_f64() * 1e6 / ((ROUNDS + 1) * count) as f64;
    let their_time = exact_processor_time(their_pid)?.saturating_sub(their_time_before);
    table.add(
        "processor time per mount: agent with workers / node_exporter",
        format!("{:.1} / {:.1} µs", per_mount(our_time), per_mount(their_time)),
    );
    let [(few, shortest), .., (many, longest)] = growth[..] else { bail!("no growth") };
    let exponent = exponent((few, shortest.as_secs_f64()), (many, longest.as_secs_f64()));
    let numbers: Vec<_> = growth.iter().map(|(count, _)| count.to_string()).collect();
    let medians: Vec<_> = growth.iter().map(|(_, took)| format!("{:.1}", took.as_secs_f64() * 1e3)).collect();
    table.add_with_goal(
        format!("sweep of {} mounts, median", numbers.join(" / ")),
        format!("{} ms, exponent {exponent:.2}", medians.join(" / ")),
        "exponent at most 1.1",
        exponent <= EXPONENT_MAX,
    );
    table.add_with_goal("workers started during all these sweeps", started.to_string(), "none", started == 0);
    Ok(())
}

/// Measures sweeps of a part of the targets. Returns their number and the median of each.
async fn growth(
    pool: &WorkerPool,
    watch: &Arc<MountTableWatch>,
    targets: &[(TargetId, PathBuf)],
) -> anyhow::Result<Vec<(usize, Duration)>> {
    let mut medians = Vec::new();
    for count in [targets.len() / 100, targets.len() / 10, targets.len()] {
        let mut took = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            took.push(sweep(pool, watch, &targets[..count]).await?);
        }
        medians.push((count, Sample::<Duration>::new(took)?.median()));
    }
    Ok(medians)
}

/// Execution time of this process and its workers.
fn time_with_workers() -> anyhow::Result<Duration> {
    let this = i32::try_from(std::process::id())?;
    let mut time = exact_processor_time(this)?;
    // Processes may end during this loop.
    for stat in all_processes()?.filter_map(|process| process.ok()?.stat().ok()) {
        if stat.ppid == this && stat.comm == "probe-worker" {
            time += exact_processor_time(stat.pid).unwrap_or_default();
        }
    }
    Ok(time)
}

/// Reads the mount table and the capacity of every target concurrently, each in a task, as the agent does. The caller
/// of `block_on` would be woken by each task, so the waiting is in a task too.
async fn sweep(
    pool: &WorkerPool,
    watch: &Arc<MountTableWatch>,
    targets: &[(TargetId, PathBuf)],
) -> anyhow::Result<Duration> {
    let (pool, watch, targets) = (pool.clone(), watch.clone(), targets.to_vec());
    let sweep = async move {
        let began = Instant::now();
        let mut probes = JoinSet::new();
        for (target, path) in targets {
            probes.spawn(probe(pool.clone(), watch.clone(), target, path));
        }
        while let Some(probed) = probes.join_next().await {
            probed??;
        }
        anyhow::Ok(began.elapsed())
    };
    tokio::spawn(sweep).await?
}

async fn probe(pool: WorkerPool, watch: Arc<MountTableWatch>, target: TargetId, path: PathBuf) -> anyhow::Result<()> {
    ensure!(watch.reread()?.topmost_at(&path).is_some(), "{} is not mounted", path.display());
    match pool.call(target, Lane::Healthy, Request::StatVfs { path, expect_nfs: false }, DEADLINE).await? {
        Response::Counts(_) => Ok(()),
        other => bail!("expected counts: {other:?}"),
    }
}

fn compile(directory: &Path) -> anyhow::Result<PathBuf> {
    let (source, program) = (directory.join("baseline.c"), directory.join("baseline"));
    std::fs::write(&source, BASELINE)?;
    let compiled = Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(&source).status().context("cc")?;
    ensure!(compiled.success(), "cc ended with {compiled}");
    Ok(program)
}

/// Runs the loop once over all mount points, and returns its duration.
fn run_loop(program: &Path, points: &[PathBuf]) -> anyhow::Result<Duration> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("standard input")?;
    for point in points {
        writeln!(input, "{}", point.display())?;
    }
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the loop ended with {}", output.status);
    Ok(Duration::from_nanos(String::from_utf8(output.stdout)?.trim().parse()?))
}
