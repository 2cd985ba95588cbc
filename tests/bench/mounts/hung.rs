//! Hanging mounts: the cost of repeated probes that time out.
//!
//! They are FUSE mounts without a server. A call on one blocks in the kernel until its process is killed, as on a hard
//! NFS mount of a dead server.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use targetwatch::model::TargetId;
use targetwatch::sys::{CallError, ChildCensus, Lane, Request, WorkerPool, WorkerPoolSettings};
use tokio::task::JoinSet;

use crate::table::{Sample, Table};

/// Number of hanging mounts.
const HUNG: usize = 50;

/// Number of rounds of probes.
const ROUNDS: usize = 5;

/// Default deadline of a probe.
const DEADLINE: Duration = Duration::from_secs(2);

/// Default probe interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Goal: less than this, in percent of a core.
const PROCESSOR_MAX: f64 = 2.0;

/// Measures the probe workers that time out on hanging mounts.
pub async fn measure(directory: &Path, table: &mut Table) -> anyhow::Result<()> {
    let mounts = (0..HUNG).map(|number| mount_hung(directory, number)).collect::<anyhow::Result<Vec<_>>>()?;
    let program = env!("CARGO_BIN_EXE_targetwatch").into();
    let census = ChildCensus::default();
    let pool = WorkerPool::new(WorkerPoolSettings::new(program), census.clone());
    let (mut costs, mut durations) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (began, before) = (Instant::now(), processor_time()?);
        let mut probes = JoinSet::new();
        for (target, path, _) in &mounts {
            let (pool, target, path) = (pool.clone(), *target, path.clone());
            probes.spawn(async move {
                let request = Request::StatVfs { path, expect_nfs: false };
                // The pool refuses more suspect calls than its limit, so these are repeated.
                loop {
                    match pool.call(target, Lane::Suspect, request.clone(), DEADLINE).await {
                        Err(CallError::Overloaded { .. }) => {}
                        other => return other,
                    }
                }
            });
        }
        while let Some(probed) = probes.join_next().await {
            match probed? {
                Err(CallError::TimedOut { .. }) => {}
                other => bail!("expected a timeout: {other:?}"),
            }
        }
        durations.push(began.elapsed());
        costs.push((processor_time()? - before).as_secs_f64());
    }
    pool.shut_down();
    let counts = census.counts();
    ensure!(counts.stuck == 0, "{counts:?}");
    let (costs, durations) = (Sample::new(costs)?, Sample::new(durations)?);
    let percent = costs.median() / INTERVAL.as_secs_f64() * 100.0;
    table.add_with_goal(
        format!("processor use for {HUNG} hanging mounts probed every {} s, with children", INTERVAL.as_secs()),
        format!("{percent:.2} % of a core"),
        "under 2 %",
        percent < PROCESSOR_MAX,
    );
    table.add(format!("time until all {HUNG} probes ended, deadline {} s", DEADLINE.as_secs()), durations.summary());
    Ok(())
}

/// User and system time of this process and its reaped children.
fn processor_time() -> anyhow::Result<Duration> {
    let micros = |time: TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    let mut sum = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        sum += micros(usage.user_time()) + micros(usage.system_time());
    }
    Ok(sum)
}

/// Mounts a FUSE file system, which exists until the returned device is closed.
fn mount_hung(directory: &Path, number: usize) -> anyhow::Result<(TargetId, PathBuf, File)> {
    let point = directory.join(format!("hung{number:02}"));
    std::fs::create_dir(&point)?;
    let device = File::options().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("hung"), &point, Some("fuse"), MsFlags::empty(), Some(options.as_str())).context("a FUSE mount")?;
    Ok((uuid::Uuid::new_v4(), point, device))
}
