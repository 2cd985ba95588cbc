//! Tests of both halves of a probe, with a bucket in memory.

use super::canaries::Canaries;
use super::configuration::Configuration;
use super::input::Pace;
use super::node_checks::NodeChecks;
use super::*;
use crate::check::canary::CanaryNames;
use crate::check::fake::{FakeBucket, FakeObjects};
use crate::check::object_lock::object_lock;
use crate::check::versioning::versioning;
use crate::driver::{FactBoard, FactKind, FactRole, SharedFact};
use crate::key_manager::fake::{FakeBarbican, payload};
use crate::model::report::{Finding, LockProofState};
use crate::model::settings::AgentSettings;
use crate::model::{LockMode, LockVerdict, Outcome, Reason, Scope};
use crate::s3::aws::fake_service::{answer, answering};
use crate::s3::{DefaultRetention, ObjectLock, RetentionLength, S3Failure};
use axum::http::StatusCode;
use jiff::Timestamp;
use tokio::net::TcpListener;
use uuid::Uuid;

fn location() -> S3Location {
    S3Location::parse("https://s3.example.com/backups").expect("a location")
}

/// Settings under which every check of a bucket runs.
fn settings() -> AgentSettings {
    let mut settings = AgentSettings::quiet();
    settings.s3_access.clear();
    (settings.s3_canary.enabled, settings.lock_proof.enabled) = (true, true);
    settings.s3_canary.retention = Duration::from_secs(60);
    settings
}

fn session(api: FakeObjects) -> BucketSession<FakeObjects> {
    let names = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
    BucketSession { api, access_key_id: "AKIA".to_owned(), names, clock: ServiceClock::new(Some(0)) }
}

fn configuration(default_retention: Option<DefaultRetention>) -> Configuration {
    let lock = Some(ObjectLock { enabled: Some(true), default_retention });
    Configuration { lock, lock_unknown: None, versioning: Some(Versioning::Enabled), read_at: Timestamp::now() }
}

const PLAN: &[CheckName] = &[CheckName::WriteCanary, CheckName::LockProof];

#[test]
fn reports_page_lists_the_checks_of_a_bucket_in_their_order() {
    let page = include_str!("../../../docs/reports.md");
    let (_, rows) = page.split_once("| **S3** | |\n").expect("the table");
    let (rows, _) = rows.split_once("\n\n").expect("its end");
    let listed: Vec<&str> = rows.lines().map(|row| row.split('`').nth(1).expect("a check")).collect();
    let in_order = |plan: Vec<CheckName>| plan.into_iter().map(CheckName::as_str).collect::<Vec<_>>();
    assert_eq!(listed, in_order(plan(true, true)));
    assert_eq!(in_order(plan(false, false)), listed[..6], "neither the proof nor the mount");
    assert_eq!(in_order(plan(true, false)), listed[..7], "no mount");
    assert_eq!(in_order(plan(false, true)).last(), listed.last(), "no proof");
}

#[tokio::test]
async fn canary_is_due_at_its_interval_on_request_and_after_a_failure() {
    let (location, settings) = (location(), settings());
    let routine = Input::new(&location, &settings, Depth::Routine);
    let mut canaries = Canaries::default();
    let mut written = async |api: FakeObjects, input| {
        let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
        let session = session(api);
        canaries.write_if_due(&session, input, &configuration(None), None, false, &mut log).await;
        (canaries.is_due(routine), canaries.may_have_leaked(), log.finish()[0].outcome)
    };
    let denied = FakeObjects { refuses_put: true, ..FakeObjects::default() };
    assert_eq!(written(denied, routine).await, (true, true, Outcome::Failed));
    assert_eq!(written(FakeObjects::default(), routine).await, (false, false, Outcome::Passed));
    assert_eq!(written(FakeObjects::default(), routine).await, (false, false, Outcome::Skipped));
    let requested = Input { depth: Depth::Full, ..routine };
    assert_eq!(written(FakeObjects::default(), requested).await, (false, false, Outcome::Passed));
}

#[tokio::test]
async fn canary_of_a_bucket_that_another_node_watches_is_due_later() {
    let (location, mut settings) = (location(), settings());
    settings.s3_canary.interval = Duration::ZERO;
    let input = Input::new(&location, &settings, Depth::Routine);
    let watched = Input { pace: Pace::Rare, ..input };
    let mut canaries = Canaries::default();
    let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
    canaries.write_if_due(&session(FakeObjects::default()), watched, &configuration(None), None, false, &mut log).await;
    assert_eq!(log.finish()[0].outcome, Outcome::Passed);
    // As soon as nobody watches the bucket, or reports trouble with it, the canary of this node decides again.
    assert!(!canaries.is_due(watched) && canaries.is_due(input));
}

#[tokio::test]
async fn canary_with_a_warning_is_due_sooner_while_another_node_watches() {
    let (location, mut settings) = (location(), settings());
    settings.s3_canary.interval = Duration::from_mins(5);
    for (pace, refuses_list, due) in [
        (Pace::Full, false, 300),
        (Pace::Full, true, 300),
        (Pace::Tenth, false, 3000),
        (Pace::Tenth, true, 3000),
        (Pace::Rare, false, 86_400),
        (Pace::Rare, true, 3000),
    ] {
        let input = Input { pace, ..Input::new(&location, &settings, Depth::Routine) };
        let mut canaries = Canaries::default();
        let mut write = async || {
            let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
            let session = session(FakeObjects { refuses_list, ..FakeObjects::default() });
            canaries.write_if_due(&session, input, &configuration(None), None, false, &mut log).await;
            log.finish().swap_remove(0)
        };
        let (written, repeated) = (write().await, write().await);
        assert_eq!((written.outcome, repeated.outcome), (Outcome::Passed, Outcome::Skipped), "{pace:?}");
        assert_eq!((written.findings().len(), repeated.findings()), (usize::from(refuses_list), written.findings()));
        let detail = repeated.detail.expect("a detail");
        assert!(detail.ends_with(&format!("the next one is due {due} s after that")), "{pace:?}: {detail}");
    }
}

#[test]
fn intervals_grow_with_the_pace_and_are_never_shorter_than_the_setting() {
    let (location, mut settings) = (location(), settings());
    let minute = Duration::from_secs(60);
    for (set, tenth, rare) in [(5, 50, 1440), (1000, 1440, 1440), (2000, 2000, 2000)] {
        settings.s3_canary.interval = set * minute;
        settings.probe.s3_facts_interval = set * minute;
        let input = Input::new(&location, &settings, Depth::Routine);
        for (pace, expected) in [(Pace::Full, set), (Pace::Tenth, tenth), (Pace::Rare, rare)] {
            let input = Input { pace, ..input };
            assert_eq!(input.canary_interval(&[]), expected * minute, "{pace:?}");
            assert_eq!(input.configuration_interval(), expected * minute, "{pace:?}");
        }
    }
}

#[tokio::test]
async fn locked_canary_is_removed_at_the_end_of_its_retention() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let retention = DefaultRetention { mode: LockMode::Compliance, length: RetentionLength::Days(30) };
    let (mut canaries, session) = (Canaries::default(), session(FakeObjects::default()));
    let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
    canaries.write_if_due(&session, input, &configuration(Some(retention)), None, false, &mut log).await;
    let wait = canaries.removable_at().expect("locked").saturating_duration_since(Instant::now());
    assert!((55..=65).contains(&wait.as_secs()), "{wait:?}");
    let remark =
        canaries.remove_all(&session.api, &session.names, &location, Duration::from_secs(5)).await.expect("swept");
    assert!(remark.is_some_and(|remark| remark.contains("is locked until 2")));
    session.api.clear();
    assert_eq!(canaries.remove_all(&session.api, &session.names, &location, Duration::from_secs(5)).await, Ok(None));
}

#[tokio::test]
async fn locked_canary_is_removed_after_its_retention_when_listing_is_refused() {
    let (location, mut settings) = (location(), settings());
    settings.s3_canary.retention = Duration::ZERO;
    let input = Input::new(&location, &settings, Depth::Routine);
    let retention = DefaultRetention { mode: LockMode::Compliance, length: RetentionLength::Days(30) };
    let api = FakeObjects { refuses_list: true, versioned: true, ..FakeObjects::default() };
    let (mut canaries, session) = (Canaries::default(), session(api));
    for remaining in [1, 0] {
        let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
        canaries.write_if_due(&session, input, &configuration(Some(retention)), None, false, &mut log).await;
        assert_eq!(session.api.keys().len(), remaining, "{:?}", log.finish());
        let wait = canaries.removable_at().map(|at| at.saturating_duration_since(Instant::now()));
        tokio::time::sleep(wait.unwrap_or_default()).await;
    }
}

#[tokio::test]
async fn remembered_canary_is_removed_with_its_target() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let api = FakeObjects { refuses_list: true, ..FakeObjects::default() };
    // One is of the canary, and one of an object that a late PUT may have stored before.
    let failure = S3Failure::service(500, Some("InternalError"), None);
    api.next_deletes.lock().expect("a lock").extend([failure.clone(), failure]);
    let (mut canaries, session) = (Canaries::default(), session(api));
    let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
    canaries.write_if_due(&session, input, &configuration(None), None, false, &mut log).await;
    assert_eq!(session.api.keys().len(), 1);
    let removed = canaries.remove_all(&session.api, &session.names, &location, Duration::from_secs(5)).await;
    assert_eq!((removed, session.api.keys()), (Ok(None), Vec::new()));
}

#[tokio::test]
async fn each_half_of_a_probe_records_only_checks_of_its_scope() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let (session, configuration) = (session(FakeObjects::default()), configuration(None));
    let mut log = CheckLog::new(PLAN, Duration::MAX);
    Canaries::default().write_if_due(&session, input, &configuration, None, false, log.of(Scope::Node)).await;
    let of_node = log.finish();
    let mut facts = TargetFacts::new(Uuid::nil(), true, &Arc::new(Host::without_workers()));
    let mut log = CheckLog::new(PLAN, Duration::MAX);
    let state = facts.prove(&session, input, &configuration, log.of(Scope::Target)).await;
    let of_target = log.finish();
    assert_eq!(state, LockProofState::Pending);
    for (results, scope) in [(of_node, Scope::Node), (of_target, Scope::Target)] {
        for result in results.into_iter().filter(|result| result.outcome != Outcome::Skipped) {
            assert_eq!(result.check.scope(), scope, "{}", result.check);
        }
    }
}

#[tokio::test]
async fn lock_is_not_pending_when_the_bucket_is_known_to_lock_nothing() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let without_lock = Some(ObjectLock { enabled: Some(false), default_retention: None });
    let with = configuration(None);
    for (configuration, expected) in [
        (Configuration { lock: without_lock.clone(), ..with.clone() }, LockProofState::NotAsked),
        (Configuration { lock: without_lock, versioning: None, ..with.clone() }, LockProofState::NotAsked),
        (Configuration { versioning: Some(Versioning::Suspended), ..with.clone() }, LockProofState::NotAsked),
        (Configuration { lock: None, versioning: Some(Versioning::Off), ..with.clone() }, LockProofState::NotAsked),
        // Nothing is proved until the service reports them.
        (Configuration { lock: None, ..with.clone() }, LockProofState::NotAsked),
        (Configuration { versioning: None, ..with }, LockProofState::NotAsked),
    ] {
        let mut facts = TargetFacts::new(Uuid::nil(), true, &Arc::new(Host::without_workers()));
        let mut log = CheckLog::new(PLAN, Duration::MAX);
        let state = facts.prove(&session(FakeObjects::default()), input, &configuration, &mut log).await;
        assert_eq!(state, expected, "{configuration:?}");
    }
}

#[tokio::test]
async fn canary_that_is_locked_for_long_delays_the_next_one() {
    let (location, mut settings) = (location(), settings());
    settings.s3_canary.interval = Duration::ZERO;
    let input = Input::new(&location, &settings, Depth::Routine);
    let mut canaries = Canaries::default();
    let by_default = DefaultRetention { mode: LockMode::Governance, length: RetentionLength::Days(1) };
    let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
    let session = session(FakeObjects::default());
    canaries.write_if_due(&session, input, &configuration(Some(by_default)), None, false, &mut log).await;
    assert_eq!((log.finish()[0].outcome, canaries.is_due(input)), (Outcome::Passed, false));
}

#[tokio::test]
async fn proof_is_due_only_after_a_probe_that_reached_it() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let mut facts = TargetFacts::new(Uuid::nil(), true, &Arc::new(Host::without_workers()));
    let mut log = CheckLog::new(PLAN, Duration::MAX);
    facts.prove(&session(FakeObjects::default()), input, &configuration(None), &mut log).await;
    assert!(facts.proof_due().is_some() && facts.canary_in_use().is_some() && facts.may_have_leaked());
    facts.begin_probe(input);
    assert_eq!(facts.proof_due(), None);
    assert!(facts.canary_in_use().is_some());
}

#[tokio::test]
async fn warnings_of_a_canary_stay_until_the_next_one() {
    let (location, settings) = (location(), settings());
    let input = Input::new(&location, &settings, Depth::Routine);
    let (mut canaries, session) =
        (Canaries::default(), session(FakeObjects { refuses_list: true, ..FakeObjects::default() }));
    for outcome in [Outcome::Passed, Outcome::Skipped, Outcome::Skipped] {
        let mut log = CheckLog::new(&PLAN[..1], Duration::MAX);
        canaries.write_if_due(&session, input, &configuration(None), None, false, &mut log).await;
        let result = log.finish().remove(0);
        assert_eq!((result.outcome, result.findings().len()), (outcome, 1), "{result:?}");
    }
}

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

/// Id of the secret of a target.
const SECRET: Uuid = Uuid::from_u128(7);

/// Checks of a target whose credentials are in a secret.
fn checks_with_secret(location: &S3Location, barbican: &FakeBarbican) -> (NodeChecks, AgentSettings) {
    let host = Arc::new(Host::without_workers());
    let mut settings = settings();
    settings.key_manager = Some(barbican.settings());
    settings.probe.deadline = Duration::from_secs(1);
    (NodeChecks::new(TargetId::new_v4(), location, Some(barbican.reference(SECRET)), &host), settings)
}

#[tokio::test]
async fn outage_of_the_key_manager_is_a_timeout_and_its_refusal_a_failure() {
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let location = format!("http://{}/backups", service.local_addr().expect("an address"));
    let location = S3Location::parse(&location).expect("a location");
    let mut barbican = FakeBarbican::start().await;
    let check = async |barbican: &FakeBarbican| {
        let (mut checks, settings) = checks_with_secret(&location, barbican);
        let mut log = CheckLog::new([CheckName::Reachable, CheckName::Bucket], Duration::MAX);
        checks.reach(Input::new(&location, &settings, Depth::Routine), false, &mut log).await;
        let bucket = log.finish().remove(1);
        (bucket.outcome, bucket.findings()[0].reason)
    };
    for (status, outcome, reason) in [
        (StatusCode::SERVICE_UNAVAILABLE, Outcome::TimedOut, Reason::KeyManagerUnavailable),
        (StatusCode::TOO_MANY_REQUESTS, Outcome::TimedOut, Reason::KeyManagerUnavailable),
        (StatusCode::FOUND, Outcome::Failed, Reason::KeyManagerUnavailable),
        (StatusCode::FORBIDDEN, Outcome::Failed, Reason::SecretForbidden),
        (StatusCode::NOT_FOUND, Outcome::Failed, Reason::SecretNotFound),
    ] {
        barbican.answer_instead(Some((status, "fault")));
        assert_eq!(check(&barbican).await, (outcome, reason), "{status}");
    }
    barbican.answer_instead(None);
    barbican.state.open.send_replace(false);
    assert_eq!(check(&barbican).await, (Outcome::TimedOut, Reason::KeyManagerUnavailable), "no answer");
    barbican.stop().await;
    assert_eq!(check(&barbican).await, (Outcome::TimedOut, Reason::KeyManagerUnavailable), "no connection");
}

#[tokio::test]
async fn canaries_are_removed_only_with_the_credentials_of_the_secret() {
    let barbican = FakeBarbican::start().await;
    barbican.store(SECRET, payload("AKIA", "k"));
    barbican.answer_instead(Some((StatusCode::FORBIDDEN, "fault")));
    let location = S3Location::parse("http://127.0.0.1:1/backups").expect("a location");
    let (mut checks, settings) = checks_with_secret(&location, &barbican);
    let remark = checks.remove_canaries(Input::new(&location, &settings, Depth::Routine)).await.expect("a remark");
    assert!(remark.contains("does not let the agent's user read the secret"), "{remark}");
}

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
