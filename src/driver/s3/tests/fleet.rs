//! Tests of facts that nodes share.

use super::*;
use crate::driver::{FactBoard, FactKind, FactRole, SharedFact};
use crate::model::{LockVerdict, Reason};

/// A host whose node shares facts, and the board of its driver.
fn host_in_fleet() -> (Arc<Host>, Arc<FactBoard>) {
    let board = Arc::new(FactBoard::default());
    (Arc::new(Host { facts: Some(board.clone()), ..Host::without_workers() }), board)
}

#[tokio::test(start_paused = true)]
async fn lock_proof_that_has_expired_only_on_this_node_is_made_again() {
    let (location, mut settings) = (location(), settings());
    settings.lock_proof.interval = Duration::from_nanos(1);
    let input = Input::new(&location, &settings, Depth::Routine);
    let (host, board) = host_in_fleet();
    let mut facts = TargetFacts::new(Uuid::from_u128(1), true, &host);
    let api = session(FakeObjects::default());
    let mut prove = async || {
        let mut log = CheckLog::new(&PLAN[1..], Duration::MAX);
        facts.prove(&api, input, &configuration(None), &mut log).await;
        api.api.puts()
    };
    prove().await;
    let key = board.asked_for(Duration::ZERO).remove(0).0;
    // The clock of the board stands still, so the fact stays new there. The clock of the schedule goes on.
    board.receive(
        &key,
        SharedFact {
            node: "compute-7".to_owned(),
            observed_at: Timestamp::now() + Duration::from_hours(1),
            value: r#"{"verdict":"enforced","why":""}"#.to_owned(),
        },
    );
    assert_eq!((prove().await, prove().await), (0, 1));
}

#[tokio::test]
async fn lock_proof_of_another_node_is_used_with_the_same_access_key_only() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let target = Uuid::from_u128(1);
    let prove = async |facts: &mut TargetFacts, session: &BucketSession<FakeObjects>| {
        let mut log = CheckLog::new(&PLAN[1..], Duration::MAX);
        let state = facts.prove(session, input, &configuration(None), &mut log).await;
        (state, log.finish().remove(0))
    };

    // The holder finds the verdict at its first probe, because the service refuses the canary.
    let (host, board) = host_in_fleet();
    let mut holder = TargetFacts::new(target, true, &host);
    let refusing = session(FakeObjects { refuses_put: true, ..FakeObjects::default() });
    let (state, _) = prove(&mut holder, &refusing).await;
    assert_eq!(state, LockProofState::Pending, "the holder is not elected yet");
    let key = board.asked_for(Duration::ZERO).remove(0).0;
    assert_eq!((key.target, key.kind), (target, FactKind::LockProof));
    board.set_role(&key, FactRole::Holder);
    let (state, result) = prove(&mut holder, &refusing).await;
    assert!(matches!(state, LockProofState::Found(proof) if proof.node.is_none()), "{result:?}");
    let found = board.found(&key).expect("a fact to share");

    let (host, board) = host_in_fleet();
    let mut other = TargetFacts::new(target, true, &host);
    let api = session(FakeObjects::default());
    let (state, result) = prove(&mut other, &api).await;
    assert_eq!((state, result.findings()[0].reason), (LockProofState::Pending, Reason::LockProofPending));
    board.receive(&key, SharedFact { node: "compute-7".to_owned(), ..found });
    let (state, result) = prove(&mut other, &api).await;
    let LockProofState::Found(proof) = state else { panic!("{state:?}") };
    assert_eq!((proof.verdict, proof.node.as_deref()), (LockVerdict::Unverifiable, Some("compute-7")));
    assert!(result.detail.as_ref().is_some_and(|detail| detail.contains("by the node compute-7")), "{result:?}");
    assert_eq!((result.outcome, api.api.puts()), (Outcome::Failed, 0), "nothing is written");

    let with_other_key = BucketSession { access_key_id: "other".to_owned(), ..session(FakeObjects::default()) };
    // The nodes with this access key elect a holder of their own. Meanwhile, the verdict survives the new key.
    prove(&mut other, &with_other_key).await;
    assert_eq!(with_other_key.api.puts(), 0);
    let asked = board.asked_for(Duration::ZERO);
    let other_key = asked.into_iter().map(|(key, _)| key).find(|asked| *asked != key).expect("another key");
    board.set_role(&other_key, FactRole::Holder);
    let (state, _) = prove(&mut other, &with_other_key).await;
    assert_eq!((with_other_key.api.puts(), other.canary_in_use().is_some()), (1, true), "{state:?}");
    // Temporary credentials soon end, so nothing is shared for them.
    let mut temporary = TargetFacts::new(target, true, &host);
    temporary.fleet.set_temporary(true);
    let api = session(FakeObjects::default());
    prove(&mut temporary, &api).await;
    assert_eq!(api.api.puts(), 1);
}
