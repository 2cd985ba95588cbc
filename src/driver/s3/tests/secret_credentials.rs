//! Tests of targets whose credentials are in a secret of a key manager.

use super::*;
use crate::driver::s3::node_checks::NodeChecks;
use crate::key_manager::fake::{FakeBarbican, payload};
use crate::model::Reason;
use axum::http::StatusCode;
use tokio::net::TcpListener;

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
