//! Ten thousand invalid tokens.

use futures::future::join_all;

use crate::daemon::Daemon;
use crate::peer::{Keystone, status};

const TOKENS: usize = 10_000;
const BATCH: usize = 50;

/// Number of invalid tokens that the agent may cache, less than a batch.
const CACHED: usize = 16;

fn garbage(number: usize) -> String {
    format!("garbage-{number}")
}

#[tokio::test]
async fn bad_tokens_evict_no_valid_token_from_the_cache() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let daemon = Daemon::start(&keystone.workspace(&format!("cache_entries = {CACHED}"))).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&daemon, &member).await, 200);
    let before = resident_kib(daemon.pid());
    for first in (0..TOKENS).step_by(BATCH) {
        let tokens: Vec<String> = (first..first + BATCH).map(garbage).collect();
        let answers = join_all(tokens.iter().map(|token| status(&daemon, token))).await;
        assert!(answers.iter().all(|answer| *answer == 401), "{answers:?}");
    }
    let grown = resident_kib(daemon.pid()).saturating_sub(before);
    println!("{before} KiB before, {grown} KiB more after {TOKENS} bad tokens");
    // Sequential requests determine which tokens are the newest.
    for number in TOKENS..TOKENS + CACHED {
        assert_eq!(status(&daemon, &garbage(number)).await, 401);
    }
    keystone.control("halt");
    assert_eq!(status(&daemon, &member).await, 200, "the valid token was evicted");
    for number in TOKENS..TOKENS + CACHED {
        assert_eq!(status(&daemon, &garbage(number)).await, 401, "{number} is one of the newest");
    }
    for number in [0, BATCH, TOKENS - 1] {
        assert_eq!(status(&daemon, &garbage(number)).await, 503, "{number} is still cached");
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
