//! Tests of buckets whose configuration the service does not tell.

use super::*;
use crate::check::fake::FakeBucket;
use crate::check::object_lock::object_lock;
use crate::model::Reason;
use crate::model::report::Finding;
use crate::s3::aws::fake_service::{answer, answering};

#[tokio::test]
async fn canary_is_locked_for_seconds_when_the_lock_is_unknown() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    for (status, code, reason, words) in [
        (403, "AccessDenied", Reason::AccessDenied, "s3:GetBucketObjectLockConfiguration"),
        (500, "InternalError", Reason::ServerError, "check its log"),
    ] {
        let mut fake = FakeBucket::healthy();
        fake.object_lock = Err(S3Failure::service(status, Some(code), None));
        let unknown = Configuration { lock: None, lock_unknown: Some(reason), ..configuration(None) };
        let (mut canaries, session) = (Canaries::default(), session(FakeObjects::default()));
        // The second probe has a recent canary.
        for outcome in [Outcome::Passed, Outcome::Skipped] {
            let mut log = CheckLog::new([CheckName::ObjectLock, CheckName::WriteCanary], Duration::MAX);
            let reading = object_lock(&fake, &location, false, Duration::ZERO, Duration::from_secs(5));
            assert_eq!(log.run(CheckName::ObjectLock, reading).await, Some(Err(reason)));
            assert!(canaries.write_if_due(&session, input, &unknown, None, false, &mut log).await);
            let results = log.finish();
            assert_eq!((results[1].outcome, results[1].findings().len()), (outcome, 1), "{:?}", results[1]);
            let Finding { reason: found, message, .. } = &results[1].findings()[0];
            assert!(message.contains(code) && message.contains(words), "{message}");
            assert!(!message.contains("not verified"), "{message}");
            assert_eq!((*found, message.contains("grant")), (reason, status == 403), "{message}");
            assert_eq!(session.api.keys().len(), 1);
            let until = session.api.latest().expect("a retention").until - Timestamp::now().as_second();
            assert!((0..=60).contains(&until), "{until} s");
        }
    }
}

#[tokio::test]
async fn recent_canary_counts_when_the_lock_becomes_unknown() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let (mut canaries, session) = (Canaries::default(), session(FakeObjects::default()));
    let known = configuration(None);
    let unknown = Configuration { lock: None, lock_unknown: Some(Reason::ResponseTimedOut), ..known.clone() };
    for configuration in [&known, &unknown, &known] {
        let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
        canaries.write_if_due(&session, input, configuration, None, false, &mut log).await;
        let result = log.finish().remove(0);
        let is_unknown = configuration.lock.is_none();
        assert_eq!(result.findings().len(), usize::from(is_unknown), "{result:?}");
        assert_eq!(session.api.puts(), 1, "{result:?}");
    }
}

#[tokio::test]
async fn canary_is_due_when_the_service_begins_to_refuse_everything_else() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let (mut canaries, session) = (Canaries::default(), session(FakeObjects::default()));
    for (is_only_evidence, puts) in [(false, 1), (true, 2), (true, 2), (false, 2)] {
        let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
        canaries.write_if_due(&session, input, &configuration(None), None, is_only_evidence, &mut log).await;
        assert_eq!(session.api.puts(), puts, "{:?}", log.finish());
    }
}

#[tokio::test]
async fn bucket_that_cannot_lock_needs_no_retention_when_the_lock_is_unknown() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    for versioning in [Versioning::Off, Versioning::Suspended] {
        let (lock_unknown, versioning) = (Some(Reason::ServerError), Some(versioning));
        let configuration = Configuration { lock: None, lock_unknown, versioning, ..configuration(None) };
        let (mut log, session) = (CheckLog::new(&PLAN[..1], Duration::MAX), session(FakeObjects::default()));
        Canaries::default().write_if_due(&session, input, &configuration, None, false, &mut log).await;
        let result = log.finish().remove(0);
        assert_eq!((result.outcome, result.findings().len()), (Outcome::Passed, 0), "{result:?}");
        assert_eq!(session.api.keys(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn canary_that_is_the_only_evidence_is_written_without_a_retention() {
    let (location, settings) = (location(), settings());
    let routine = Input::new(&location, &settings, Depth::Routine);
    let requested = Input { depth: Depth::Full, ..routine };
    let unknown = |versioning| {
        let lock_unknown = Some(Reason::AccessDenied);
        Configuration { lock: None, lock_unknown, versioning, ..configuration(None) }
    };
    let only_writes =
        FakeObjects { refuses_list: true, refuses_get: true, refuses_delete: true, ..FakeObjects::default() };
    for (api, shows_writing) in [
        (FakeObjects { names_no_version: true, ..only_writes }, true),
        (
            FakeObjects {
                refuses_put: true,
                refuses_list: true,
                refuses_get: true,
                refuses_delete: true,
                ..FakeObjects::default()
            },
            false,
        ),
    ] {
        let (mut canaries, session) = (Canaries::default(), session(api));
        for _ in 0..3 {
            let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
            let shown = canaries.write_if_due(&session, requested, &unknown(None), None, true, &mut log).await;
            assert_eq!(shown, shows_writing, "{:?}", log.finish());
            assert_eq!(session.api.keys().len(), usize::from(shows_writing));
            assert_eq!(session.api.latest(), None);
        }
    }
}

#[tokio::test]
async fn unanswered_put_of_write_only_credentials_is_not_a_denial() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let lock_unknown = Some(Reason::AccessDenied);
    let unknown = Configuration { lock: None, lock_unknown, versioning: None, ..configuration(None) };
    for versioned in [false, true] {
        let api = FakeObjects {
            refuses_list: true,
            refuses_get: true,
            refuses_delete: true,
            versioned,
            names_no_version: !versioned,
            ..FakeObjects::default()
        };
        api.next_puts.lock().expect("a lock").push_back(S3Failure::TimedOut(Duration::from_secs(5)));
        let (mut canaries, mut session) = (Canaries::default(), session(api));
        for (refuses_put, is_shown) in [(false, false), (false, true), (false, true), (true, false), (false, true)] {
            session.api.refuses_put = refuses_put;
            let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
            let shown = canaries.write_if_due(&session, input, &unknown, None, true, &mut log).await;
            let result = log.finish().remove(0);
            assert_eq!(shown, is_shown, "{versioned} {refuses_put}: {result:?}");
            assert!(!result.findings().is_empty());
            assert_eq!(session.api.keys().len(), 0);
        }
    }
}

/// Answers to the GET of a configuration that do not tell it.
const STRANGE_ANSWERS: [(&str, &str); 22] = [
    ("200 OK", ""),
    ("200 OK", "{}"),
    ("200 OK", "<"),
    ("200 OK", "<ListBucketResult><Name>backups</Name></ListBucketResult>"),
    ("200 OK", "<Error><Code>NotImplemented</Code><Message>no</Message></Error>"),
    ("200 OK\ncontent-type: text/html", "<html><body>hello</body></html>"),
    ("200 OK", "<VersioningConfiguration><Status>Sometimes</Status></VersioningConfiguration>"),
    ("200 OK", "<ObjectLockConfiguration><ObjectLockEnabled>Perhaps"),
    ("204 No Content", ""),
    ("400 Bad Request", ""),
    ("400 Bad Request", "<Error><Code>InvalidArgument</Code><Message>no such parameter</Message></Error>"),
    ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
    ("404 Not Found", ""),
    ("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>"),
    ("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"),
    ("405 Method Not Allowed", ""),
    ("409 Conflict", "<Error><Code>InvalidBucketState</Code></Error>"),
    ("412 Precondition Failed", ""),
    ("418 I'm a teapot", "short and stout"),
    ("500 Internal Server Error", "Traceback (most recent call last)"),
    ("501 Not Implemented", "<Error><Code>NotImplemented</Code></Error>"),
    ("503 Service Unavailable", "<Error><Code>SlowDown</Code></Error>"),
];

#[tokio::test]
async fn strange_answer_about_a_configuration_fails_only_a_target_that_needs_it() {
    let location = S3Location::parse("http://s3.example.com/backups").expect("a location");
    let (deadline, retention) = (Duration::from_secs(5), Duration::ZERO);
    for (head, body) in STRANGE_ANSWERS {
        for (immutable, expected, findings) in [(false, Outcome::Skipped, 0), (true, Outcome::Failed, 1)] {
            let (bucket, _) = answering([answer(head, body)]).await;
            let lock = object_lock(&bucket, &location, immutable, retention, deadline).await;
            assert_eq!((lock.outcome(), lock.findings().len()), (expected, findings), "{head} {body}: {lock:?}");
            let (bucket, _) = answering([answer(head, body)]).await;
            let versioning = versioning(&bucket, &location, immutable, deadline).await;
            let found = (versioning.outcome(), versioning.findings().len());
            assert_eq!(found, (expected, findings), "{head} {body}: {versioning:?}");
            for message in [lock.finding(), versioning.finding()].into_iter().flatten().map(|found| &found.message) {
                assert!(!message.contains("parse") && !message.contains("create the bucket"), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn canary_is_locked_for_seconds_when_all_other_calls_fail() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    for (reason, is_locked) in [
        (Reason::ServerError, true),
        (Reason::Throttled, true),
        (Reason::ResponseTimedOut, true),
        (Reason::ConnectionBroken, true),
        (Reason::AccessDenied, false),
        (Reason::NotImplemented, false),
    ] {
        let unknown = Configuration { lock: None, lock_unknown: Some(reason), versioning: None, ..configuration(None) };
        let list_failure = Some(S3Failure::service(500, Some("InternalError"), None));
        let session = session(FakeObjects { list_failure, ..FakeObjects::default() });
        let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
        let shown = Canaries::default().write_if_due(&session, input, &unknown, None, true, &mut log).await;
        assert!(shown, "{reason}: {:?}", log.finish());
        assert_eq!(session.api.latest().is_some(), is_locked, "a default retention may exist: {reason}");
    }
}
