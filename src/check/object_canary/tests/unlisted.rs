//! Buckets that cannot be listed. The agent finds earlier canaries by its record.

use super::*;

#[tokio::test]
async fn canary_locked_for_too_long_without_the_right_to_list_has_both_warnings() {
    let api = FakeObjects { refuses_list: true, locks_longer: 3600, ..FakeObjects::default() };
    let checked = retained(&api, Some(Duration::from_secs(60))).await;
    let reasons: Vec<Reason> = checked.findings().iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [Reason::CanaryLocked, Reason::AccessDenied]);
}

#[tokio::test]
async fn canary_passes_with_a_warning_when_listing_is_refused() {
    let api = FakeObjects { refuses_list: true, ..FakeObjects::default() };
    let checked = written(&api).await;
    assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::AccessDenied)));
    assert!(checked.finding().is_some_and(|finding| finding.message.contains("s3:ListBucket below canary/")));
}

/// Number of canaries after each of four runs without the permission to list, of one process or of one each.
async fn counts_of(api: &FakeObjects, retention: Option<Duration>, restarts: bool) -> Vec<usize> {
    let (store, mut counts) = (Arc::new(FakeStore::default()), Vec::new());
    let (mut names, mut memory) = (names(), store.memory());
    for _ in 0..4 {
        if restarts {
            (names, memory) = (self::names(), store.memory());
        }
        let versioning = Some(if api.versioned { Versioning::Enabled } else { Versioning::Off });
        let clock = ServiceClock::new(Some(0));
        run(api, &CanaryPlan { versioning, retention, ..CanaryPlan::new(&names, clock) }, &mut memory).await;
        counts.push(api.keys().len());
    }
    counts
}

/// Counts of one process. Asserts that restarts make no difference.
async fn counts(api: &mut FakeObjects, versioned: bool, retention: Option<Duration>) -> Vec<usize> {
    api.versioned = versioned;
    let in_one = counts_of(api, retention, false).await;
    api.clear();
    assert_eq!(counts_of(api, retention, true).await, in_one, "after restarts");
    in_one
}

#[tokio::test]
async fn one_canary_remains_when_listing_and_another_permission_are_refused() {
    let unlisted = || FakeObjects { refuses_list: true, ..FakeObjects::default() };
    let mut write_only = FakeObjects { refuses_get: true, refuses_delete: true, ..unlisted() };
    let mut not_readable = FakeObjects { refuses_get: true, ..unlisted() };
    let mut not_deletable = FakeObjects { refuses_delete: true, ..unlisted() };
    let mut stores_and_fails = FakeObjects { stores_and_fails: true, ..unlisted() };
    for versioned in [false, true] {
        assert_eq!(counts(&mut write_only, versioned, None).await, [1; 4], "{versioned}");
        assert_eq!(counts(&mut not_readable, versioned, None).await, [0; 4], "{versioned}");
        assert_eq!(counts(&mut not_deletable, versioned, None).await, [1; 4], "{versioned}");
        assert_eq!(counts(&mut unlisted(), versioned, None).await, [0; 4], "{versioned}");
        assert_eq!(counts(&mut stores_and_fails, versioned, None).await, [1; 4], "{versioned}");
        for api in [&write_only, &not_deletable, &stores_and_fails] {
            api.clear();
        }
    }
    assert_eq!(counts(&mut unlisted(), true, Some(Duration::from_secs(60))).await, [1; 4], "locked by default");
}

#[tokio::test]
async fn late_puts_leave_no_canary_when_listing_is_refused() {
    for versioned in [false, true] {
        let mut api = FakeObjects { refuses_list: true, versioned, ..FakeObjects::default() };
        let (store, mut most) = (Arc::new(FakeStore::default()), 0);
        for _ in 0..6 {
            for is_late in [true, false, false] {
                api.is_late = is_late;
                counts_after(&api, &store).await;
                most = most.max(api.keys().len());
            }
            api.apply_late();
        }
        assert_eq!(counts_after(&api, &store).await, (Outcome::Passed, 0), "{versioned}");
        assert_eq!(most, 0, "{versioned}");
    }
}

#[tokio::test]
async fn late_puts_of_locked_canaries_leave_none_when_listing_is_refused() {
    let mut api = FakeObjects { refuses_list: true, versioned: true, ..FakeObjects::default() };
    let (names, store) = (names(), Arc::new(FakeStore::default()));
    let run_at = async |api: &FakeObjects, ahead| {
        let (clock, retention) = (ServiceClock::new(Some(ahead)), Some(Duration::from_secs(60)));
        let plan = CanaryPlan { retention, ..CanaryPlan::new(&names, clock) };
        run(api, &plan, &mut store.memory()).await.outcome()
    };
    assert_eq!((run_at(&api, 0).await, api.keys().len()), (Outcome::Passed, 1));
    api.unlock();
    api.is_late = true;
    // While no PUT is answered, each probe tries again, so that the target stays offline.
    for ahead in [120, 130, 140] {
        assert_eq!((run_at(&api, ahead).await, api.keys().len()), (Outcome::Failed, 0), "{ahead}");
    }
    api.apply_late();
    assert_eq!(api.keys().len(), 3);
    api.unlock();
    api.is_late = false;
    // One of them counts as the last canary until its retention ends.
    for (ahead, outcome, left) in [(150, Outcome::Skipped, 3), (300, Outcome::Passed, 1)] {
        assert_eq!((run_at(&api, ahead).await, api.keys().len()), (outcome, left), "{ahead}");
    }
}

#[tokio::test]
async fn refused_put_leaves_no_record_of_a_canary() {
    for (status, code, is_recorded) in [
        (403, "AccessDenied", false),
        (403, "QuotaExceeded", false),
        (400, "InvalidRequest", false),
        (507, "InsufficientStorage", false),
        (500, "InternalError", true),
        (503, "SlowDown", true),
        (409, "OperationAborted", true),
    ] {
        let api = FakeObjects { refuses_list: true, ..FakeObjects::default() };
        api.next_puts.lock().expect("not poisoned").push_back(S3Failure::service(status, Some(code), None));
        let (store, names) = (Arc::new(FakeStore::default()), names());
        run(&api, &CanaryPlan::new(&names, ServiceClock::new(Some(0))), &mut store.memory()).await;
        assert_eq!(store.record.lock().expect("not poisoned").leftover.is_some(), is_recorded, "{status} {code}");
    }
}

#[tokio::test]
async fn remembered_canary_that_stays_locked_is_not_a_failure_of_the_target() {
    let names = names();
    for (locks_longer, refuses_delete, words) in [(3600, false, "for longer"), (0, true, "s3:DeleteObjectVersion")] {
        let api = FakeObjects { refuses_list: true, locks_longer, refuses_delete, ..FakeObjects::default() };
        let mut memory = CanaryMemory::default();
        // By the clock of the second run, the requested retention has ended.
        for (ahead, outcome) in [(0, Outcome::Passed), (120, Outcome::Skipped)] {
            let (clock, retention) = (ServiceClock::new(Some(ahead)), Some(Duration::from_secs(60)));
            let plan = CanaryPlan { retention, ..CanaryPlan::new(&names, clock) };
            let checked = run(&api, &plan, &mut memory).await;
            assert_eq!((checked.outcome(), api.keys().len()), (outcome, 1), "{checked:?}");
            if outcome == Outcome::Skipped {
                assert_eq!((checked.reason(), checked.findings().len()), (Some(Reason::CanaryLocked), 2));
                assert!(checked.finding().is_some_and(|finding| finding.message.contains(words)), "{checked:?}");
            }
        }
    }
}

#[tokio::test]
async fn canary_of_a_crash_is_removed_when_listing_is_refused() {
    for versioned in [false, true] {
        let api = FakeObjects { refuses_list: true, versioned, ..FakeObjects::default() };
        let (before, store) = (names(), Arc::new(FakeStore::default()));
        let key = before.text(&before.new_key(CanaryKind::Write, 0));
        api.keep(&key);
        // The process ended before the answer to the PUT.
        let leftover = CanaryLeftover { key, until: 0, version: None, written_at: None };
        *store.record.lock().expect("not poisoned") =
            CanaryRecord { leftover: Some(leftover), is_readable: false, ignores_digest: false };
        assert_eq!(counts_after(&api, &store).await, (Outcome::Passed, 0), "{versioned}");
    }
}

/// Outcome of a run of a new process, and the number of canaries after it.
async fn counts_after(api: &FakeObjects, store: &Arc<FakeStore>) -> (Outcome, usize) {
    let names = names();
    let versioning = Some(if api.versioned { Versioning::Enabled } else { Versioning::Off });
    let plan = CanaryPlan { versioning, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
    let checked = run(api, &plan, &mut store.memory()).await;
    (checked.outcome(), api.keys().len())
}

#[tokio::test]
async fn no_canary_is_written_while_the_last_one_may_exist() {
    let api = FakeObjects { refuses_list: true, versioned: true, ..FakeObjects::default() };
    let store = Arc::new(FakeStore::default());
    let leftover = CanaryLeftover { key: "lost".to_owned(), until: 0, version: None, written_at: None };
    *store.record.lock().expect("not poisoned") =
        CanaryRecord { leftover: Some(leftover), is_readable: false, ignores_digest: false };
    assert_eq!(counts_after(&api, &store).await, (Outcome::Skipped, 0));
    // Credentials that read canaries before are refused only objects that do not exist.
    store.record.lock().expect("not poisoned").is_readable = true;
    assert_eq!(counts_after(&api, &store).await, (Outcome::Passed, 0));
}

#[tokio::test]
async fn canary_that_cannot_be_listed_is_not_written_unless_it_is_recorded() {
    for (refuses_list, expected) in [(true, (Outcome::Skipped, 0)), (false, (Outcome::Passed, 0))] {
        let api = FakeObjects { refuses_list, ..FakeObjects::default() };
        let store = Arc::new(FakeStore { is_broken: true, ..FakeStore::default() });
        assert_eq!(counts_after(&api, &store).await, expected);
        assert_eq!(api.puts(), usize::from(!refuses_list));
    }
}

#[tokio::test]
async fn killed_commands_leave_few_canaries_when_listing_is_refused() {
    for versioning in [Some(Versioning::Off), Some(Versioning::Suspended), Some(Versioning::Enabled), None] {
        let replaces = matches!(versioning, Some(Versioning::Off | Versioning::Suspended));
        for refuses_get in [false, true] {
            // A PUT without an answer is like a command that ends before its DELETE, or one that is stored late.
            let mut api = FakeObjects {
                refuses_list: true,
                refuses_get,
                stores_and_fails: true,
                versioned: !replaces,
                ..FakeObjects::default()
            };
            for _ in 0..64 {
                run_command(&api, versioning).await;
            }
            let left = api.keys().len() as u128;
            assert!(left <= COMMAND_KEYS && (left > 0) == replaces, "{versioning:?} {refuses_get}: {left}");
            api.stores_and_fails = false;
            let (checked, memory) = run_command(&api, versioning).await;
            assert!(checked.outcome() == Outcome::Passed || memory.shows_writing(), "{checked:?}");
            assert!(api.keys().len() as u128 <= left, "{versioning:?}");
        }
    }
}

#[tokio::test]
async fn command_takes_another_key_when_its_canary_is_replaced_or_removed() {
    let missing = S3Failure::service(404, Some("NoSuchKey"), None);
    for (role, puts, outcome) in [(ProcessRole::OneShot, 2, Outcome::Passed), (ProcessRole::Daemon, 1, Outcome::Failed)]
    {
        let api = FakeObjects { refuses_list: true, ..FakeObjects::default() };
        api.next_gets.lock().expect("not poisoned").extend([missing.clone(), missing.clone()]);
        let names = names_of(role);
        let versioning = Some(Versioning::Off);
        let plan = CanaryPlan { versioning, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
        let checked = run(&api, &plan, &mut CanaryMemory::default()).await;
        assert_eq!((checked.outcome(), api.puts(), api.keys().len()), (outcome, puts, 0), "{checked:?}");
    }
    let losing = FakeObjects { refuses_list: true, loses: true, ..FakeObjects::default() };
    let (checked, _) = run_command(&losing, Some(Versioning::Off)).await;
    assert_eq!((checked.reason(), losing.puts()), (Some(Reason::CanaryMismatch), 4), "{checked:?}");
}

/// Failures of a listing that say nothing about other requests.
fn failures_of_a_listing() -> Vec<S3Failure> {
    vec![
        S3Failure::service(500, Some("InternalError"), None),
        S3Failure::service(503, Some("SlowDown"), None),
        S3Failure::service(502, None, None),
        S3Failure::service(409, Some("Conflict"), None),
        S3Failure::service(400, Some("InvalidArgument"), None),
        S3Failure::service(404, Some("NoSuchBucket"), None),
        S3Failure::service(405, Some("MethodNotAllowed"), None),
        S3Failure::service(501, Some("NotImplemented"), None),
        S3Failure::service(403, Some("SignatureDoesNotMatch"), None),
        S3Failure::service(403, Some("PolicyOfTheDay"), None),
        S3Failure::service(302, None, None),
        S3Failure::NotS3("truncated".to_owned()),
        S3Failure::WebPage,
        S3Failure::ConnectionBroken("reset".to_owned()),
        S3Failure::TimedOut(Duration::from_secs(5)),
    ]
}

#[tokio::test]
async fn failed_listing_is_a_warning_that_names_it_when_objects_can_be_written() {
    for failure in failures_of_a_listing() {
        for versioned in [false, true] {
            let api = FakeObjects { list_failure: Some(failure.clone()), versioned, ..FakeObjects::default() };
            let checked = written(&api).await;
            assert_eq!((checked.outcome(), api.keys().len()), (Outcome::Passed, 0), "{failure}: {checked:?}");
            assert_eq!(checked.findings().len(), 1, "{failure}");
            let shown = message(&checked);
            assert!(shown.contains("the listing of canaries") && !shown.contains("grant"), "{shown}");
            let misleading = [Reason::WrongSecret, Reason::BucketNotFound, Reason::Redirected, Reason::NotS3];
            assert!(!checked.reason().is_some_and(|reason| misleading.contains(&reason)), "{shown}");
        }
    }
}

#[tokio::test]
async fn canary_fails_when_its_put_fails_after_a_failed_listing() {
    for failure in failures_of_a_listing() {
        let api = FakeObjects { list_failure: Some(failure.clone()), refuses_put: true, ..FakeObjects::default() };
        let checked = written(&api).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::AccessDenied)), "{failure}");
        assert!(message(&checked).contains("the PUT of a canary"), "{failure}");
    }
}

#[tokio::test]
async fn listing_that_concerns_the_credentials_or_the_host_fails_the_canary() {
    for failure in [
        S3Failure::service(403, Some("InvalidAccessKeyId"), None),
        S3Failure::service(403, Some("RequestTimeTooSkewed"), None),
        S3Failure::service(400, Some("ExpiredToken"), None),
        S3Failure::ConnectionRefused,
    ] {
        let api = FakeObjects { list_failure: Some(failure.clone()), ..FakeObjects::default() };
        let checked = written(&api).await;
        assert_eq!((checked.outcome(), api.puts()), (Outcome::Failed, 0), "{failure}");
        assert!(message(&checked).contains("the listing of canaries"), "{}", message(&checked));
    }
}

#[tokio::test]
async fn canaries_are_bounded_when_the_listing_fails_now_and_then() {
    let failure = || Some(S3Failure::service(503, Some("SlowDown"), None));
    for (refuses_delete, stores_and_fails) in [(true, false), (false, true), (true, true)] {
        for versioned in [false, true] {
            for restarts in [false, true] {
                let mut api = FakeObjects { refuses_delete, stores_and_fails, versioned, ..FakeObjects::default() };
                let store = Arc::new(FakeStore::default());
                let (mut names, mut memory) = (names(), store.memory());
                for turn in 0..24 {
                    if restarts {
                        (names, memory) = (self::names(), store.memory());
                    }
                    api.list_failure = failure().filter(|_| turn % 2 == 0);
                    let versioning = Some(if versioned { Versioning::Enabled } else { Versioning::Off });
                    let plan = CanaryPlan { versioning, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
                    run(&api, &plan, &mut memory).await;
                }
                let left = api.keys().len();
                assert!(left <= 5, "{refuses_delete} {stores_and_fails} {versioned} {restarts}: {left}");
            }
        }
    }
}

#[tokio::test]
async fn command_stores_no_unlisted_canary_in_a_versioned_bucket() {
    let api = FakeObjects {
        list_failure: Some(S3Failure::service(500, Some("InternalError"), None)),
        versioned: true,
        ..FakeObjects::default()
    };
    let (checked, memory) = run_command(&api, Some(Versioning::Enabled)).await;
    assert_eq!((checked.outcome(), api.puts(), memory.shows_writing()), (Outcome::Skipped, 0, true), "{checked:?}");
    assert!(!message(&checked).contains("may not list"), "{}", message(&checked));
}

#[tokio::test]
async fn silent_listing_does_not_prolong_the_check() {
    let api = FakeObjects { is_silent: true, ..FakeObjects::default() };
    let (names, store) = (names(), Arc::new(FakeStore::default()));
    let leftover = CanaryLeftover { key: "lost".to_owned(), until: 0, version: None, written_at: None };
    store.record.lock().expect("not poisoned").leftover = Some(leftover);
    let (plan, deadline) = (CanaryPlan::new(&names, ServiceClock::new(Some(0))), Duration::from_millis(50));
    let began = std::time::Instant::now();
    let location = FakeBucket::healthy().location();
    let checked = object_canary(&api, &location, &plan, &mut store.memory(), deadline).await;
    assert_eq!((checked.outcome(), api.puts()), (Outcome::TimedOut, 0), "{checked:?}");
    assert!(began.elapsed() < deadline * 3, "{:?}", began.elapsed());
}
