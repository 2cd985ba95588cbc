//! Credentials that may not delete, or not read, what they write.

use super::*;

#[tokio::test]
async fn one_canary_remains_when_credentials_may_write_and_not_delete() {
    for (versioned, later) in [(false, Outcome::Passed), (true, Outcome::Skipped)] {
        let api = FakeObjects { refuses_delete: true, versioned, ..FakeObjects::default() };
        for outcome in [Outcome::Passed, later, later] {
            let checked = written(&api).await;
            assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(Reason::AccessDenied)), "{versioned}");
            let message = message(&checked);
            for words in ["writing was verified", "was refused", "403 AccessDenied", "s3:DeleteObject", "append_only"] {
                assert!(message.contains(words), "{words}: {message}");
            }
            assert_eq!(api.keys().len(), 1, "{:?}", api.keys());
        }
    }
}

#[tokio::test]
async fn append_only_credentials_are_no_warning_and_leave_one_canary() {
    for (versioned, refuses_list) in [(false, false), (false, true), (true, false), (true, true)] {
        let api = FakeObjects { refuses_delete: true, versioned, refuses_list, ..FakeObjects::default() };
        let (names, store) = (names(), Arc::new(FakeStore::default()));
        let versioning = Some(if versioned { Versioning::Enabled } else { Versioning::Off });
        let plan = CanaryPlan { versioning, append_only: true, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
        for run_number in 0..4 {
            let checked = run(&api, &plan, &mut store.memory()).await;
            let outcome = if versioned && run_number > 0 { Outcome::Skipped } else { Outcome::Passed };
            assert_eq!((checked.outcome(), checked.findings().len()), (outcome, 0), "{versioned}: {checked:?}");
            assert_eq!(api.keys().len(), 1, "{versioned} {refuses_list}");
        }
        // The setting does not expect that reading is refused.
        let api = FakeObjects { refuses_get: true, ..api };
        let checked = run(&api, &plan, &mut store.memory()).await;
        // To credentials that could read before and may not list, a denied HEAD looks like an object that is gone.
        let outcome = if versioned && !refuses_list { Outcome::Skipped } else { Outcome::Passed };
        assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(Reason::AccessDenied)), "{versioned}");
        for _ in 0..3 {
            run(&api, &plan, &mut store.memory()).await;
        }
        assert!(api.keys().len() <= 2, "{:?}", api.keys());
    }
}

#[tokio::test]
async fn credentials_that_may_only_write_verify_writing_and_leave_one_canary() {
    for (versioning, versioned, later) in [
        (Some(Versioning::Off), false, Outcome::Passed),
        (Some(Versioning::Enabled), true, Outcome::Skipped),
        // These credentials may not read the versioning either.
        (None, false, Outcome::Passed),
        (None, true, Outcome::Skipped),
    ] {
        for (refuses_list, append_only) in [(false, false), (true, false), (true, true)] {
            let api = FakeObjects {
                refuses_get: true,
                refuses_delete: true,
                refuses_list,
                versioned,
                names_no_version: !versioned,
                ..FakeObjects::default()
            };
            let (names, store) = (names(), Arc::new(FakeStore::default()));
            let plan = CanaryPlan { versioning, append_only, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
            for outcome in [Outcome::Passed, later, later, later] {
                let checked = run(&api, &plan, &mut store.memory()).await;
                assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(Reason::AccessDenied)), "{checked:?}");
                let message = message(&checked);
                assert!(message.contains("s3:GetObject") || message.contains("s3:Delete"), "{message}");
                assert_eq!(api.keys().len(), 1, "{versioning:?} {versioned} {refuses_list}");
            }
        }
    }
}

#[tokio::test]
async fn credentials_that_may_only_write_overwrite_a_canary_whose_put_failed() {
    let api = FakeObjects {
        refuses_list: true,
        refuses_get: true,
        refuses_delete: true,
        names_no_version: true,
        ..FakeObjects::default()
    };
    let (names, store) = (names(), Arc::new(FakeStore::default()));
    let plan = CanaryPlan::new(&names, ServiceClock::new(Some(0)));
    for (failure, outcome) in [
        (None, Outcome::Passed),
        (Some(S3Failure::service(500, Some("InternalError"), None)), Outcome::Failed),
        (Some(S3Failure::TimedOut(Duration::from_secs(5))), Outcome::TimedOut),
        (None, Outcome::Passed),
    ] {
        api.next_puts.lock().expect("not poisoned").extend(failure);
        let checked = run(&api, &plan, &mut store.memory()).await;
        assert_eq!((checked.outcome(), api.keys().len()), (outcome, 1), "{checked:?}");
    }
}

#[tokio::test]
async fn canary_that_may_not_be_read_is_deleted() {
    let api = FakeObjects { refuses_get: true, ..FakeObjects::default() };
    let checked = written(&api).await;
    assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::AccessDenied)));
    assert!(message(&checked).contains("stored intact is not verified"), "{}", message(&checked));
    assert_eq!(api.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn locked_canary_with_append_only_credentials_is_not_a_warning() {
    for refuses_list in [false, true] {
        let api = FakeObjects { refuses_delete: true, versioned: true, refuses_list, ..FakeObjects::default() };
        let (names, store) = (names(), Arc::new(FakeStore::default()));
        for (ahead, outcome) in [(0, Outcome::Passed), (120, Outcome::Skipped), (240, Outcome::Skipped)] {
            let retention = Some(Duration::from_secs(60));
            let clock = ServiceClock::new(Some(ahead));
            let plan = CanaryPlan { retention, append_only: true, ..CanaryPlan::new(&names, clock) };
            let checked = run(&api, &plan, &mut store.memory()).await;
            assert_eq!((checked.outcome(), checked.findings().len()), (outcome, 0), "{checked:?}");
            assert_eq!(api.keys().len(), 1);
        }
    }
}

/// A bucket with versions whose credentials may not delete, with a canary that was written before.
async fn bucket_with_a_canary(api: FakeObjects, plan: &CanaryPlan<'_>, store: &Arc<FakeStore>) -> FakeObjects {
    let api = FakeObjects { refuses_delete: true, versioned: true, ..api };
    assert_eq!(run(&api, plan, &mut store.memory()).await.outcome(), Outcome::Passed);
    api
}

#[tokio::test]
async fn revoked_permission_to_write_is_found_while_a_canary_remains() {
    for versioning in [None, Some(Versioning::Enabled)] {
        for (refuses_list, refuses_get, append_only) in
            [(true, true, false), (true, false, true), (false, false, false), (false, true, true)]
        {
            let (names, store) = (names(), Arc::new(FakeStore::default()));
            let plan = CanaryPlan { versioning, append_only, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
            let api = FakeObjects { refuses_list, refuses_get, ..FakeObjects::default() };
            let mut api = bucket_with_a_canary(api, &plan, &store).await;
            for (refuses_put, outcome) in
                [(false, Outcome::Skipped), (true, Outcome::Failed), (false, Outcome::Skipped)]
            {
                api.refuses_put = refuses_put;
                let mut memory = store.memory();
                let checked = run(&api, &plan, &mut memory).await;
                let case = (versioning, refuses_list, refuses_get, refuses_put);
                assert_eq!(checked.outcome(), outcome, "{case:?}: {checked:?}");
                if refuses_put {
                    let message = message(&checked);
                    assert!(message.contains("the PUT of a canary was refused"), "{message}");
                }
                assert_eq!(api.keys().len(), 1, "{case:?}");
            }
        }
    }
}

#[tokio::test]
async fn revoked_permission_to_write_is_found_while_canaries_leave_no_room() {
    let (names, store) = (names(), Arc::new(FakeStore::default()));
    let versioning = Some(Versioning::Enabled);
    let plan = CanaryPlan { versioning, ..CanaryPlan::new(&names, ServiceClock::new(Some(0))) };
    let mut api = bucket_with_a_canary(FakeObjects::default(), &plan, &store).await;
    for _ in 1..LOCKED_MAX {
        let key = names.text(&names.new_key(CanaryKind::Write, 0));
        api.objects.lock().expect("not poisoned").push((key, content(Uuid::new_v4()), None));
    }
    for (refuses_put, outcome) in [(false, Outcome::Skipped), (true, Outcome::Failed), (false, Outcome::Skipped)] {
        api.refuses_put = refuses_put;
        let checked = run(&api, &plan, &mut store.memory()).await;
        assert_eq!((checked.outcome(), api.keys().len()), (outcome, LOCKED_MAX), "{refuses_put}: {checked:?}");
    }
}

#[tokio::test]
async fn revoked_permission_to_write_is_found_while_a_canary_is_locked() {
    for (refuses_list, is_lock_unknown, locks_longer, demands_retention) in [
        (true, true, 0, false),
        (true, false, 0, false),
        (true, false, 3600, false),
        (false, false, 3600, false),
        // A policy refuses each PUT without a retention. That is no missing permission.
        (true, false, 0, true),
        (true, false, 3600, true),
        (false, false, 3600, true),
    ] {
        let api = FakeObjects { refuses_list, locks_longer, demands_retention, ..FakeObjects::default() };
        let mut api = FakeObjects { versioned: true, ..api };
        let (names, store) = (names(), Arc::new(FakeStore::default()));
        let retention = Some(Duration::from_secs(60));
        let clock = ServiceClock::new(Some(0));
        let plan = CanaryPlan { retention, is_lock_unknown, ..CanaryPlan::new(&names, clock) };
        assert_eq!(run(&api, &plan, &mut store.memory()).await.outcome(), Outcome::Passed);
        for (refuses_put, outcome) in [(false, Outcome::Skipped), (true, Outcome::Failed), (false, Outcome::Skipped)] {
            api.refuses_put = refuses_put;
            let checked = run(&api, &plan, &mut store.memory()).await;
            let case = (refuses_list, is_lock_unknown, locks_longer, demands_retention, refuses_put);
            assert_eq!((checked.outcome(), api.keys().len()), (outcome, 1), "{case:?}: {checked:?}");
        }
    }
}

#[tokio::test]
async fn answer_to_a_wrong_digest_is_a_failure_only_if_it_concerns_every_put() {
    for (failure, outcome) in [
        (S3Failure::service(400, Some("InvalidDigest"), None), Outcome::Skipped),
        (S3Failure::service(400, Some("InvalidRequest"), None), Outcome::Skipped),
        (S3Failure::service(422, None, None), Outcome::Skipped),
        (S3Failure::service(403, Some("SignatureDoesNotMatch"), None), Outcome::Skipped),
        (S3Failure::service(500, Some("InternalError"), None), Outcome::Skipped),
        (S3Failure::service(403, Some("QuotaExceeded"), None), Outcome::Failed),
        (S3Failure::service(507, Some("InsufficientStorage"), None), Outcome::Failed),
        (S3Failure::service(403, Some("AccessDenied"), None), Outcome::Failed),
        (S3Failure::TimedOut(Duration::from_secs(5)), Outcome::TimedOut),
    ] {
        let (names, store) = (names(), Arc::new(FakeStore::default()));
        let plan = CanaryPlan::new(&names, ServiceClock::new(Some(0)));
        let api = FakeObjects { refuses_list: true, refuses_get: true, ..FakeObjects::default() };
        let api = bucket_with_a_canary(api, &plan, &store).await;
        api.next_trials.lock().expect("not poisoned").push_back(failure.clone());
        let mut memory = store.memory();
        let checked = run(&api, &plan, &mut memory).await;
        assert_eq!(checked.outcome(), outcome, "{failure}: {checked:?}");
        assert!(memory.shows_writing(), "{failure}");
    }
}

#[tokio::test]
async fn service_that_ignores_digests_keeps_a_bounded_number_of_objects() {
    for refuses_list in [true, false] {
        let (names, store) = (names(), Arc::new(FakeStore::default()));
        let plan = CanaryPlan::new(&names, ServiceClock::new(Some(0)));
        let api = FakeObjects { refuses_list, ignores_digest: true, ..FakeObjects::default() };
        let api = bucket_with_a_canary(api, &plan, &store).await;
        for _ in 0..8 {
            // A process that just started.
            let checked = run(&api, &plan, &mut store.memory()).await;
            assert_eq!(checked.outcome(), Outcome::Skipped, "{checked:?}");
        }
        assert_eq!(api.keys().len(), 2, "{refuses_list}");
    }
}

#[tokio::test]
async fn command_with_write_only_credentials_stores_nothing() {
    for versioning in [None, Some(Versioning::Enabled)] {
        let mut api = FakeObjects {
            refuses_list: true,
            refuses_get: true,
            refuses_delete: true,
            versioned: true,
            ..FakeObjects::default()
        };
        for (refuses_put, outcome) in [(false, Outcome::Skipped), (true, Outcome::Failed)] {
            api.refuses_put = refuses_put;
            let (checked, memory) = run_command(&api, versioning).await;
            assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(Reason::AccessDenied)), "{checked:?}");
            assert_eq!((memory.shows_writing(), api.keys().len()), (!refuses_put, 0), "{checked:?}");
        }
    }
}
