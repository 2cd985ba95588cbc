//! What one would do without an aggregator: a loop that gets the list of every agent.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::process::Command;

/// One thread is too slow for many nodes, because each waits for its agent.
const PYTHON: &str = r#"
import collections, concurrent.futures, json, sys, urllib.request
def ask(url):
    with urllib.request.urlopen(url + "/backup_targets", timeout=5) as answer:
        return json.load(answer)["backup_targets"]
states = collections.Counter()
urls = open(sys.argv[1]).read().split()
with concurrent.futures.ThreadPoolExecutor(32) as threads:
    for targets in threads.map(ask, urls):
        states.update((target["filesystem_export"], target["status"]) for target in targets)
assert sum(states.values()) == 20 * len(urls)
"#;

/// Cost of one round.
pub struct Round {
    pub name: &'static str,
    pub wall: Duration,
    pub processor: Duration,
}

/// A round of Python with 32 threads, which decode the answers.
pub async fn python(list: &Path) -> anyhow::Result<Round> {
    let mut command = Command::new("python3");
    command.arg("-c").arg(PYTHON).arg(list);
    run("Python", command).await
}

/// A round of curl, 64 requests at a time, without decoding the answers.
pub async fn curl(list: &Path) -> anyhow::Result<Round> {
    let config = tempfile::NamedTempFile::new()?;
    let urls = std::fs::read_to_string(list)?;
    let lines = urls.lines().map(|url| format!("url = {url}/backup_targets\noutput = /dev/null\n"));
    std::fs::write(config.path(), lines.collect::<String>())?;
    let mut command = Command::new("curl");
    command.args(["--parallel", "--parallel-max", "64", "--silent", "--fail", "--config"]).arg(config.path());
    run("curl", command).await
}

async fn run(name: &'static str, mut command: Command) -> anyhow::Result<Round> {
    let used = || anyhow::Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?);
    let (before, began) = (used()?, Instant::now());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context(name)?;
    let (wall, after) = (began.elapsed(), used()?);
    ensure!(
        output.status.success(),
        "{name} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let micros = |usage: nix::sys::resource::Usage| {
        let total = usage.user_time() + usage.system_time();
        total.tv_sec() * 1_000_000 + total.tv_usec()
    };
    let processor = Duration::from_micros(u64::try_from(micros(after) - micros(before))?);
    Ok(Round { name, wall, processor })
}
