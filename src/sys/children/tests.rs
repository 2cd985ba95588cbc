#![allow(clippy::disallowed_methods)]

use super::*;
use tokio::time::Instant;
use uuid::Uuid;

async fn shell(script: &str, census: &ChildCensus) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(std::process::Stdio::null());
    spawn(command, Program::Foreign, "sh".to_owned(), census).await.expect("a shell")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

#[tokio::test]
async fn target_has_one_claim() {
    let census = ChildCensus::new();
    let target = Uuid::new_v4();
    let claim = census.claim(target, soon()).await.expect("free");
    assert_eq!(census.claim(target, soon()).await.expect_err("taken"), ClaimError::Busy);
    assert!(census.claim(Uuid::new_v4(), soon()).await.is_ok(), "another target is free");
    let waiting = tokio::spawn({
        let census = census.clone();
        async move { census.claim(target, Instant::now() + Duration::from_secs(5)).await.is_ok() }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(claim);
    assert!(waiting.await.expect("no panic"), "the waiting caller gets it when it is released");
}

#[tokio::test]
async fn dropped_child_is_killed_with_its_group_and_frees_its_target() {
    let census = ChildCensus::new();
    let target = Uuid::new_v4();
    let mut child = shell("sleep 600 & sleep 600", &census).await;
    child.assignments.push(Assignment { claim: census.claim(target, soon()).await.expect("free"), permit: None });
    let pid = child.pid();
    // Gives the shell time to start the background process.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(child);
    let killed = Instant::now();
    census.claim(target, killed + Duration::from_secs(5)).await.expect("the child died");
    assert!(killed.elapsed() < Duration::from_millis(300), "{:?}", killed.elapsed());
    assert_eq!(group::members_of(group::id(pid).expect("a pid")).len(), 0, "nobody is left");
    assert_eq!(census.counts(), ChildCounts { alive: 0, stuck: 0, spawned_total: 1, killed_total: 1 });
}

#[tokio::test]
async fn child_outlives_the_thread_that_requested_it() {
    let census = ChildCensus::new();
    let (asked, runtime) = (census.clone(), Handle::current());
    let ask = move || runtime.block_on(shell("exec sleep 600", &asked));
    let mut child =
        tokio::task::spawn_blocking(move || std::thread::spawn(ask).join().expect("no panic")).await.expect("no panic");
    // The thread has ended. A parent-death signal would have arrived by now.
    let ended = tokio::time::timeout(Duration::from_millis(200), child.wait()).await;
    assert!(ended.is_err(), "it lives: {ended:?}");
}

#[tokio::test]
async fn child_that_ends_by_itself_is_not_killed() {
    let census = ChildCensus::new();
    let mut child = shell("exit 3", &census).await;
    assert_eq!(child.wait().await.expect("reaped").code(), Some(3));
    drop(child);
    assert_eq!(census.counts(), ChildCounts { alive: 0, stuck: 0, spawned_total: 1, killed_total: 0 });
}

#[tokio::test]
async fn retired_child_is_killed_if_it_does_not_end_by_itself() {
    let census = ChildCensus::new();
    shell("exit 0", &census).await.retire();
    shell("exec sleep 600", &census).await.retire();
    until("both are gone", || census.counts().alive == 0).await;
    assert_eq!(census.counts().killed_total, 1);
}

/// A process in a frozen cgroup ignores SIGKILL, like a process that waits for a dead server on a kernel without
/// killable waits. Run as root with the version 1 freezer: `cargo test --lib children -- --ignored`.
#[tokio::test]
#[ignore = "freezes a process: needs root and the cgroup v1 freezer"]
async fn unkillable_child_marks_its_target_until_it_is_gone() {
    let group = std::path::PathBuf::from(format!("/sys/fs/cgroup/freezer/targetwatch-{}", std::process::id()));
    std::fs::create_dir(&group).expect("a cgroup");
    let census = ChildCensus::new();
    let target = Uuid::new_v4();
    let mut child = shell("exec sleep 600", &census).await;
    child.assignments.push(Assignment { claim: census.claim(target, soon()).await.expect("free"), permit: None });
    let pid = child.pid();
    std::fs::write(group.join("cgroup.procs"), pid.to_string()).expect("moved");
    std::fs::write(group.join("freezer.state"), "FROZEN").expect("frozen");
    let killed = Instant::now();
    drop(child);
    let error = census.claim(target, killed + Duration::from_secs(5)).await.expect_err("it cannot die");
    assert!(matches!(&error, ClaimError::Stuck(stuck) if stuck.pid == pid), "{error}");
    assert!(killed.elapsed() < Duration::from_millis(1300), "{:?}", killed.elapsed());
    let at_once = Instant::now();
    assert!(census.claim(target, at_once + Duration::from_secs(5)).await.is_err());
    assert!(at_once.elapsed() < Duration::from_millis(50), "{:?}", at_once.elapsed());
    assert_eq!((census.counts().stuck, census.stuck_children()[0].target), (1, Some(target)));
    std::fs::write(group.join("freezer.state"), "THAWED").expect("thawed");
    until("it is gone", || census.stuck(target).is_none()).await;
    assert!(census.claim(target, soon()).await.is_ok());
    assert_eq!(census.counts().alive, 0);
    std::fs::remove_dir(&group).expect("removed");
}
