//! Tests of canaries, with a bucket in memory.

mod permissions;
mod refused_retention;
mod unlisted;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use uuid::Uuid;

use super::*;
use crate::check::canary::{CanaryKey, CanaryKind, CanaryNames, ServiceClock, content};
use crate::check::fake::{FakeBucket, FakeObjects};
use crate::model::{CanaryRecord, LockMode, Outcome, Reason, TargetId};
use crate::s3::{Retention, Versioning};

async fn written(api: &FakeObjects) -> Checked<Option<i64>> {
    retained(api, None).await
}

async fn retained(api: &FakeObjects, retention: Option<Duration>) -> Checked<Option<i64>> {
    by_clock(api, retention, ServiceClock::new(Some(0))).await
}

fn names() -> CanaryNames {
    names_of(ProcessRole::Daemon)
}

/// Names of a process that just started.
fn names_of(role: ProcessRole) -> CanaryNames {
    CanaryNames::new("canary/", "node-7", "s3/backups", role, Uuid::new_v4())
}

/// Runs a command that just started.
async fn run_command(api: &FakeObjects, versioning: Option<Versioning>) -> (Checked<Option<i64>>, CanaryMemory) {
    let (names, mut memory) = (names_of(ProcessRole::OneShot), CanaryMemory::default());
    let plan = CanaryPlan { versioning, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
    (run(api, &plan, &mut memory).await, memory)
}

async fn by_clock(api: &FakeObjects, retention: Option<Duration>, clock: ServiceClock) -> Checked<Option<i64>> {
    let names = names();
    let versioning = Some(if api.versioned { Versioning::Enabled } else { Versioning::Off });
    run(api, &CanaryPlan { versioning, retention, ..CanaryPlan::new(&names, clock) }, &mut CanaryMemory::default())
        .await
}

async fn run(api: &FakeObjects, plan: &CanaryPlan<'_>, memory: &mut CanaryMemory) -> Checked<Option<i64>> {
    object_canary(api, &FakeBucket::healthy().location(), plan, memory, Duration::from_secs(5)).await
}

/// Sentence of the first finding.
fn message(checked: &Checked<Option<i64>>) -> &str {
    checked.finding().map_or("", |finding| &finding.message)
}

/// Store of one record, which outlives a process.
#[derive(Debug, Default)]
struct FakeStore {
    record: Mutex<CanaryRecord>,
    is_broken: bool,
}

impl FakeStore {
    /// Memory of a process that just started.
    fn memory(self: &Arc<Self>) -> CanaryMemory {
        CanaryMemory::new(Uuid::nil(), self.clone())
    }
}

#[async_trait]
impl CanaryStore for FakeStore {
    async fn load(&self, _: TargetId) -> Result<Option<CanaryRecord>, String> {
        Ok(Some(self.record.lock().expect("not poisoned").clone()))
    }

    async fn save(&self, _: TargetId, record: CanaryRecord) -> Result<(), String> {
        if self.is_broken {
            return Err("disk full".to_owned());
        }
        *self.record.lock().expect("not poisoned") = record;
        Ok(())
    }
}

#[tokio::test]
async fn canary_fails_when_read_back_differs_or_is_missing() {
    let well = FakeObjects::default();
    assert_eq!(written(&well).await.outcome(), Outcome::Passed);
    let garbling = FakeObjects { garbles: true, ..FakeObjects::default() };
    let losing = FakeObjects { loses: true, ..FakeObjects::default() };
    for wrong in [&garbling, &losing] {
        let checked = written(wrong).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::CanaryMismatch)));
    }
    for api in [well, garbling, losing] {
        assert_eq!(api.keys(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn failed_canary_names_its_request_and_those_that_passed() {
    let failing = |puts: &[&S3Failure], gets: &[&S3Failure], deletes: &[&S3Failure]| {
        let queue = |failures: &[&S3Failure]| failures.iter().copied().cloned().collect::<Vec<_>>();
        let api = FakeObjects::default();
        api.next_puts.lock().expect("a lock").extend(queue(puts));
        api.next_gets.lock().expect("a lock").extend(queue(gets));
        api.next_deletes.lock().expect("a lock").extend(queue(deletes));
        api
    };
    let full = S3Failure::service(507, Some("XMinioStorageFull"), None);
    let quota = S3Failure::service(400, Some("XMinioAdminBucketQuotaExceeded"), None);
    let header = S3Failure::service(400, Some("InvalidArgument"), None);
    let busy = S3Failure::service(503, Some("SlowDown"), None);
    let (get, delete) =
        ("the GET of a canary, after its PUT passed,", "DELETE of a canary, after its PUT and GET passed,");
    for (api, reason, words) in [
        (failing(&[&full], &[], &[]), Reason::StorageFull, "the PUT of a canary failed: the service answered 507"),
        (failing(&[&quota], &[], &[]), Reason::QuotaExceeded, "the PUT of a canary failed"),
        (failing(&[&header], &[], &[]), Reason::RequestRefused, "the PUT of a canary failed"),
        (failing(&[], &[&busy], &[]), Reason::Throttled, get),
        (failing(&[], &[], &[&busy]), Reason::Throttled, delete),
    ] {
        let checked = written(&api).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(reason)));
        let message = &checked.finding().expect("a finding").message;
        assert!(message.contains(words) && !message.contains("grant"), "{message}");
    }
    let denied = written(&FakeObjects { refuses_get: true, ..FakeObjects::default() }).await;
    let message = &denied.finding().expect("a finding").message;
    assert!(message.contains(&format!("{get} was refused")) && message.contains("grant"), "{message}");
}

#[tokio::test]
async fn canary_is_not_locked_when_the_clock_is_unknown_or_wrong() {
    let api = FakeObjects::default();
    for (ahead, retention, outcome) in [
        (None, Some(60), Outcome::Skipped),
        (Some(901), Some(60), Outcome::Skipped),
        (Some(-901), Some(60), Outcome::Skipped),
        (None, None, Outcome::Passed),
        (Some(-901), None, Outcome::Passed),
    ] {
        let retention = retention.map(Duration::from_secs);
        let checked = by_clock(&api, retention, ServiceClock::new(ahead)).await;
        assert_eq!(checked.outcome(), outcome, "{ahead:?} {retention:?}: {checked:?}");
        assert_eq!(api.keys(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn canary_is_locked_too_long_when_the_storage_clock_lags() {
    for (is_behind, reason) in [(0, None), (1, None), (10, Some(Reason::CanaryLocked))] {
        let api = FakeObjects { is_behind, ..FakeObjects::default() };
        let checked = retained(&api, Some(Duration::from_secs(60))).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, reason), "{is_behind} s");
    }
}

#[tokio::test]
async fn canary_is_lost_only_when_it_is_missing_twice() {
    for (times, outcome) in [(1, Outcome::Passed), (2, Outcome::Failed)] {
        let missing = S3Failure::service(404, Some("NoSuchKey"), None);
        let api = FakeObjects {
            next_gets: vec![missing; times].into_iter().collect::<std::collections::VecDeque<_>>().into(),
            ..FakeObjects::default()
        };
        assert_eq!(written(&api).await.outcome(), outcome, "{times}");
    }
}

#[tokio::test]
async fn overlong_and_undeletable_canaries_are_both_reported() {
    let api = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
    let before = names();
    let ended = before.new_key(CanaryKind::Write, ServiceClock::default().now() - 60);
    let locked = Retention { mode: LockMode::Governance, until: ServiceClock::default().now() + 3600 };
    api.keep(&before.text(&ended));
    api.keep_locked(&before.text(&CanaryKey { id: Uuid::new_v4(), ..ended }), Some(locked));
    let checked = retained(&api, Some(Duration::from_secs(60))).await;
    assert_eq!((checked.outcome(), checked.findings().len()), (Outcome::Skipped, 2), "{checked:?}");
}

#[tokio::test]
async fn write_canaries_leave_room_for_a_lock_proof() {
    let api = FakeObjects::default();
    for put in 1..=LOCKED_MAX {
        let checked = retained(&api, Some(Duration::from_secs(60))).await;
        let is_put = put <= LOCKED_BY_WRITING_MAX;
        assert_eq!(checked.outcome(), if is_put { Outcome::Passed } else { Outcome::Skipped }, "{put}");
        assert_eq!(api.keys().len(), put.min(LOCKED_BY_WRITING_MAX));
    }
}

#[tokio::test]
async fn undeletable_canary_names_the_missing_permission() {
    let api = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
    let before = names();
    api.keep(&before.text(&before.new_key(CanaryKind::Write, ServiceClock::default().now() - 60)));
    let checked = retained(&api, Some(Duration::from_secs(60))).await;
    assert_eq!((checked.outcome(), checked.reason()), (Outcome::Skipped, Some(Reason::CanaryLocked)));
    let message = checked.finding().map(|finding| finding.message.clone()).unwrap_or_default();
    assert!(message.contains("s3:DeleteObjectVersion") && !message.contains("for longer"), "{message}");
}

#[tokio::test]
async fn canary_has_a_short_retention_while_the_lock_is_unknown() {
    let refusal =
        |status, code, message| Some(S3Failure::service(status, Some(code), None).with_message(message, None));
    for (ignores_retention, failure, outcome, puts, left) in [
        (false, None, Outcome::Passed, 1, 1),
        (true, None, Outcome::Passed, 1, 0),
        (false, refusal(400, "InvalidRequest", "Bucket is missing Object Lock Configuration"), Outcome::Passed, 2, 0),
        (false, refusal(400, "InvalidRequest", "Bucket is missing ObjectLockConfiguration"), Outcome::Passed, 2, 0),
        (false, refusal(404, "ObjectLockConfigurationNotFoundError", ""), Outcome::Passed, 2, 0),
        (false, refusal(501, "NotImplemented", ""), Outcome::Passed, 2, 0),
        // The bucket may have a default retention that a plain PUT would get.
        (false, refusal(403, "AccessDenied", ""), Outcome::Skipped, 1, 0),
        (false, refusal(400, "InvalidRequest", ""), Outcome::Skipped, 1, 0),
        (false, refusal(400, "InvalidRequest", "the retention period is too short"), Outcome::Skipped, 1, 0),
        (false, refusal(507, "InsufficientStorage", ""), Outcome::Failed, 1, 0),
        (false, refusal(500, "InternalError", ""), Outcome::Failed, 1, 0),
    ] {
        for (refuses_list, versioning) in [(false, None), (true, None), (false, Some(Versioning::Enabled))] {
            let api = FakeObjects { ignores_retention, refuses_list, ..FakeObjects::default() };
            api.next_puts.lock().expect("not poisoned").extend(failure.clone());
            let (names, retention) = (names(), Some(Duration::from_secs(60)));
            let clock = ServiceClock::new(Some(0));
            let plan = CanaryPlan { versioning, retention, is_lock_unknown: true, ..CanaryPlan::new(&names, clock) };
            let checked = run(&api, &plan, &mut CanaryMemory::default()).await;
            assert_eq!((checked.outcome(), api.puts(), api.keys().len()), (outcome, puts, left), "{checked:?}");
            assert_eq!(api.latest().is_some(), left > 0);
        }
    }
}

#[tokio::test]
async fn sweep_removes_a_bounded_number_and_only_canaries() {
    let api = FakeObjects::default();
    let before = names();
    let backup = format!("{}backup", before.folder());
    api.keep(&backup);
    for _ in 0..40 {
        api.keep(&before.text(&before.new_key(CanaryKind::Write, 0)));
    }
    let mut remaining = Vec::new();
    for _ in 0..4 {
        assert_eq!(written(&api).await.outcome(), Outcome::Passed);
        remaining.push(api.keys().len());
    }
    assert_eq!(remaining, [25, 9, 1, 1]);
    assert_eq!(api.keys(), [backup]);
}

#[tokio::test]
async fn late_put_of_an_earlier_canary_is_not_a_mismatch() {
    let api = FakeObjects { garbles: true, ..FakeObjects::default() };
    assert_eq!(written(&api).await.reason(), Some(Reason::CanaryMismatch));
    assert_eq!(api.puts(), 1, "other content is not repeated");
    let api = FakeObjects {
        overwritten_once: Mutex::new(Some(content(Uuid::new_v4()))),
        names_no_version: true,
        ..FakeObjects::default()
    };
    let checked = written(&api).await;
    assert_eq!((checked.outcome(), api.puts(), api.keys().len()), (Outcome::Passed, 2, 0), "{checked:?}");
}

#[tokio::test]
async fn canary_is_deleted_as_null_version_when_versioning_is_suspended() {
    for (versioning, version) in [(Versioning::Suspended, Some("null")), (Versioning::Off, None)] {
        let (api, names) = (FakeObjects { names_no_version: true, ..FakeObjects::default() }, names());
        let plan = CanaryPlan { versioning: Some(versioning), ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
        assert_eq!(run(&api, &plan, &mut CanaryMemory::default()).await.outcome(), Outcome::Passed);
        assert_eq!(api.deleted(), [version.map(str::to_owned)], "{versioning:?}");
    }
}

#[tokio::test]
async fn commands_leave_a_bounded_number_of_canaries() {
    for refuses_list in [false, true] {
        let api = FakeObjects { refuses_delete: true, refuses_list, ..FakeObjects::default() };
        for _ in 0..8 {
            run_command(&api, None).await;
        }
        assert_eq!(api.keys().len(), if refuses_list { 0 } else { LOCKED_MAX });
    }
}

#[tokio::test]
async fn refused_put_mentions_headers_that_a_policy_may_demand() {
    for (status, code, mentions) in [
        (403, "AccessDenied", true),
        (400, "InvalidRequest", true),
        (403, "QuotaExceeded", false),
        (403, "SignatureDoesNotMatch", false),
        (500, "InternalError", false),
    ] {
        let api = FakeObjects::default();
        api.next_puts.lock().expect("not poisoned").push_back(S3Failure::service(status, Some(code), None));
        let checked = written(&api).await;
        assert_eq!(message(&checked).contains("put_headers"), mentions, "{}", message(&checked));
    }
}

#[tokio::test]
async fn refusal_that_is_not_about_permissions_has_no_advice_about_them() {
    for (status, code) in
        [(405, "MethodNotAllowed"), (501, "NotImplemented"), (403, "RequestNotAllowedInReadOnlyMode"), (403, "Weird")]
    {
        let failure = S3Failure::service(status, Some(code), None);
        let api = FakeObjects::default();
        api.next_deletes.lock().expect("a lock").extend(vec![failure.clone(); 2]);
        let checked = written(&api).await;
        assert_eq!((checked.outcome(), checked.findings().len()), (Outcome::Passed, 1), "{failure}: {checked:?}");
        let shown = message(&checked);
        assert!(shown.contains("deleting") && shown.contains(code) && !shown.contains("grant"), "{shown}");
        assert_ne!(checked.reason(), Some(Reason::AccessDenied), "{shown}");
        // A canary that remains is read back, in a bucket with versions.
        let api = FakeObjects { versioned: true, ..FakeObjects::default() };
        api.next_deletes.lock().expect("a lock").extend(vec![failure.clone(); 2]);
        let (names, mut memory) = (names(), CanaryMemory::default());
        let versioning = Some(Versioning::Enabled);
        let plan = CanaryPlan { versioning, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
        for _ in 0..2 {
            let checked = run(&api, &plan, &mut memory).await;
            assert!(!message(&checked).contains("grant"), "{}", message(&checked));
        }
        let api = FakeObjects::default();
        api.next_puts.lock().expect("a lock").push_back(failure.clone());
        let checked = written(&api).await;
        assert_eq!(checked.outcome(), Outcome::Failed, "{failure}");
        assert!(!message(&checked).contains("grant"), "{}", message(&checked));
        let api = FakeObjects::default();
        api.next_gets.lock().expect("a lock").push_back(failure.clone());
        let checked = written(&api).await;
        assert!(!message(&checked).contains("grant"), "{}", message(&checked));
    }
}
