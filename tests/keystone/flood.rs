//! Ten thousand tokens that are none.

use futures::future::join_all;

use crate::daemon::Daemon;
use crate::peer::{Keystone, status};

const TOKENS: usize = 10_000;
const AT_ONCE: usize = 50;

/// How many bad tokens the agent may remember, fewer than one batch has.
const REMEMBERED: usize = 16;

fn garbage(number: usize) -> String {
    format!("garbage-{number}")
}

#[tokio::test]
async fn bad_tokens_evict_no_valid_token_from_the_cache() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let agent = Daemon::start(&keystone.workspace(&format!("cache_entries = {REMEMBERED}"))).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&agent, &member).await, 200);
    let before = resident_kib(agent.pid());
    for first in (0..TOKENS).step_by(AT_ONCE) {
        let tokens: Vec<String> = (first..first + AT_ONCE).map(garbage).collect();
        let answers = join_all(tokens.iter().map(|token| status(&agent, token))).await;
        assert!(answers.iter().all(|answer| *answer == 401), "{answers:?}");
    }
    let grown = resident_kib(agent.pid()).saturating_sub(before);
    println!("{before} KiB before, {grown} KiB more after {TOKENS} bad tokens");
    // One after the other, so that it is known which are the newest.
    for number in TOKENS..TOKENS + REMEMBERED {
        assert_eq!(status(&agent, &garbage(number)).await, 401);
    }
    keystone.control("halt");
    assert_eq!(status(&agent, &member).await, 200, "it was pushed out");
    for number in TOKENS..TOKENS + REMEMBERED {
        assert_eq!(status(&agent, &garbage(number)).await, 401, "{number} is one of the newest");
    }
    for number in [0, AT_ONCE, TOKENS - 1] {
        assert_eq!(status(&agent, &garbage(number)).await, 503, "{number} is still remembered");
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
