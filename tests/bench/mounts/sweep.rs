//! Sweeps: the capacity of a thousand mounts, measured once by the agent, by a plain loop, and by node_exporter.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use targetwatch::model::TargetId;
use targetwatch::sys::{ChildCensus, Lane, MountTableWatch, Request, Response, WorkerPool, WorkerPoolSettings};
use tokio::task::JoinSet;

use crate::exporter::Exporter;
use crate::table::{Sample, Table};

/// Number of sweeps of each.
const ROUNDS: usize = 21;

/// Deadline of one mount.
const DEADLINE: Duration = Duration::from_secs(5);

/// Goal: a sweep takes at most this many times as long as the plain loop.
const TIMES_BASELINE_MAX: f64 = 5.0;

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
    let mut started_before = 0;
    let (mut plain, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (by_loop, by_agent, scrape) =
            (run_loop(&baseline, points)?, sweep(&pool, &watch, &targets).await?, exporter.scrape().await?);
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
    table.add_with_goal("workers started during all these sweeps", started.to_string(), "none", started == 0);
    Ok(())
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
