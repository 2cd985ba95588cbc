//! Histories, as the registry keeps them.

use super::*;
use crate::model::report::Finding;
use crate::model::{Reason, Status, Transition};
use crate::registry::TRANSITIONS_MAX;

fn transition(target_id: TargetId, second: i64, to: Status) -> Transition {
    let from = match to {
        Status::Available => None,
        Status::Offline => Some(Status::Available),
    };
    let finding = (to == Status::Offline).then(|| Finding::new(Reason::StaleHandle, "it was \"replaced\"\n").into());
    Transition { target_id, at: at(second), from, to, finding }
}

#[tokio::test]
async fn a_history_is_kept_newest_first_and_goes_with_its_target() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let first = create(&registry, nfs("nas:/a")).await.target.id;
    let second = create(&registry, nfs("nas:/b")).await.target.id;
    // A clock that was set back does not turn it round.
    let added = [
        transition(first, 9, Status::Available),
        transition(second, 2, Status::Available),
        transition(first, 3, Status::Offline),
    ];
    registry.add_transitions(added.to_vec()).await.expect("added");
    registry.close().await;

    let registry = SqliteRegistry::open(&path).expect("reopened");
    let [oldest, other, newest] = added;
    assert_eq!(registry.transitions(first).await.expect("read"), [newest, oldest]);
    assert_eq!(registry.transitions(second).await.expect("read"), [other]);
    registry.delete_target(second).await.expect("deleted");
    assert_eq!(registry.transitions(second).await.expect("read"), []);
}

#[tokio::test]
async fn the_latest_of_each_target_stay() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let busy = create(&registry, nfs("nas:/a")).await.target.id;
    let quiet = create(&registry, nfs("nas:/b")).await.target.id;
    let many = i64::try_from(TRANSITIONS_MAX).expect("few") + 5;
    registry.add_transitions(vec![transition(quiet, 0, Status::Offline)]).await.expect("added");
    for half in [1..many / 2, many / 2..many + 1] {
        let added = half.map(|second| transition(busy, second, Status::Offline)).collect();
        registry.add_transitions(added).await.expect("added");
    }
    let kept = registry.transitions(busy).await.expect("read");
    assert_eq!((kept.len(), kept[0].at, kept[TRANSITIONS_MAX - 1].at), (TRANSITIONS_MAX, at(many), at(6)));
    assert_eq!(registry.transitions(quiet).await.expect("read").len(), 1);
}

#[tokio::test]
async fn what_became_of_a_target_that_is_gone_keeps_nothing_else_from_being_kept() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let here = create(&registry, nfs("nas:/a")).await.target.id;
    let gone = Uuid::new_v4();
    let added = vec![transition(gone, 1, Status::Offline), transition(here, 2, Status::Offline)];
    registry.add_transitions(added).await.expect("added");
    assert_eq!(registry.transitions(gone).await.expect("read"), []);
    assert_eq!(registry.transitions(here).await.expect("read").len(), 1);
}

#[tokio::test]
async fn nobody_reads_for_a_caller_that_has_gone() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let mut holding = Box::pin(registry.run(move |_| held.recv().map_err(storage)));
    assert!(futures::poll!(&mut holding).is_pending());
    let (tell, told) = std::sync::mpsc::channel();
    let mut reading = Box::pin(registry.read(move |_| tell.send(()).map_err(storage)));
    assert!(futures::poll!(&mut reading).is_pending());
    drop(reading);
    hold.send(()).expect("let go");
    holding.await.expect("held");
    registry.close().await;
    assert!(told.recv().is_err(), "it was read");
}

#[tokio::test]
async fn a_registry_of_the_second_schema_is_taken_over_with_all_that_is_in_it() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    create(&registry, nfs("nas:/a")).await;
    create(&registry, s3("https://ceph.example/bucket")).await;
    let before = registry.load().await.expect("loaded");
    registry.close().await;
    // Without the third step, and marked so: what the release before wrote.
    let connection = Connection::open(&path).expect("opened");
    connection.execute_batch("DROP TABLE target_transition; PRAGMA user_version = 2").expect("written");
    drop(connection);

    let registry = SqliteRegistry::open(&path).expect("taken over");
    assert_eq!(registry.load().await.expect("loaded"), before);
    let id = before[0].target.id;
    registry.add_transitions(vec![transition(id, 1, Status::Available)]).await.expect("added");
    assert_eq!(registry.transitions(id).await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_reason_of_a_newer_agent_is_told_as_it_is_and_hides_nothing() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let id = create(&registry, nfs("nas:/a")).await.target.id;
    let added = [transition(id, 1, Status::Offline), transition(id, 2, Status::Offline)];
    registry.add_transitions(added.to_vec()).await.expect("added");
    registry.close().await;
    let connection = Connection::open(&path).expect("opened");
    let change = "UPDATE target_transition SET reason = 'of_tomorrow' WHERE position = (SELECT max(position) FROM target_transition)";
    assert_eq!(connection.execute(change, []).expect("changed"), 1);
    drop(connection);

    let registry = SqliteRegistry::open(&path).expect("reopened");
    let history = registry.transitions(id).await.expect("readable");
    let codes: Vec<_> = history.iter().flat_map(|kept| &kept.finding).map(|finding| &*finding.code).collect();
    assert_eq!(codes, ["of_tomorrow", "stale_handle"]);
}
