//! Tests of both halves of a probe, with a bucket in memory.

mod fleet;
mod secret_credentials;
mod unknown_configuration;

use super::canaries::Canaries;
use super::configuration::Configuration;
use super::input::Pace;
use super::*;
use crate::check::canary::CanaryNames;
use crate::check::fake::FakeObjects;
use crate::check::versioning::versioning;
use crate::model::report::LockProofState;
use crate::model::settings::AgentSettings;
use crate::model::{LockMode, Outcome, Scope};
use crate::s3::{DefaultRetention, ObjectLock, RetentionLength, S3Failure};
use jiff::Timestamp;
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
