//! Tests with real children: this test binary, run again as a worker, and shells that misbehave.

#![allow(clippy::disallowed_methods)]

mod batches;

use super::super::protocol::frame::{self, Numbered};
use super::super::protocol::{self, IDENTITY};
use super::process::{Answer, is_end};
use super::*;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::path::PathBuf;
use tokio::time::timeout;
use uuid::Uuid;

const ENOUGH: Duration = Duration::from_secs(10);

/// A worker that is this test binary: the test harness writes to standard output, so the answers go
/// to another descriptor.
fn worker() -> (PathBuf, Vec<OsString>) {
    let script = r#"exec 3>&1 >/dev/null; exec env WORKER_CHILD=1 "$0" --exact "$1" --nocapture"#;
    let this = std::env::current_exe().expect("this test");
    ("/bin/sh".into(), vec!["-c".into(), script.into(), this.into(), "sys::worker::pool::tests::worker_child".into()])
}

/// Not a test: what [`worker`] runs.
#[test]
fn worker_child() {
    if std::env::var_os("WORKER_CHILD").is_some() {
        let mut output = std::fs::OpenOptions::new().write(true).open("/dev/fd/3").expect("a descriptor");
        super::super::child::serve(&mut std::io::stdin().lock(), &mut output).expect("an agent");
    }
}

fn pool_of((program, arguments): (PathBuf, Vec<OsString>), workers_max: usize) -> WorkerPool {
    let settings = WorkerPoolSettings { program, arguments, idle_max: 2, workers_max, held: None };
    WorkerPool::new(settings, ChildCensus::new())
}

fn pool() -> WorkerPool {
    pool_of(worker(), 4)
}

fn shell(script: &str) -> WorkerPool {
    pool_of(("/bin/sh".into(), vec!["-c".into(), script.into()]), 4)
}

/// Shell command that sends these bytes.
fn printf(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{escaped}'")
}

/// Shell command that sends an answer.
fn answer_by_shell(number: u64, response: Response) -> String {
    let answer: Answer = Ok(response);
    printf(&frame::encode(&Numbered { number, body: Some(answer) }).expect("encodes"))
}

/// Shell command that sends the first answer of a worker with this protocol.
fn hello_by_shell(protocol: u64) -> String {
    answer_by_shell(HELLO, Response::Ready { protocol })
}

/// A worker that becomes ready, and hangs.
fn hanging() -> WorkerPool {
    shell(&format!("{}; exec sleep 600", hello_by_shell(IDENTITY)))
}

fn stat() -> Request {
    Request::StatVfs { path: "/tmp".into(), expect_nfs: false }
}

async fn call(pool: &WorkerPool, deadline: Duration) -> Result<Response, CallError> {
    pool.call(Uuid::new_v4(), Lane::Healthy, stat(), deadline).await
}

fn idle_pids(pool: &WorkerPool) -> Vec<Pid> {
    pool.inner
        .dispatcher
        .schedule()
        .idle()
        .iter()
        .map(|worker| Pid::from_raw(i32::try_from(worker.child.pid()).expect("a pid")))
        .collect()
}

/// Stops a process and waits until it is.
async fn stop(pid: Pid) {
    kill(pid, Signal::SIGSTOP).expect("sent");
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("not reaped yet");
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    until(&format!("{pid} is stopped"), is_stopped).await;
}

/// Kills a child and waits until all its threads have ended. proc(5) reports the state of the first thread only, and
/// the others keep files open.
async fn end(pid: Pid) {
    kill(pid, Signal::SIGKILL).expect("sent");
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let is_dead = || waitid(Id::Pid(pid), look).expect("not reaped yet") != WaitStatus::StillAlive;
    until(&format!("{pid} is dead"), is_dead).await;
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

#[tokio::test]
async fn one_worker_answers_successive_calls() {
    let pool = pool();
    for _ in 0..20 {
        assert!(matches!(call(&pool, ENOUGH).await, Ok(Response::Counts(counts)) if counts.blocks > 0));
    }
    assert_eq!(pool.stats(), PoolStats { idle: 1, spawned_total: 1, ..PoolStats::default() });
    let request = Request::StatVfs { path: "/tmp".into(), expect_nfs: true };
    let error = pool.call(Uuid::new_v4(), Lane::Healthy, request, ENOUGH).await.expect_err("not NFS here");
    assert!(matches!(&error, CallError::Fault(fault) if fault.kind == protocol::FaultKind::NotNfs), "{error}");
    assert_eq!(pool.stats().idle, 1, "a fault is an answer");
}

#[tokio::test]
async fn worker_that_died_idle_is_replaced() {
    let pool = pool();
    call(&pool, ENOUGH).await.expect("answers");
    for pid in idle_pids(&pool) {
        kill(pid, Signal::SIGKILL).expect("killed");
    }
    call(&pool, ENOUGH).await.expect("answers, by another");
    assert_eq!(pool.stats().spawned_total, 2);
}

#[tokio::test]
async fn workers_that_died_idle_are_reaped_at_the_next_call() {
    let pool = pool();
    // Suspect targets do not share workers, so each worker is idle before its call returns.
    let suspects = (0..2).map(|_| pool.call(Uuid::new_v4(), Lane::Suspect, stat(), ENOUGH));
    assert!(futures::future::join_all(suspects).await.iter().all(Result::is_ok));
    let pids = idle_pids(&pool);
    assert_eq!(pids.len(), 2);
    for pid in &pids {
        end(*pid).await;
    }
    call(&pool, ENOUGH).await.expect("answers, by another");
    until("they are reaped", || pids.iter().all(|pid| kill(*pid, None).is_err())).await;
    assert_eq!(pool.census().counts().alive, 1);
}

#[tokio::test]
async fn number_of_idle_workers_is_bounded() {
    let pool = pool_of(worker(), 8);
    let suspects = (0..4).map(|_| pool.call(Uuid::new_v4(), Lane::Suspect, stat(), ENOUGH));
    assert!(futures::future::join_all(suspects).await.iter().all(Result::is_ok));
    assert_eq!((pool.stats().spawned_total, pool.stats().idle), (4, 2));
    until("the others have ended", || pool.census().counts().alive == 2).await;
}

#[tokio::test]
async fn idle_worker_with_an_unexpected_reply_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = directory.path().join("first");
    // The first worker is ready, answers once, and then sends an unexpected reply.
    let script = format!(
        r#"exec 3>&1 >/dev/null; if mkdir {0} 2>/dev/null; then
        {hello} >&3; {{ {done}; printf garbage; }} >&3
        exec sleep 600; fi
        exec env WORKER_CHILD=1 "$0" --exact "$1" --nocapture"#,
        first.display(),
        hello = hello_by_shell(IDENTITY),
        done = answer_by_shell(HELLO + 1, Response::Done),
    );
    let (program, mut arguments) = worker();
    arguments[1] = script.into();
    let pool = pool_of((program, arguments), 4);
    assert!(matches!(call(&pool, ENOUGH).await, Ok(Response::Done)));
    assert!(matches!(call(&pool, ENOUGH).await, Ok(Response::Counts(_))));
    assert_eq!(pool.stats().spawned_total, 2);
    until("the first is gone", || pool.census().counts().alive == 1).await;
}

/// A pool whose first worker answers one request and runs the shell command `breaks` at the second. Its other workers
/// do not break.
fn breaking_once(directory: &std::path::Path, breaks: &str) -> WorkerPool {
    let script = format!(
        r#"exec 3>&1 >/dev/null; if mkdir {0}/first 2>/dev/null; then
        {hello} >&3; {done} >&3
        until [ -e {0}/asked ]; do sleep 0.01; done; {breaks}; fi
        exec env WORKER_CHILD=1 "$0" --exact "$1" --nocapture"#,
        directory.display(),
        hello = hello_by_shell(IDENTITY),
        done = answer_by_shell(HELLO + 1, Response::Done),
    );
    let (program, mut arguments) = worker();
    arguments[1] = script.into();
    pool_of((program, arguments), 4)
}

/// Asks a pool of [`breaking_once`] twice and lets the worker break after the second request was sent.
async fn ask_twice(pool: &WorkerPool, directory: &std::path::Path, request: Request) -> Result<Response, CallError> {
    assert!(matches!(call(pool, ENOUGH).await, Ok(Response::Done)));
    let breaking = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::write(directory.join("asked"), "").expect("written");
    };
    tokio::join!(pool.call(Uuid::new_v4(), Lane::Healthy, request, ENOUGH), breaking).0
}

#[tokio::test]
async fn only_idempotent_requests_are_repeated_after_a_worker_broke() {
    let missing = "/nonexistent/targetwatch";
    let path = || PathBuf::from(missing);
    let canary = protocol::CanaryRequest {
        path: path(),
        uid: 0,
        gid: 0,
        names: crate::model::canary_file::CanaryFileNames::new("node"),
        expect_nfs: true,
    };
    for (request, is_repeated) in [
        (stat(), true),
        (Request::Canary(canary), false),
        (Request::Unmount { path: path(), mount_id: 1, how: protocol::UnmountHow::Plain }, false),
    ] {
        for breaks in ["exit 0", "printf 'garbage, and much of it' >&3; exec sleep 600"] {
            let directory = tempfile::tempdir().expect("a directory");
            let pool = breaking_once(directory.path(), breaks);
            let outcome = ask_twice(&pool, directory.path(), request.clone()).await;
            let died = matches!(outcome, Err(CallError::WorkerDied { .. }));
            assert_eq!(died, !is_repeated, "{} {breaks}: {outcome:?}", request.as_str());
            assert_eq!(pool.stats().spawned_total, if is_repeated { 2 } else { 1 }, "{} {breaks}", request.as_str());
        }
    }
}

#[tokio::test]
async fn target_waits_until_its_broken_worker_is_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    // Closes its output, but continues to run.
    let pool = breaking_once(directory.path(), "exec 3>&-; exec sleep 600");
    let first = {
        let pool = pool.clone();
        let path = directory.path().to_owned();
        tokio::spawn(async move { ask_twice(&pool, &path, stat()).await })
    };
    let mut alive_max = 0;
    while !first.is_finished() {
        alive_max = alive_max.max(pool.census().counts().alive);
        tokio::task::yield_now().await;
    }
    assert!(matches!(first.await.expect("no panic"), Ok(Response::Counts(_))));
    assert_eq!(alive_max, 1, "one child of a target at a time");
}

#[tokio::test]
async fn slow_worker_start_is_not_reported_as_slow_storage() {
    let pool = shell("exec sleep 600");
    let deadline = Duration::from_millis(200);
    let error = call(&pool, deadline).await.expect_err("it never says that it is there");
    assert!(matches!(error, CallError::NotReady { after } if after == deadline), "{error}");
    until("it is gone", || pool.census().counts().alive == 0).await;
}

#[tokio::test]
async fn stopped_worker_is_killed_at_the_deadline_and_replaced() {
    let pool = pool();
    call(&pool, ENOUGH).await.expect("answers");
    for pid in idle_pids(&pool) {
        stop(pid).await;
    }
    let (target, began) = (Uuid::new_v4(), Instant::now());
    let deadline = Duration::from_millis(300);
    let error = pool.call(target, Lane::Healthy, stat(), deadline).await.expect_err("stopped");
    assert!(matches!(error, CallError::TimedOut { after } if after == deadline), "{error}");
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    pool.call(target, Lane::Suspect, stat(), ENOUGH).await.expect("answers, by another");
    assert_eq!((pool.stats().spawned_total, pool.stats().killed_total), (2, 1));
    until("the first is reaped", || pool.census().counts().alive == 1).await;
}

#[tokio::test]
async fn broken_worker_is_reported_and_never_kept() {
    let (hello, other) = (hello_by_shell(IDENTITY), hello_by_shell(IDENTITY ^ 1));
    for (script, expected) in [
        ("exit 0", "end"),
        (&format!("{hello}; head -c 8 >/dev/null"), "end"),
        (&format!("{hello}; printf 'garbage, and much of it'; sleep 60"), "too big"),
        (&format!("{other}; sleep 60"), "another version"),
        ("printf 'garbage, and much of it'; sleep 60", "too big"),
        (&format!("{}; sleep 60", printf(&[2, 0, 0, 0, 1, 9])), "Option discriminant"),
        (&format!("{}; sleep 60", printf(&[4, 0, 0, 0, 1, 1, 0, 99])), "Serde Deserialization Error"),
        (&format!("{}; sleep 60", answer_by_shell(999, Response::Done)), "answered request 999"),
    ] {
        let pool = shell(script);
        let error = call(&pool, ENOUGH).await.expect_err(script);
        let CallError::WorkerDied { source } = &error else {
            panic!("{script}: {error}");
        };
        let text = source.to_string();
        assert!(text.contains(expected) || (expected == "end" && is_end(source)), "{script}: {text}");
        assert_eq!(pool.stats().idle, 0, "{script}");
        until("it is gone", || pool.census().counts().alive == 0).await;
    }
}

#[tokio::test]
async fn missing_worker_program_is_named() {
    let pool = pool_of(("/nonexistent/targetwatch".into(), Vec::new()), 4);
    let error = call(&pool, ENOUGH).await.expect_err("missing");
    assert!(error.to_string().contains("/nonexistent/targetwatch could not be started"), "{error}");
    assert_eq!(pool.stats().spawned_total, 0);
}

#[tokio::test]
async fn dropped_call_kills_its_worker_and_frees_its_target() {
    let pool = shell("exec sleep 600");
    let target = Uuid::new_v4();
    let dropped = timeout(Duration::from_millis(200), pool.call(target, Lane::Healthy, stat(), ENOUGH)).await;
    assert!(dropped.is_err(), "{dropped:?}");
    assert_eq!(pool.stats().busy, 0);
    until("it is gone", || pool.census().counts().alive == 0).await;
    assert!(pool.census().claim(target, Instant::now() + Duration::from_secs(1)).await.is_ok());
}

#[tokio::test]
async fn target_has_one_child_at_a_time() {
    let pool = hanging();
    let target = Uuid::new_v4();
    let first = pool.call(target, Lane::Healthy, stat(), Duration::from_millis(1500));
    let second = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pool.call(target, Lane::Healthy, stat(), Duration::from_millis(200)).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Err(CallError::TimedOut { .. })), "{first:?}");
    assert!(matches!(second, Err(CallError::Overloaded { .. })), "{second:?}");
    assert_eq!(pool.stats().spawned_total, 1);
}

#[tokio::test]
async fn suspect_targets_leave_half_of_the_permits_free() {
    let (deadline, pool) = (Duration::from_millis(800), hanging());
    let suspects = (0..10).map(|_| pool.call(Uuid::new_v4(), Lane::Suspect, stat(), deadline));
    let suspects = futures::future::join_all(suspects);
    let healthy = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let at_work = pool.stats().busy;
        let outcome = call(&pool, Duration::from_millis(100)).await;
        (at_work, outcome)
    };
    let (suspects, (at_work, healthy)) = tokio::join!(suspects, healthy);
    assert_eq!(at_work, 2, "half of 4");
    assert!(matches!(healthy, Err(CallError::TimedOut { .. })), "it had its turn at once: {healthy:?}");
    let overloaded = suspects.iter().filter(|outcome| matches!(outcome, Err(CallError::Overloaded { .. }))).count();
    assert!((6..=8).contains(&overloaded), "two, and perhaps two after them, had a turn: {suspects:?}");
}

#[tokio::test]
async fn suspect_targets_leave_idle_workers_to_healthy_ones() {
    let pool = pool();
    call(&pool, ENOUGH).await.expect("answers");
    let kept = idle_pids(&pool);
    // Two are kept, so the second one is new and stays, and the third takes it.
    for spawned in [2, 2] {
        pool.call(Uuid::new_v4(), Lane::Suspect, stat(), ENOUGH).await.expect("answers");
        assert_eq!(pool.stats().spawned_total, spawned);
    }
    assert_eq!(idle_pids(&pool)[..1], kept);
}

#[tokio::test]
async fn healthy_targets_may_use_all_permits_and_surplus_workers_end() {
    let pool = pool();
    let calls = futures::future::join_all((0..40).map(|_| call(&pool, ENOUGH))).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert!((1..=4).contains(&pool.stats().spawned_total), "{:?}", pool.stats());
    until("two are kept", || pool.census().counts().alive <= 2).await;
    assert_eq!(pool.stats().killed_total, 0, "they ended by themselves");
}

#[tokio::test]
async fn shutting_down_ends_calls_and_workers_at_once() {
    let (pool, began, target) = (shell("exec sleep 600"), Instant::now(), Uuid::new_v4());
    let shut_down = async {
        // One worker starts for the first of these calls. The others wait for a claim, in the queue, or for a permit.
        until("all calls wait", || pool.stats().busy == 4 && pool.stats().spawned_total > 0).await;
        pool.shut_down();
    };
    let of_one_target = futures::future::join_all((0..2).map(|_| pool.call(target, Lane::Healthy, stat(), ENOUGH)));
    let of_others = futures::future::join_all((0..8).map(|_| call(&pool, ENOUGH)));
    let (mut outcomes, more, ()) = tokio::join!(of_one_target, of_others, shut_down);
    outcomes.extend(more);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CallError::ShutDown))), "{outcomes:?}");
    assert!(matches!(call(&pool, ENOUGH).await, Err(CallError::ShutDown)));
    until("it is gone", || pool.census().counts().alive == 0).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn worker_inherits_no_environment_or_files_of_the_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let (seen, held) = (directory.path().join("seen"), directory.path().join("held"));
    let _held = std::fs::File::create(held).expect("a file");
    let pool = shell(&format!("{{ env | cut -d= -f1; ls -l /proc/$$/fd; }} >{0}.new; mv {0}.new {0}", seen.display()));
    let _ = call(&pool, ENOUGH).await;
    let seen = std::fs::read_to_string(&seen).expect("written");
    let (environment, files) = seen.split_once("total").expect("two lists");
    // The shell sets these variables itself.
    let known = ["PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"];
    assert!(environment.lines().all(|name| known.contains(&name)), "{environment}");
    assert!(files.contains("/seen.new") && !files.contains("/held"), "{files}");
}

/// `cargo test --release --lib pool -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn call_duration() {
    let pool = pool();
    let began = Instant::now();
    call(&pool, ENOUGH).await.expect("answers");
    println!("first call, with the start of a worker: {:?}", began.elapsed());
    let began = Instant::now();
    for _ in 0..1000 {
        call(&pool, ENOUGH).await.expect("answers");
    }
    println!("a call to an idle worker: {:?}", began.elapsed() / 1000);
}
