//! promtool of Prometheus (Debian package `prometheus`), which checks metrics, rules and their unit tests.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Time limit of one run. On an idle machine the unit tests of the rules take a second.
const RUN_MAX: Duration = Duration::from_secs(120);

/// Returns whether promtool is installed. Tests that need it are skipped without it.
pub fn is_installed() -> bool {
    let Err(error) = std::process::Command::new("promtool").arg("--version").output() else { return true };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    eprintln!("skipped: promtool (Debian: prometheus) is not installed");
    false
}

/// Runs promtool with a standard input. Returns what it printed to standard error, or to both streams if it failed.
pub async fn run(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut promtool = promtool.spawn().expect("run");
    promtool.stdin.take().expect("piped").write_all(input.as_bytes()).await.expect("written");
    let output = tokio::time::timeout(RUN_MAX, promtool.wait_with_output()).await.expect("its end").expect("run");
    let [printed, warned] = [output.stdout, output.stderr].map(|stream| String::from_utf8(stream).expect("text"));
    if output.status.success() { Ok(warned) } else { Err(printed + &warned) }
}
