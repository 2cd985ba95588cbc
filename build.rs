//! Sets what `targetwatch --version` and the metric `targetwatch_build_info` say about the build.
//!
//! The revision is `TARGETWATCH_REVISION`, for builds from an archive, or else that of the git repository. Builds
//! without optimization have none: a commit would otherwise recompile the crate.

#![allow(clippy::disallowed_methods, reason = "a build script accesses no storage")]

use std::env;
use std::path::Path;
use std::process::Command;

/// Written instead of a fact that is not known.
const UNKNOWN: &str = "unknown";

/// Files whose change may change the revision. `.git/logs/HEAD` grows with each commit and checkout.
const SOURCES: [&str; 5] = ["build.rs", "Cargo.toml", "Cargo.lock", "src", ".git/logs/HEAD"];

fn main() {
    println!("cargo::rerun-if-env-changed=TARGETWATCH_REVISION");
    let is_optimized = env::var("OPT_LEVEL").is_ok_and(|level| level != "0");
    // A file that does not exist would make cargo run this script at each build.
    let sources = if is_optimized { &SOURCES[..] } else { &SOURCES[..1] };
    for source in sources.iter().filter(|source| Path::new(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
    let given = env::var("TARGETWATCH_REVISION").ok().filter(|given| !given.is_empty());
    let of_git = || output("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let revision = given.or_else(|| is_optimized.then(of_git).flatten());
    println!("cargo::rustc-env=TARGETWATCH_REVISION={}", revision.as_deref().unwrap_or(UNKNOWN));
    let rustc = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    let rustc = rustc.as_deref().and_then(|line| line.split(' ').nth(1));
    println!("cargo::rustc-env=TARGETWATCH_RUSTC={}", rustc.unwrap_or(UNKNOWN));
}

/// First line of a command's output, if it succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(ToOwned::to_owned)
}
