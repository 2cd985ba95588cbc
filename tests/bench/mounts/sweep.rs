//! Sweeps: the capacity of a thousand mounts once, by the agent's means and by others, in turn.

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

/// How many sweeps of each there are.
const ROUNDS: usize = 21;

/// How long one mount may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The goal: how much longer than the bare loop a sweep may take.
const TIMES_BASELINE_MAX: f64 = 10.0;

/// The bare loop in C.
const BASELINE: &str = include_str!("baseline.c");

/// Measures.
pub async fn measure(points: &[PathBuf], exporter: &Exporter, table: &mut Table) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let baseline = compile(directory.path())?;
    let program = env!("CARGO_BIN_EXE_targetwatch").into();
    let pool = WorkerPool::new(WorkerPoolSettings::new(program), ChildCensus::default());
    let watch = Arc::new(MountTableWatch::start()?);
    let targets: Vec<(TargetId, PathBuf)> = points.iter().map(|point| (uuid::Uuid::new_v4(), point.clone())).collect();

    // The first of each warms it up.
    let (mut bare, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let one = (loop_of(&baseline, points)?, sweep(&pool, &watch, &targets).await?, exporter.scrape().await?);
        ensure!(one.2.mounts >= points.len(), "the exporter told of {} mounts", one.2.mounts);
        if round > 0 {
            bare.push(one.0);
            ours.push(one.1);
            theirs.push(one.2.collected);
        }
    }
    let stats = pool.stats();
    pool.shut_down();
    let (bare, ours, theirs) = (Sample::new(bare)?, Sample::new(ours)?, Sample::new(theirs)?);
    let ratio = |other: Duration| other.as_secs_f64() / ours.median().as_secs_f64();
    let times = 1.0 / ratio(bare.median());
    let count = points.len();
    table.tell(format!("{count} × statvfs in a loop in C: median / p99 / max"), bare.summary());
    table.judge(
        format!("sweep of {count} mounts by probe workers: median / p99 / max"),
        format!("{} ({times:.1} × the loop)", ours.summary()),
        "10 × the loop, or less",
        times <= TIMES_BASELINE_MAX,
    );
    table.judge(
        format!("{count} mounts by node_exporter's collector: median / p99 / max"),
        format!("{} ({:.1} × ours)", theirs.summary(), ratio(theirs.median())),
        "longer than ours",
        theirs.median() > ours.median(),
    );
    table.tell("workers started in all sweeps", stats.spawned_total.to_string());
    Ok(())
}

/// The mount table, and then the capacity, of every target at once, each in a task of the runtime as the
/// agent has them. So is what waits for them: the thread that `block_on` runs in would be woken by each.
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
        other => bail!("capacity was expected: {other:?}"),
    }
}

fn compile(directory: &Path) -> anyhow::Result<PathBuf> {
    let (source, program) = (directory.join("baseline.c"), directory.join("baseline"));
    std::fs::write(&source, BASELINE)?;
    let compiled = Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(&source).status().context("cc")?;
    ensure!(compiled.success(), "cc ended with {compiled}");
    Ok(program)
}

fn loop_of(program: &Path, points: &[PathBuf]) -> anyhow::Result<Duration> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("it has an input")?;
    for point in points {
        writeln!(input, "{}", point.display())?;
    }
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the loop ended with {}", output.status);
    Ok(Duration::from_nanos(String::from_utf8(output.stdout)?.trim().parse()?))
}
