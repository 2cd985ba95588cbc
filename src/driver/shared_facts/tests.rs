use futures::FutureExt as _;
use uuid::Uuid;

use super::*;

const TARGET: TargetId = Uuid::from_u128(1);
const HOUR: Duration = Duration::from_hours(1);

fn key(subject: &str) -> FactKey {
    FactKey { target: TARGET, kind: FactKind::LockProof, subject: subject.to_owned() }
}

fn ask(board: &FactBoard, subject: &str) -> Turn {
    board.turn(FactQuestion { key: &key(subject), age_max: HOUR, wanted_for: HOUR })
}

fn fact(age: Duration) -> SharedFact {
    SharedFact { node: "b".to_owned(), observed_at: Timestamp::now() - age, value: "{}".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn driver_waits_for_another_node_and_then_finds_the_fact_itself() {
    let board = FactBoard::default();
    assert_eq!((ask(&board, "s"), board.is_awaited()), (Turn::Wait, true));
    tokio::time::sleep(WAIT_MAX + Duration::from_secs(1)).await;
    assert_eq!((ask(&board, "s"), board.is_awaited()), (Turn::Find, false));
    let known = fact(Duration::ZERO);
    board.receive(&key("s"), known.clone());
    assert_eq!((ask(&board, "s"), board.is_awaited()), (Turn::Use(known), false));
    let FactCount { held, used, oldest } = board.count(FactKind::LockProof);
    assert!((held, used) == (0, 1) && oldest.is_some_and(|age| age < Duration::from_secs(60)), "{oldest:?}");
    board.set_role(&key("s"), FactRole::Holder);
    ask(&board, "s");
    assert_eq!(board.count(FactKind::LockProof), FactCount { held: 1, used: 0, oldest: None });
}

#[tokio::test(start_paused = true)]
async fn fact_is_used_only_for_its_subject_and_until_its_age() {
    let board = FactBoard::default();
    ask(&board, "s");
    let other = fact(Duration::ZERO);
    assert_eq!(ask(&board, "other"), Turn::Wait);
    board.receive(&key("other"), other.clone());
    assert_eq!((ask(&board, "other"), ask(&board, "s")), (Turn::Use(other), Turn::Wait));
    board.receive(&key("s"), fact(HOUR));
    assert_eq!(ask(&board, "s"), Turn::Wait);
    // The clock of the other node is ahead.
    let early = SharedFact { observed_at: Timestamp::now() + HOUR, ..fact(Duration::ZERO) };
    board.receive(&key("s"), early.clone());
    assert_eq!(ask(&board, "s"), Turn::Use(early));
    tokio::time::sleep(HOUR).await;
    assert_eq!(ask(&board, "s"), Turn::Wait);
    board.set_role(&key("s"), FactRole::Alone);
    assert_eq!(ask(&board, "s"), Turn::Find);
}

#[tokio::test(start_paused = true)]
async fn nodes_without_a_connection_do_not_find_a_fact_together() {
    let finding = |part: f64| {
        let finds = |_: &u32| {
            let board = FactBoard::default();
            ask(&board, "s");
            board.receive(&key("s"), fact(HOUR.mul_f64(part)));
            assert_eq!(matches!(ask(&board, "s"), Turn::Use(_)), part < 1.0, "{part}: with a connection");
            board.set_role(&key("s"), FactRole::Alone);
            ask(&board, "s") == Turn::Find
        };
        (0..100).filter(finds).count()
    };
    assert_eq!(finding(0.45), 0);
    assert!((1..100).contains(&finding(0.75)));
    assert_eq!(finding(1.01), 100);
}

#[tokio::test(start_paused = true)]
async fn only_the_holder_shares_what_it_found_and_once() {
    let board = FactBoard::default();
    ask(&board, "s");
    let found = fact(Duration::ZERO);
    board.post(&key("s"), found.clone());
    assert_eq!(board.found(&key("s")), None);
    board.set_role(&key("s"), FactRole::Holder);
    assert_eq!(ask(&board, "s"), Turn::Find);
    board.post(&key("s"), found.clone());
    assert_eq!(board.found(&key("s")), Some(found.clone()));
    board.receive(&key("s"), found.clone());
    board.post(&key("s"), found);
    assert_eq!(board.found(&key("s")), None);
}

#[tokio::test(start_paused = true)]
async fn driver_does_not_wait_for_the_state_of_a_bucket_and_is_told_of_news() {
    let board = FactBoard::default();
    let key = FactKey { kind: FactKind::Bucket, ..key("s") };
    let ask = || board.turn(FactQuestion { key: &key, age_max: HOUR, wanted_for: HOUR });
    assert_eq!((ask(), board.is_awaited()), (Turn::Find, false));
    board.receive(&key, fact(Duration::ZERO));
    let mut outdated = pin!(board.outdated(&key, |fact| fact.value == "{}"));
    assert!(outdated.as_mut().now_or_never().is_none());
    // The same value, found later.
    board.receive(&key, fact(Duration::ZERO));
    assert!(outdated.as_mut().now_or_never().is_none());
    board.receive(&key, SharedFact { value: "bad".to_owned(), ..fact(Duration::ZERO) });
    outdated.await;
    let mut outdated = pin!(board.outdated(&key, |fact| fact.value == "bad"));
    assert!(outdated.as_mut().now_or_never().is_none());
    board.set_role(&key, FactRole::Holder);
    outdated.await;
}

#[tokio::test(start_paused = true)]
async fn renewal_extends_only_what_is_needed() {
    let board = FactBoard::default();
    ask(&board, "old");
    tokio::time::sleep(HOUR).await;
    ask(&board, "s");
    tokio::time::sleep(HOUR / 2).await;
    board.renew(TARGET, HOUR);
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(board.asked_for(2 * HOUR), [(key("old"), false), (key("s"), true)]);
}

#[tokio::test(start_paused = true)]
async fn fact_that_nobody_asks_for_is_forgotten() {
    let board = FactBoard::default();
    ask(&board, "s");
    board.changed().await;
    assert_eq!(board.asked_for(HOUR), [(key("s"), true)]);
    tokio::time::sleep(HOUR).await;
    assert_eq!(board.asked_for(HOUR), [(key("s"), false)]);
    tokio::time::sleep(HOUR).await;
    assert_eq!(board.asked_for(HOUR), []);
}
