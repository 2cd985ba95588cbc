//! A soak test: all kinds of load at once for a long time. Afterwards the agent has the memory, threads and
//! descriptors that it had before.
//!
//! Clients create, change, check, poll and delete targets ([`clients`]), while others send malformed, slow and
//! oversized requests ([`hostile`]). Servers fail and recover, and the configuration is reloaded. The load runs for
//! a short time before the first measurement, so that caches and pools are filled.
//!
//! `tests/run --long` and `tests/run soak` run it for a minute. A quarter of an hour, by hand:
//!
//! ```sh
//! TARGETWATCH_SOAK_SECONDS=900 cargo test --test soak -- --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]
#![allow(dead_code, reason = "each test binary uses a part of the shared helpers")]
#![allow(clippy::disallowed_methods, reason = "files in a temporary directory, and the agent as a child")]

mod clients;
#[path = "../support/daemon.rs"]
mod daemon;
mod hostile;
#[path = "../support/http.rs"]
mod http;
#[path = "../integration/storage.rs"]
mod storage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/workspace.rs"]
mod workspace;

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use clients::Clients;
use daemon::Daemon;
use storage::{immutable_target, nfs, nfs_target, s3, s3_target};
use support::nfs_server::{Behaviour, NfsServer};

/// Names the duration of the load, in seconds.
const DURATION_VARIABLE: &str = "TARGETWATCH_SOAK_SECONDS";

/// The duration without that variable.
const DURATION: Duration = Duration::from_secs(60);

/// The load before the first measurement, as a part of the duration, and its limits.
const WARM_UP_PART: u32 = 4;
const WARM_UP_MIN: Duration = Duration::from_secs(20);
const WARM_UP_MAX: Duration = Duration::from_secs(60);

/// Time in which the agent must return to its idle state after the load.
const IDLE_WITHIN: Duration = Duration::from_secs(30);

/// Maximum change of the resident memory, in percent.
const MEMORY_TOLERANCE_PERCENT: f64 = 10.0;

/// Maximum number of additional descriptors: those of idle workers and of connections to storage.
const FILES_TOLERANCE: u64 = 16;

/// Maximum number of additional threads. The runtime starts some for reading files and ends them when they are idle.
const THREADS_TOLERANCE: u64 = 4;

/// Interval between reloads of the configuration.
const RELOAD_INTERVAL: Duration = Duration::from_secs(3);

/// Interval between changes of the failing server's behaviour.
const FAILURE_INTERVAL: Duration = Duration::from_secs(2);

/// Tells all parts of the load when to stop.
#[derive(Clone)]
pub struct Load(watch::Receiver<bool>);

impl Load {
    /// Whether the load still runs.
    pub fn runs(&self) -> bool {
        !*self.0.borrow()
    }

    /// Waits for an interval, or until the load stops.
    pub async fn pause(&mut self, interval: Duration) {
        // An error means that the load stopped.
        let _ = tokio::time::timeout(interval, self.0.wait_for(|stopped| *stopped)).await;
    }
}

/// Memory, descriptors and threads of the agent.
#[derive(Debug, Clone, Copy)]
struct Resources {
    resident_bytes: u64,
    open_files: u64,
    threads: u64,
}

impl Resources {
    async fn read(daemon: &Daemon) -> Self {
        let node = daemon.get("/node").await;
        let figure = |key: &str| node["agent"][key].as_u64().expect("a figure");
        Self { resident_bytes: figure("resident_bytes"), open_files: figure("open_files"), threads: figure("threads") }
    }

    /// Describes what grew or shrank more than allowed.
    fn problem_since(self, before: Self) -> Option<String> {
        let percent = 100.0 * (self.resident_bytes as f64 / before.resident_bytes as f64 - 1.0);
        let has_leaked_files = self.open_files > before.open_files + FILES_TOLERANCE;
        let has_leaked_threads = self.threads > before.threads + THREADS_TOLERANCE;
        (percent.abs() > MEMORY_TOLERANCE_PERCENT || has_leaked_files || has_leaked_threads)
            .then(|| format!("memory changed by {percent:.1} %: {before:?} became {self:?}"))
    }
}

/// Runs the whole load for a duration.
async fn run(daemon: &Daemon, standing: &[String], failing: &NfsServer, random: &mut StdRng, duration: Duration) {
    let (stop, stopped) = watch::channel(false);
    let load = Load(stopped);
    let mut tasks = JoinSet::new();
    let clients = Clients { address: daemon.address(), standing: standing.to_vec(), load: load.clone() };
    clients.spawn(&mut tasks, random);
    hostile::spawn(&mut tasks, daemon.address(), &load, random);
    let end = Instant::now() + duration;
    let reloads = async {
        while Instant::now() < end {
            daemon.signal(Signal::SIGHUP);
            tokio::time::sleep(RELOAD_INTERVAL).await;
        }
    };
    let failures = async {
        while Instant::now() < end {
            for behaviour in [Behaviour::Silent, Behaviour::Garbage, Behaviour::CloseAtOnce, Behaviour::Healthy] {
                failing.set_behaviour(behaviour);
                tokio::time::sleep(FAILURE_INTERVAL).await;
            }
        }
    };
    let load_ends = async {
        tokio::time::sleep_until(end).await;
        stop.send_replace(true);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no part of the load failed");
        }
    };
    tokio::join!(reloads, failures, load_ends);
}

/// Waits until only the standing targets exist and the resources are as before, and returns the last figures.
async fn settle(daemon: &Daemon, standing: &[String], before: Option<Resources>) -> Resources {
    let end = Instant::now() + IDLE_WITHIN;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ids: Vec<Value> = daemon.targets().await.iter().map(|target| target["id"].clone()).collect();
        let found = Resources::read(daemon).await;
        let is_settled = match before {
            Some(before) => found.problem_since(before).is_none(),
            // Connections that the load left behind are closed by then.
            None => Instant::now() + IDLE_WITHIN / 2 > end,
        };
        if ids == standing && is_settled || Instant::now() > end {
            assert_eq!(ids, standing, "the targets of the load are still there");
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_unchanged_after_long_load() {
    let seconds = std::env::var(DURATION_VARIABLE).ok().map(|text| text.parse().expect("a number of seconds"));
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    let seed: u64 = rand::random();
    println!("seed {seed}, {} s", duration.as_secs());
    let mut random = StdRng::seed_from_u64(seed);

    let (healthy, workspace) = nfs().await;
    let (failing, _) = nfs().await;
    let s3 = s3().await;
    let port = failing.port();
    workspace.configure(&format!(
        "[probe]\nnfs_interval = \"1s\"\ns3_interval = \"1s\"\ndeadline = \"500ms\"\n\
         [[mounts.nfs]]\nlocation = \"127.0.0.1:/two\"\noptions = \"nfsvers=3,port={port},mountport={port}\"\n"
    ));
    let mut daemon = Daemon::start_logging(&workspace, "warn,targetwatch=error,targetwatch::cli=info").await;
    let mut standing = Vec::new();
    for target in [
        nfs_target("/one"),
        nfs_target("/two"),
        s3_target(&s3, "plain"),
        immutable_target(&s3, "locked"),
        s3_target(&s3, "missing"),
    ] {
        standing.push(daemon.create(target).await);
    }
    println!("started: {:?}", Resources::read(&daemon).await);

    let warm_up = (duration / WARM_UP_PART).clamp(WARM_UP_MIN, WARM_UP_MAX);
    run(&daemon, &standing, &failing, &mut random, warm_up).await;
    let before = settle(&daemon, &standing, None).await;
    println!("before:  {before:?}");
    run(&daemon, &standing, &failing, &mut random, duration).await;
    println!("loaded:  {:?}", Resources::read(&daemon).await);
    let after = settle(&daemon, &standing, Some(before)).await;
    println!("after:   {after:?}");
    assert_eq!(after.problem_since(before), None);
    daemon.stop().await;
    drop(healthy);
}
