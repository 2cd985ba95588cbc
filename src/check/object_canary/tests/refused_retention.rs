//! Tests of a PUT that the service refuses with a retention.

use super::*;

#[tokio::test]
async fn writing_is_not_verified_when_the_service_refuses_a_short_retention() {
    for (status, code, message, outcome, reason) in [
        (400, "InvalidRequest", "the retention period is too short", Outcome::Skipped, Reason::LockUnverifiable),
        (
            403,
            "AccessDenied",
            "not authorized to perform: s3:PutObjectRetention",
            Outcome::Skipped,
            Reason::LockUnverifiable,
        ),
        (400, "InvalidRetentionPeriod", "The period is too short", Outcome::Skipped, Reason::LockUnverifiable),
        (400, "InvalidRetentionPeriod", "", Outcome::Skipped, Reason::LockUnverifiable),
        (403, "ObjectLockPolicyViolation", "", Outcome::Skipped, Reason::LockUnverifiable),
        (400, "WormPeriodTooShort", "", Outcome::Skipped, Reason::LockUnverifiable),
        (400, "InvalidArgument", "The retain until date is too early", Outcome::Skipped, Reason::LockUnverifiable),
    ] {
        let api = FakeObjects { upload_failure: Some(S3Failure::service(501, None, None)), ..FakeObjects::default() };
        let failure = S3Failure::service(status, Some(code), None).with_message(message, None);
        api.next_puts.lock().expect("a lock").push_back(failure.clone());
        let checked = retained(&api, Some(Duration::from_secs(60))).await;
        assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(reason)), "{failure} {message}");
        let shown = &checked.finding().expect("a finding").message;
        assert!(shown.contains("set min_canary_retention in [s3.lock_proof]"), "{shown}");
        api.next_puts.lock().expect("a lock").push_back(failure);
        assert_eq!(written(&api).await.outcome(), Outcome::Failed, "without a retention");
    }
}

#[tokio::test]
async fn refused_put_concerns_the_retention_if_an_upload_is_permitted() {
    let refused = |status, code: &str| S3Failure::service(status, (!code.is_empty()).then_some(code), None);
    let denied = refused(403, "AccessDenied");
    let unknown = refused(501, "NotImplemented");
    // A lock that is not known is reported by its own check.
    for (is_lock_unknown, expected) in [(false, Some(Reason::LockUnverifiable)), (true, None)] {
        for (failure, upload, is_retention) in [
            (refused(400, "InvalidRequest"), None, true),
            (refused(400, "InvalidArgument"), None, true),
            (refused(400, ""), None, true),
            (denied.clone(), None, true),
            (refused(403, ""), None, true),
            (refused(404, "NoSuchConfiguration"), None, true),
            (refused(409, "InvalidBucketState"), None, true),
            (refused(422, "UnprocessableEntity"), None, true),
            (refused(501, "NotImplemented"), None, true),
            // It permits no other PUT either, or does not say.
            (denied.clone(), Some(&denied), false),
            (refused(400, "InvalidRequest"), Some(&denied), false),
            (refused(400, "InvalidRequest"), Some(&unknown), false),
            (denied.clone(), Some(&unknown), false),
            // Not about the retention.
            (refused(403, "SignatureDoesNotMatch"), None, false),
            (refused(404, "NoSuchBucket"), None, false),
            (refused(405, "MethodNotAllowed"), None, false),
            (refused(403, "QuotaExceeded"), None, false),
            (refused(409, "OperationAborted"), None, false),
            (refused(403, "InvalidAccessKeyId"), None, false),
            (refused(403, "ExpiredToken"), None, false),
            (refused(403, "RequestTimeTooSkewed"), None, false),
            (refused(400, "BadDigest"), None, false),
            (refused(500, "InternalError"), None, false),
            (refused(503, "SlowDown"), None, false),
        ] {
            if is_lock_unknown && !is_retention {
                continue;
            }
            let api = FakeObjects { upload_failure: upload.cloned(), ..FakeObjects::default() };
            api.next_puts.lock().expect("a lock").extend(vec![failure.clone(); 2]);
            let (names, mut memory) = (names(), CanaryMemory::default());
            let plan = CanaryPlan {
                versioning: Some(Versioning::Enabled),
                retention: Some(Duration::from_secs(60)),
                is_lock_unknown,
                ..CanaryPlan::new(&names, ServiceClock::new(Some(0)))
            };
            let checked = run(&api, &plan, &mut memory).await;
            if is_lock_unknown && failure.denies_object_lock() {
                continue;
            }
            let outcome = if is_retention { Outcome::Skipped } else { Outcome::Failed };
            let shown = message(&checked);
            assert_eq!(checked.outcome(), outcome, "{failure} {upload:?}: {checked:?}");
            assert_eq!(memory.shows_writing(), is_retention, "{failure} {upload:?}");
            if is_retention && let Some(expected) = expected {
                assert_eq!(checked.reason(), Some(expected), "{shown}");
                assert!(shown.contains("demands a longer retention, set min_canary_retention"), "{shown}");
            } else {
                assert_ne!(checked.reason(), Some(Reason::LockUnverifiable), "{shown}");
            }
            assert!(is_empty(&api), "an upload remains");
        }
    }
    // Nothing that has content is accepted.
    for part_failure in [denied.clone(), refused(400, "InvalidRequest")] {
        let api = FakeObjects { part_failure: Some(part_failure), ..FakeObjects::default() };
        api.next_puts.lock().expect("a lock").push_back(refused(400, ""));
        let checked = retained(&api, Some(Duration::from_secs(60))).await;
        assert_eq!(checked.outcome(), Outcome::Failed, "{checked:?}");
        assert!(is_empty(&api), "an upload remains");
    }
    // Credentials that may not write, for a bucket whose lock is not known.
    let api = FakeObjects { refuses_put: true, ..FakeObjects::default() };
    let (names, retention) = (names(), Some(Duration::from_secs(60)));
    let clock = ServiceClock::new(Some(0));
    let plan = CanaryPlan { retention, is_lock_unknown: true, ..CanaryPlan::new(&names, clock) };
    let checked = run(&api, &plan, &mut CanaryMemory::default()).await;
    assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::AccessDenied)), "{checked:?}");
}

/// Whether no object and no multipart upload remains.
fn is_empty(api: &FakeObjects) -> bool {
    api.keys().is_empty() && api.unfinished.lock().expect("a lock").is_empty()
}

#[tokio::test]
async fn multipart_uploads_that_cannot_be_aborted_are_bounded() {
    let denied = S3Failure::service(403, Some("AccessDenied"), None);
    for (refuses_abort, refuses_list, started, left) in
        [(true, false, 1, 1), (false, true, 0, 0), (true, true, 0, 0), (false, false, 4, 0)]
    {
        let api = FakeObjects { refuses_abort, refuses_list, ..FakeObjects::default() };
        for _ in 0..4 {
            api.next_puts.lock().expect("a lock").push_back(denied.clone());
            let checked = retained(&api, Some(Duration::from_secs(60))).await;
            let outcome = if left + started == 4 { Outcome::Skipped } else { Outcome::Failed };
            assert_eq!(checked.outcome(), outcome, "{checked:?}");
        }
        let found = api.unfinished.lock().expect("a lock").len();
        assert_eq!((api.uploads_started.into_inner(), found), (started, left), "{refuses_abort} {refuses_list}");
    }
    // The leftover of a crash is aborted.
    let api = FakeObjects::default();
    let key = names().text(&names().unlisted_key(0));
    api.unfinished.lock().expect("a lock").push((key, "of a crash".to_owned()));
    api.next_puts.lock().expect("a lock").push_back(denied);
    assert_eq!(retained(&api, Some(Duration::from_secs(60))).await.outcome(), Outcome::Skipped);
    assert!(is_empty(&api));
}

#[tokio::test]
async fn refused_canary_times_out_when_its_retention_may_have_ended() {
    let api = FakeObjects { refuses_put: true, ..FakeObjects::default() };
    for (seconds, outcome, reason) in
        [(1, Outcome::TimedOut, Reason::ResponseTimedOut), (60, Outcome::Failed, Reason::AccessDenied)]
    {
        let checked = retained(&api, Some(Duration::from_secs(seconds))).await;
        assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(reason)), "{seconds} s");
    }
}
