//! Ten thousand tokens that are none.

use futures::future::join_all;

use crate::daemon::Daemon;
use crate::peer::{Keystone, status};

const TOKENS: usize = 10_000;
const AT_ONCE: usize = 50;

/// What the agent may grow by: its allocator keeps what connections took.
const GROWTH_MAX_KIB: u64 = 16 << 10;

#[tokio::test]
async fn ten_thousand_bad_tokens_cost_no_memory_and_no_good_token() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let agent = Daemon::start(&keystone.place("cache_entries = 1000")).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&agent, &member).await, 200);
    let before = resident_kib(agent.pid());
    for batch in 0..TOKENS / AT_ONCE {
        let tokens: Vec<String> = (0..AT_ONCE).map(|number| format!("garbage-{batch}-{number}")).collect();
        let answers = join_all(tokens.iter().map(|token| status(&agent, token))).await;
        assert!(answers.iter().all(|answer| *answer == 401), "{answers:?}");
    }
    let grown = resident_kib(agent.pid()).saturating_sub(before);
    println!("{before} KiB before, {grown} KiB more after {TOKENS} bad tokens");
    assert!(grown < GROWTH_MAX_KIB, "grown by {grown} KiB");
    keystone.control("halt");
    assert_eq!(status(&agent, &member).await, 200, "it was pushed out");
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
