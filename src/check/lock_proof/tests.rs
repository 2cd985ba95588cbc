//! Proofs on a bucket in memory.

use super::*;
use crate::check::canary::ProcessRole;
use crate::check::canary::ServiceClock;
use crate::check::fake::{FakeBucket, FakeObjects, Weakening};
use crate::check::object_canary::{CanaryMemory, CanaryPlan, object_canary};
use crate::model::{LockMode, Outcome};
use crate::s3::S3Failure;
use act::seen_failure;
use steps::{Action, Attempt, StepAnswer};

/// Result of one probe with this retention of the canary.
async fn probed(api: &FakeObjects, retention: Duration) -> (Option<Reason>, LockProofState) {
    let mut basis = schedule::tests::basis();
    basis.canary.retention = retention;
    let names = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
    let deadline = Duration::from_secs(5);
    let clock = ServiceClock::new(Some(0));
    let context = ProofContext { names: &names, clock, requested: false, deadline };
    let mut proofs = LockProofs::default();
    proofs.advance(api, &basis, context).await;
    let checked = proofs.checked(&FakeBucket::healthy().location(), &basis);
    (checked.reason(), proofs.state(&basis))
}

#[tokio::test]
async fn refused_put_is_no_verdict_when_the_retention_may_have_ended() {
    let api = FakeObjects { refuses_put: true, ..FakeObjects::default() };
    let (reason, state) = probed(&api, Duration::from_secs(1)).await;
    assert_eq!((reason, state), (Some(Reason::LockProofPending), LockProofState::Pending));
    let (reason, state) = probed(&api, Duration::from_secs(60)).await;
    assert_eq!(reason, Some(Reason::LockUnverifiable));
    assert!(matches!(state, LockProofState::Found(proof) if proof.verdict == LockVerdict::Unverifiable));
}

#[tokio::test]
async fn canary_is_not_written_when_it_could_not_be_listed_or_removed() {
    let unlistable = FakeObjects { refuses_list: true, ..FakeObjects::default() };
    assert_eq!(probed(&unlistable, Duration::from_secs(60)).await.0, Some(Reason::LockUnverifiable));
    assert_eq!(unlistable.keys(), Vec::<String>::new());

    let undeletable = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
    let before = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
    for until in [0, ServiceClock::default().now() - 60] {
        let left = before.text(&before.new_key(CanaryKind::Lock, until));
        undeletable.keep(&left);
        assert_eq!(probed(&undeletable, Duration::from_secs(60)).await.0, Some(Reason::LockUnverifiable));
        assert_eq!(undeletable.keys().len(), 1);
        undeletable.clear();
    }
}

fn names() -> CanaryNames {
    CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4())
}

fn context(names: &CanaryNames, ahead: Option<i64>) -> ProofContext<'_> {
    ProofContext { names, clock: ServiceClock::new(ahead), requested: false, deadline: Duration::from_secs(5) }
}

#[tokio::test]
async fn proof_locks_nothing_when_the_clock_is_unknown_or_wrong() {
    let names = names();
    for ahead in [None, Some(901), Some(-901)] {
        let api = FakeObjects::default();
        let mut proofs = LockProofs::default();
        proofs.advance(&api, &schedule::tests::basis(), context(&names, ahead)).await;
        assert_eq!(api.keys(), Vec::<String>::new(), "{ahead:?}");
        let checked = proofs.checked(&FakeBucket::healthy().location(), &schedule::tests::basis());
        assert_eq!(checked.reason(), Some(Reason::LockUnverifiable));
        let words = if ahead.is_none() { "send the header Date" } else { "correct the clock" };
        assert!(checked.finding().is_some_and(|finding| finding.message.contains(words)), "{checked:?}");
    }
}

#[tokio::test]
async fn verdict_counts_while_the_clock_is_unknown() {
    let (names, basis) = (names(), schedule::tests::basis());
    let (api, mut proofs) = (FakeObjects::default(), LockProofs::default());
    proofs.found(LockVerdict::Enforced, "seen".to_owned(), &basis);
    let requested = ProofContext { requested: true, ..context(&names, None) };
    proofs.advance(&api, &Basis { access_key_id: "AKIB".to_owned(), ..basis.clone() }, requested).await;
    let checked = proofs.checked(&FakeBucket::healthy().location(), &basis);
    assert_eq!((checked.outcome(), api.keys()), (Outcome::Passed, Vec::new()), "{checked:?}");
}

#[tokio::test]
async fn proof_is_unverifiable_when_the_storage_clock_lags() {
    for (is_behind, reason) in
        [(-9, Reason::LockProofPending), (0, Reason::LockProofPending), (60, Reason::LockUnverifiable)]
    {
        let (api, names) = (FakeObjects { is_behind, ..FakeObjects::default() }, names());
        let mut proofs = LockProofs::default();
        proofs.advance(&api, &schedule::tests::basis(), context(&names, Some(0))).await;
        let checked = proofs.checked(&FakeBucket::healthy().location(), &schedule::tests::basis());
        assert_eq!(checked.reason(), Some(reason), "{is_behind} s");
        assert_eq!(proofs.in_use().is_some(), is_behind == 0, "{is_behind} s: {checked:?}");
    }
}

/// A proof that waits for the end of its canary's retention. By the clock of the returned context it has
/// ended.
async fn at_its_end<'a>(api: &FakeObjects, names: &'a CanaryNames) -> (LockProofs, ProofContext<'a>) {
    let mut proofs = LockProofs::default();
    proofs.advance(api, &schedule::tests::basis(), context(names, Some(0))).await;
    assert!(proofs.in_use().is_some() && api.latest().is_some());
    api.unlock();
    (proofs, context(names, Some(60)))
}

#[tokio::test]
async fn delete_counts_as_refused_only_with_a_code_of_a_lock() {
    for (failure, is_known) in [
        (S3Failure::service(403, Some("AccessDenied"), None), true),
        (S3Failure::service(409, Some("OperationAborted"), None), false),
        (S3Failure::service(400, Some("RequestTimeout"), None), false),
        (S3Failure::service(405, Some("MethodNotAllowed"), None), false),
    ] {
        let (api, names) = (FakeObjects::default(), names());
        api.next_deletes.lock().expect("a lock").push_back(failure.clone());
        let mut proofs = LockProofs::default();
        let mut basis = schedule::tests::basis();
        basis.settings.mode = Some(crate::model::LockMode::Compliance);
        proofs.advance(&api, &basis, context(&names, Some(0))).await;
        assert_eq!(proofs.in_use().is_some(), is_known, "{failure}");
    }
}

#[tokio::test]
async fn proof_is_unverifiable_when_a_request_is_never_accepted() {
    let basis = schedule::tests::basis();
    let named = "min_canary_retention in [s3.lock_proof]";
    for (status, code, reason, words) in [
        (400, "InvalidRequest", Reason::LockUnverifiable, named),
        (400, "InvalidArgument", Reason::LockUnverifiable, named),
        (403, "AccessDenied", Reason::LockUnverifiable, named),
        (400, "", Reason::LockUnverifiable, named),
        (403, "", Reason::LockUnverifiable, named),
        (409, "InvalidBucketState", Reason::LockUnverifiable, named),
        (422, "UnprocessableEntity", Reason::LockUnverifiable, named),
        (422, "", Reason::LockUnverifiable, named),
        (409, "OperationAborted", Reason::LockProofPending, "OperationAborted"),
        (403, "QuotaExceeded", Reason::LockProofPending, "QuotaExceeded"),
        (503, "SlowDown", Reason::LockProofPending, "SlowDown"),
    ] {
        let (api, names) = (FakeObjects::default(), names());
        let failure = S3Failure::service(status, (!code.is_empty()).then_some(code), None);
        api.next_puts.lock().expect("a lock").push_back(failure);
        let mut proofs = LockProofs::default();
        proofs.advance(&api, &basis, context(&names, Some(0))).await;
        let checked = proofs.checked(&FakeBucket::healthy().location(), &basis);
        assert_eq!(checked.reason(), Some(reason), "{code}");
        assert!(checked.finding().is_some_and(|finding| finding.message.contains(words)), "{checked:?}");
    }
    for (status, code) in [(405, "MethodNotAllowed"), (412, "PreconditionFailed")] {
        let (api, names) = (FakeObjects::default(), names());
        api.next_deletes.lock().expect("a lock").push_back(S3Failure::service(status, Some(code), None));
        let mut proofs = LockProofs::default();
        proofs.advance(&api, &basis, context(&names, Some(0))).await;
        let state = proofs.state(&basis);
        assert!(matches!(&state, LockProofState::Found(proof) if proof.why.contains(code)), "{state:?}");
    }
}

#[test]
fn refused_digest_is_not_a_refused_change() {
    let step = Step::Try(Attempt { action: Action::Shorten, bypass: false });
    for (code, expected) in [("MissingContentMD5", false), ("BadDigest", false), ("InvalidRequest", true)] {
        let seen = seen_failure(step, &S3Failure::service(400, Some(code), None));
        assert_eq!(matches!(seen, StepAnswer::Refused(_)), expected, "{code}: {seen:?}");
        assert_eq!(matches!(seen, StepAnswer::NotAccepted(_)), !expected, "{code}: {seen:?}");
    }
}

#[tokio::test]
async fn last_steps_are_repeated_when_their_answer_is_unclear() {
    let (api, names) = (FakeObjects::default(), names());
    let (mut proofs, after) = at_its_end(&api, &names).await;
    let basis = schedule::tests::basis();
    for failure in [
        S3Failure::service(409, Some("OperationAborted"), None),
        S3Failure::service(503, Some("SlowDown"), None),
        S3Failure::TimedOut(Duration::from_secs(1)),
    ] {
        api.next_deletes.lock().expect("a lock").push_back(failure.clone());
        proofs.advance(&api, &basis, after).await;
        assert_eq!(proofs.due(), None, "at the next probe");
        assert!(proofs.in_use().is_some(), "{failure}");
        let checked = proofs.checked(&FakeBucket::healthy().location(), &basis);
        let message = checked.finding().map(|finding| finding.message.clone()).unwrap_or_default();
        assert!(message.contains(&failure.to_string()), "{message}");
    }
    proofs.advance(&api, &basis, after).await;
    assert!(matches!(proofs.state(&basis), LockProofState::Found(proof) if proof.verdict == LockVerdict::Enforced));
    assert_eq!(api.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn proof_starts_beside_locked_write_canaries() {
    let (api, names) = (FakeObjects::default(), names());
    let (clock, bucket) = (ServiceClock::new(Some(0)), FakeBucket::healthy().location());
    for _ in 0..LOCKED_MAX + 1 {
        let retention = Some(Duration::from_secs(600));
        let plan = CanaryPlan { retention, ..CanaryPlan::new(&names, clock) };
        object_canary(&api, &bucket, &plan, &mut CanaryMemory::default(), Duration::from_secs(5)).await;
    }
    let before = api.keys().len();
    let mut proofs = LockProofs::default();
    proofs.advance(&api, &schedule::tests::basis(), context(&names, Some(0))).await;
    assert!(proofs.in_use().is_some(), "beside {before} that are locked");
    assert_eq!(api.keys().len(), before + 1);
}

#[tokio::test]
async fn at_most_five_canaries_remain_when_commands_left_some_before_a_proof() {
    let names = names();
    for left in [LOCKED_MAX, LOCKED_MAX + 1] {
        let api = FakeObjects::default();
        for _ in 0..left {
            let command = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::OneShot, Uuid::new_v4());
            api.keep(&command.text(&command.new_key(CanaryKind::Write, 0)));
        }
        let mut proofs = LockProofs::default();
        proofs.advance(&api, &schedule::tests::basis(), context(&names, Some(0))).await;
        assert_eq!(proofs.in_use().is_some(), left == LOCKED_MAX, "beside {left}");
        assert_eq!(api.keys().len(), LOCKED_MAX + 1, "beside {left}");
        assert!(left == LOCKED_MAX || proofs.due().is_some_and(|due| due > Instant::now()), "tried again later");
    }
}

#[tokio::test]
async fn proof_writes_nothing_beside_a_canary_locked_for_longer() {
    let (api, names) = (FakeObjects { locks_longer: 3600, ..FakeObjects::default() }, names());
    let (clock, bucket) = (ServiceClock::new(Some(0)), FakeBucket::healthy().location());
    let retention = Some(Duration::from_secs(10));
    let plan = CanaryPlan { retention, ..CanaryPlan::new(&names, clock) };
    object_canary(&api, &bucket, &plan, &mut CanaryMemory::default(), Duration::from_secs(5)).await;
    let mut proofs = LockProofs::default();
    proofs.advance(&api, &schedule::tests::basis(), context(&names, Some(0))).await;
    let checked = proofs.checked(&bucket, &schedule::tests::basis());
    assert_eq!((checked.reason(), api.keys().len()), (Some(Reason::LockUnverifiable), 1));
}

#[tokio::test]
async fn verdict_tells_whether_the_lock_can_be_weakened_without_the_bypass() {
    for (mode, weakened_by, expected) in [
        (LockMode::Compliance, (Weakening::Shorter, false), LockVerdict::NotEnforced),
        (LockMode::Compliance, (Weakening::Removed, false), LockVerdict::NotEnforced),
        (LockMode::Compliance, (Weakening::OtherMode, false), LockVerdict::NotEnforced),
        (LockMode::Governance, (Weakening::Shorter, false), LockVerdict::NotEnforced),
        (LockMode::Governance, (Weakening::Removed, false), LockVerdict::NotEnforced),
        (LockMode::Governance, (Weakening::Shorter, true), LockVerdict::Bypassable),
        (LockMode::Governance, (Weakening::Removed, true), LockVerdict::Bypassable),
    ] {
        let (api, names) = (FakeObjects { weakened_by: vec![weakened_by], ..FakeObjects::default() }, names());
        let mut proofs = LockProofs::default();
        let mut basis = schedule::tests::basis();
        basis.settings.mode = Some(mode);
        proofs.advance(&api, &basis, context(&names, Some(0))).await;
        let state = proofs.state(&basis);
        assert!(
            matches!(&state, LockProofState::Found(proof) if proof.verdict == expected),
            "{mode} {weakened_by:?}: {state:?}"
        );
    }
}

#[tokio::test]
async fn refused_change_is_no_proof_when_the_retention_may_have_ended() {
    // By the clock of its storage the canary is locked long enough, by the reported clock it is not.
    let (api, names) = (FakeObjects { is_behind: 3, ..FakeObjects::default() }, names());
    let mut basis = schedule::tests::basis();
    basis.canary.retention = Duration::from_secs(2);
    let mut proofs = LockProofs::default();
    proofs.advance(&api, &basis, context(&names, Some(0))).await;
    assert_eq!((proofs.in_use(), proofs.state(&basis)), (None, LockProofState::Pending));
    let checked = proofs.checked(&FakeBucket::healthy().location(), &basis);
    assert!(checked.finding().is_some_and(|finding| finding.message.contains("raise [s3.canary] retention")));
}
