//! Reading of secrets: cache, faults of the key manager, and the address of secrets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures::future::join_all;
use secrecy::ExposeSecret;
use serde_json::json;
use uuid::Uuid;

use super::fake::{FakeBarbican, payload};
use super::{FoundSecret, Freshness, KeyManager, KeyManagerError, PAYLOAD_MAX_BYTES};
use crate::model::Reason;
use crate::model::secret_ref::SecretRef;
use crate::model::settings::KeyManagerSettings;

const ID: Uuid = Uuid::from_u128(7);
const DEADLINE: Duration = Duration::from_secs(5);

/// Text that must appear in no error.
const CANARY: &str = "unmistakableSecretText";

async fn read(
    manager: &KeyManager,
    settings: &KeyManagerSettings,
    reference: &SecretRef,
) -> Result<FoundSecret, KeyManagerError> {
    manager.secret(settings, reference, Freshness::Cached, DEADLINE).await
}

fn key(found: &Result<FoundSecret, KeyManagerError>) -> &str {
    found.as_ref().expect("a secret").secret.secret_key().expose_secret()
}

fn warning(found: &Result<FoundSecret, KeyManagerError>) -> Option<Reason> {
    found.as_ref().expect("a secret").failure.as_ref().map(KeyManagerError::reason)
}

async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Waits until a number of requests have arrived.
async fn arrived(barbican: &FakeBarbican, count: usize) {
    let began = Instant::now();
    while barbican.requests() < count {
        assert!(began.elapsed() < DEADLINE, "{} requests", barbican.requests());
        tokio::task::yield_now().await;
    }
}

/// Reads until the condition holds.
async fn until(
    manager: &KeyManager,
    settings: &KeyManagerSettings,
    reference: &SecretRef,
    is_reached: impl Fn(&Result<FoundSecret, KeyManagerError>) -> bool,
) -> Result<FoundSecret, KeyManagerError> {
    let began = Instant::now();
    loop {
        let found = read(manager, settings, reference).await;
        if is_reached(&found) {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "{found:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn secret_is_read_once_and_refreshed_in_the_background() {
    let barbican = FakeBarbican::start().await;
    barbican.store(ID, payload("a", "old"));
    let (manager, settings, reference) = (KeyManager::default(), barbican.settings(), barbican.reference(ID));
    for _ in 0..3 {
        let found = read(&manager, &settings, &reference).await;
        assert_eq!((key(&found), warning(&found)), ("old", None));
    }
    assert_eq!((barbican.requests(), barbican.keystone.asked().1), (1, 1));

    barbican.store(ID, payload("a", "new"));
    advance(settings.refresh_interval).await;
    barbican.state.open.send_replace(false);
    assert_eq!(key(&read(&manager, &settings, &reference).await), "old", "a refresh delays nobody");
    arrived(&barbican, 2).await;
    barbican.state.open.send_replace(true);
    until(&manager, &settings, &reference, |found| key(found) == "new").await.expect("the new secret");
    assert_eq!(barbican.requests(), 2);
    assert_eq!(manager.requests().all(), [("2xx", 2)]);
}

#[tokio::test]
async fn targets_with_one_secret_share_one_request() {
    let barbican = FakeBarbican::start().await;
    barbican.store(ID, payload("a", "k"));
    let (manager, settings, reference) = (KeyManager::default(), barbican.settings(), barbican.reference(ID));
    let all = join_all((0..1000).map(|_| read(&manager, &settings, &reference))).await;
    assert!(all.iter().all(|found| key(found) == "k"));
    assert_eq!((barbican.requests(), barbican.keystone.asked().1), (1, 1));

    // Every target sees the refusal of the same credentials.
    barbican.store(ID, payload("a", "rotated"));
    for found in &all {
        manager.refused(&settings, &reference, &found.as_ref().expect("a secret").secret);
    }
    let again = join_all((0..1000).map(|_| read(&manager, &settings, &reference))).await;
    assert!(again.iter().all(|found| key(found) == "rotated"));
    // A late refusal of the old credentials does not concern the new ones.
    manager.refused(&settings, &reference, &all[0].as_ref().expect("a secret").secret);
    read(&manager, &settings, &reference).await.expect("a secret");
    assert_eq!(barbican.requests(), 2);
}

#[tokio::test]
async fn many_secrets_are_read_with_few_requests_at_a_time() {
    let barbican = FakeBarbican::start().await;
    let references: Vec<_> = (0..200).map(Uuid::from_u128).collect();
    references.iter().for_each(|id| barbican.store(*id, payload("a", "k")));
    let references: Vec<_> = references.iter().map(|id| barbican.reference(*id)).collect();
    barbican.state.open.send_replace(false);
    let (manager, settings) = (KeyManager::default(), barbican.settings());
    let reading = join_all(references.iter().map(|reference| read(&manager, &settings, reference)));
    let (all, ()) = tokio::join!(reading, async {
        arrived(&barbican, 16).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(barbican.requests(), 16);
        barbican.state.open.send_replace(true);
    });
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(barbican.requests(), 200);
}

#[tokio::test]
async fn time_in_the_queue_does_not_count_as_time_of_the_key_manager() {
    let barbican = FakeBarbican::start().await;
    let references: Vec<_> = (0..17).map(Uuid::from_u128).collect();
    references.iter().for_each(|id| barbican.store(*id, payload("a", "k")));
    let references: Vec<_> = references.iter().map(|id| barbican.reference(*id)).collect();
    barbican.state.open.send_replace(false);
    barbican.state.held.send_replace(Some(Uuid::from_u128(16)));
    let (manager, settings) = (KeyManager::default(), barbican.settings());
    let most = settings.timeout * 3 / 4;
    let reading = references
        .iter()
        .map(|reference| manager.secret(&settings, reference, Freshness::Cached, Duration::from_secs(3600)));
    let (all, ()) = tokio::join!(join_all(reading), async {
        arrived(&barbican, 16).await;
        advance(most).await;
        barbican.state.open.send_replace(true);
        arrived(&barbican, 17).await;
        advance(most).await;
        barbican.state.held.send_replace(None);
    });
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn backoff_towards_a_failing_key_manager_grows_until_it_answers() {
    let barbican = FakeBarbican::start().await;
    barbican.store(ID, payload("a", "k"));
    let (manager, settings, reference) = (KeyManager::default(), barbican.settings(), barbican.reference(ID));
    barbican.answer_instead(Some((StatusCode::SERVICE_UNAVAILABLE, "fault")));
    for _ in 0..300 {
        let error = read(&manager, &settings, &reference).await.expect_err("no secret");
        assert!(error.is_outage() && error.to_string().contains("503"), "{error}");
        advance(Duration::from_secs(1)).await;
    }
    // After waits of up to 1, 2, 4, … 60 s, and of at least half of that.
    assert!((8..=19).contains(&barbican.requests()), "{} requests", barbican.requests());

    // A requested check need not wait.
    let before = barbican.requests();
    let error = manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await.expect_err("no secret");
    assert_eq!((error.is_outage(), barbican.requests()), (true, before + 1));

    barbican.answer_instead(None);
    advance(Duration::from_secs(60)).await;
    read(&manager, &settings, &reference).await.expect("a secret");
    // The next outage begins with the shortest wait.
    barbican.answer_instead(Some((StatusCode::SERVICE_UNAVAILABLE, "fault")));
    let before = barbican.requests();
    for _ in 0..2 {
        let found = manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await;
        assert_eq!(warning(&found), Some(Reason::KeyManagerUnavailable));
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(barbican.requests(), before + 2);
}

#[tokio::test]
async fn secrets_do_not_each_wait_for_a_hanging_key_manager() {
    let barbican = FakeBarbican::start().await;
    let known = barbican.reference(ID);
    barbican.store(ID, payload("a", "k"));
    let references: Vec<_> = (100..300).map(|number| barbican.reference(Uuid::from_u128(number))).collect();
    let settings = KeyManagerSettings { timeout: Duration::from_millis(100), ..barbican.settings() };
    let manager = KeyManager::default();
    read(&manager, &settings, &known).await.expect("a secret");
    barbican.state.open.send_replace(false);
    let round = async || {
        let all = join_all(references.iter().map(|reference| read(&manager, &settings, reference))).await;
        assert!(all.iter().all(|found| found.as_ref().is_err_and(KeyManagerError::is_outage)), "{all:?}");
        barbican.requests()
    };
    // The requests in the queue end with those that are sent.
    assert_eq!(round().await, 1 + 16);
    // Then one request at a time is tried.
    advance(Duration::from_secs(1)).await;
    assert_eq!(round().await, 1 + 16 + 1);
    // Cached credentials stay in use, with a warning.
    advance(settings.refresh_interval).await;
    round().await;
    let found = read(&manager, &settings, &known).await;
    assert_eq!((key(&found), warning(&found)), ("k", Some(Reason::KeyManagerUnavailable)));

    barbican.state.open.send_replace(true);
    advance(Duration::from_secs(60)).await;
    until(&manager, &settings, &known, |found| warning(found).is_none()).await.expect("recovered");
}

#[tokio::test]
async fn secret_that_breaks_the_key_manager_does_not_delay_others() {
    let barbican = FakeBarbican::start().await;
    let broken = barbican.reference(Uuid::from_u128(1));
    let (manager, settings) = (KeyManager::default(), barbican.settings());
    for number in 10..20 {
        barbican.answer_instead(Some((StatusCode::INTERNAL_SERVER_ERROR, "fault")));
        read(&manager, &settings, &broken).await.expect_err("broken");
        barbican.answer_instead(None);
        barbican.store(Uuid::from_u128(number), payload("a", "k"));
        let reference = barbican.reference(Uuid::from_u128(number));
        read(&manager, &settings, &reference).await.expect("a secret");
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(barbican.requests(), 20);
}

#[tokio::test]
async fn answer_of_the_key_manager_becomes_a_reason() {
    let barbican = FakeBarbican::start().await;
    let other = FakeBarbican::start().await;
    let reference = barbican.reference(ID);
    let (too_large, missing, redirect) =
        ("x".repeat(PAYLOAD_MAX_BYTES + 1), json!({ "access_key": CANARY }).to_string(), other.reference(ID));
    let mut truncated = payload("a", "k");
    truncated["vault_s3_ssl_cert"] = format!("-----BEGIN CERTIFICATE-----\n{CANARY}\n").into();
    let truncated = truncated.to_string();
    for (status, body, reason, words) in [
        (StatusCode::NOT_FOUND, "fault", Reason::SecretNotFound, "no such secret"),
        (StatusCode::NOT_FOUND, CANARY, Reason::KeyManagerUnavailable, "404"),
        (StatusCode::FORBIDDEN, "fault", Reason::SecretForbidden, "acl user add"),
        (StatusCode::OK, CANARY, Reason::SecretMalformed, "not a JSON object"),
        (StatusCode::OK, &missing, Reason::SecretMalformed, "secret_key is missing"),
        (StatusCode::OK, &truncated, Reason::SecretMalformed, "vault_s3_ssl_cert is not usable"),
        (StatusCode::OK, &too_large, Reason::SecretMalformed, "24576 bytes"),
        (StatusCode::NOT_ACCEPTABLE, "fault", Reason::SecretMalformed, "octet-stream"),
        (StatusCode::FOUND, redirect.as_str(), Reason::KeyManagerUnavailable, "not followed"),
        (StatusCode::TEMPORARY_REDIRECT, redirect.as_str(), Reason::KeyManagerUnavailable, "not followed"),
        (StatusCode::SERVICE_UNAVAILABLE, CANARY, Reason::KeyManagerUnavailable, "503"),
        (StatusCode::TOO_MANY_REQUESTS, "fault", Reason::KeyManagerUnavailable, "429"),
        (StatusCode::UNAUTHORIZED, "fault", Reason::KeyManagerUnavailable, "not even a new one"),
    ] {
        barbican.answer_instead(Some((status, body)));
        let manager = KeyManager::default();
        let error = read(&manager, &barbican.settings(), &reference).await.expect_err(words);
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(words) && !error.to_string().contains(CANARY), "{error}");

        // With good credentials, each of them is a warning.
        barbican.answer_instead(None);
        barbican.store(ID, payload("a", "good"));
        let manager = KeyManager::default();
        read(&manager, &barbican.settings(), &reference).await.expect("a secret");
        barbican.answer_instead(Some((status, body)));
        let found = manager.secret(&barbican.settings(), &reference, Freshness::Now, DEADLINE).await;
        assert_eq!((key(&found), warning(&found)), ("good", Some(reason)));
        barbican.answer_instead(None);
        advance(Duration::from_secs(1)).await;
        until(&manager, &barbican.settings(), &reference, |found| warning(found).is_none()).await.expect("recovered");
    }
    assert_eq!(other.requests(), 0, "a redirect was followed");
}

#[tokio::test]
async fn refused_token_is_renewed_once() {
    let barbican = FakeBarbican::start().await;
    barbican.store(ID, payload("a", "k"));
    let (manager, settings, reference) = (KeyManager::default(), barbican.settings(), barbican.reference(ID));
    read(&manager, &settings, &reference).await.expect("a secret");
    barbican.keystone.revoke_own();
    let found = manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await;
    assert_eq!((warning(&found), barbican.keystone.asked().1, barbican.requests()), (None, 2, 3));

    barbican.answer_instead(Some((StatusCode::UNAUTHORIZED, "fault")));
    let found = manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await;
    assert_eq!(warning(&found), Some(Reason::KeyManagerUnavailable));
    assert_eq!((barbican.keystone.asked().1, barbican.requests()), (3, 5));
    // Keystone issued the tokens, so no login has failed: the next read logs in once more.
    for number in 1..=3 {
        advance(Duration::from_secs(60)).await;
        let found =
            manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await.expect("the last good secret");
        let failure = found.failure.expect("a warning").to_string();
        assert!(failure.contains(&barbican.url()) && failure.contains("[keystone_authtoken]"), "{failure}");
        assert_eq!((barbican.keystone.asked().1, barbican.requests()), (3 + number, 5 + 2 * number));
    }
    barbican.answer_instead(None);
    advance(Duration::from_secs(60)).await;
    let found = manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await;
    assert_eq!((warning(&found), barbican.keystone.asked().1), (None, 6));
}

#[tokio::test]
async fn hanging_key_manager_delays_a_probe_only_until_its_deadline() {
    let barbican = FakeBarbican::start().await;
    barbican.store(ID, payload("a", "k"));
    let (manager, settings, reference) = (KeyManager::default(), barbican.settings(), barbican.reference(ID));
    barbican.state.open.send_replace(false);
    let short = Duration::from_millis(50);
    let error = manager.secret(&settings, &reference, Freshness::Cached, short).await.expect_err("no answer");
    assert_eq!(error.reason(), Reason::KeyManagerUnavailable);
    assert!(error.to_string().contains("50 ms"), "{error}");
    // The request continues, and the next probe has its result.
    barbican.state.open.send_replace(true);
    assert_eq!(key(&read(&manager, &settings, &reference).await), "k");
    assert_eq!(barbican.requests(), 1);

    barbican.state.open.send_replace(false);
    let found = manager.secret(&settings, &reference, Freshness::Now, short).await;
    assert_eq!((key(&found), warning(&found)), ("k", Some(Reason::KeyManagerUnavailable)));
    // It ends by itself.
    arrived(&barbican, 2).await;
    advance(settings.timeout + Duration::from_secs(1)).await;
    until(&manager, &settings, &reference, |found| warning(found).is_some()).await.expect("the last good secret");
}

#[tokio::test]
async fn last_good_secret_outlives_an_outage_and_a_reload() {
    let mut barbican = FakeBarbican::start().await;
    barbican.store(ID, payload("a", "k"));
    let (manager, mut settings, reference) = (KeyManager::default(), barbican.settings(), barbican.reference(ID));
    read(&manager, &settings, &reference).await.expect("a secret");
    barbican.stop().await;
    barbican.keystone.stop().await;
    let found = manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await;
    assert_eq!((key(&found), warning(&found)), ("k", Some(Reason::KeyManagerUnavailable)));
    settings.refresh_interval = Duration::from_secs(60);
    assert_eq!(key(&read(&manager, &settings, &reference).await), "k");
    // Another user may not be permitted to read it.
    settings.keystone.url += "/other";
    read(&manager, &settings, &reference).await.expect_err("read with another Keystone");
}

#[tokio::test]
async fn failed_request_is_not_repeated_at_once() {
    let barbican = FakeBarbican::start().await;
    let (manager, settings, reference) = (KeyManager::default(), barbican.settings(), barbican.reference(ID));
    for _ in 0..5 {
        let error = read(&manager, &settings, &reference).await.expect_err("no secret");
        assert_eq!(error.reason(), Reason::SecretNotFound);
    }
    assert_eq!(barbican.requests(), 1);
    barbican.store(ID, payload("a", "k"));
    advance(Duration::from_secs(1)).await;
    read(&manager, &settings, &reference).await.expect("a secret");
    barbican.delete(ID);
    let found = manager.secret(&settings, &reference, Freshness::Now, DEADLINE).await;
    assert_eq!((key(&found), warning(&found)), ("k", Some(Reason::SecretNotFound)));
}

#[tokio::test]
async fn nothing_is_sent_for_a_reference_to_another_host() {
    let (barbican, other) = (FakeBarbican::start().await, FakeBarbican::start().await);
    other.store(ID, payload("a", "k"));
    let (manager, settings) = (KeyManager::default(), barbican.settings());
    let error = read(&manager, &settings, &other.reference(ID)).await.expect_err("another key manager");
    assert_eq!(error.reason(), Reason::SecretNotFound);
    assert!(error.to_string().contains(&barbican.url()), "{error}");
    assert_eq!((barbican.requests(), other.requests(), barbican.keystone.asked().1), (0, 0, 0));
}

#[tokio::test]
async fn address_comes_from_the_catalog_of_the_region_and_interface() {
    let (barbican, other) = (FakeBarbican::start().await, FakeBarbican::start().await);
    barbican.store(ID, payload("a", "k"));
    let endpoint = |region: &str, interface: &str, url: &str| json!({ "id": "e", "region_id": region, "region": region, "interface": interface, "url": url });
    let endpoints = [
        endpoint("one", "public", &other.url()),
        endpoint("two", "public", "https://barbican.example.com/key-manager/"),
        endpoint("two", "internal", &format!("{}/v1/", barbican.url())),
    ];
    barbican.keystone.set_catalog(json!([
        { "id": "i", "type": "identity", "endpoints": [endpoint("two", "internal", &other.url())] },
        { "id": "k", "type": "key-manager", "name": "barbican", "endpoints": endpoints },
    ]));
    let catalog = KeyManagerSettings {
        endpoint: None,
        interface: "internal".to_owned(),
        region: Some("two".to_owned()),
        ..barbican.settings()
    };
    // A reference may have any interface of the region.
    let public = SecretRef::parse(&format!("https://barbican.example.com/key-manager/v1/secrets/{ID}")).expect("valid");
    for reference in [barbican.reference(ID), public] {
        assert_eq!(key(&read(&KeyManager::default(), &catalog, &reference).await), "k");
    }
    let error = read(&KeyManager::default(), &catalog, &other.reference(ID)).await.expect_err("another region");
    assert_eq!(error.reason(), Reason::SecretNotFound);
    let without_region = KeyManagerSettings { region: None, ..catalog.clone() };
    assert_eq!(key(&read(&KeyManager::default(), &without_region, &barbican.reference(ID)).await), "k");
    let admin = KeyManagerSettings { interface: "admin".to_owned(), ..catalog };
    let error = read(&KeyManager::default(), &admin, &barbican.reference(ID)).await.expect_err("no endpoint");
    assert_eq!(error.reason(), Reason::KeyManagerUnavailable);
    assert_eq!(other.requests(), 0);
}

#[tokio::test]
async fn wrong_password_makes_the_key_manager_unavailable() {
    let barbican = FakeBarbican::start().await;
    barbican.keystone.write_password("wrong");
    let manager = Arc::new(KeyManager::default());
    let error = read(&manager, &barbican.settings(), &barbican.reference(ID)).await.expect_err("no login");
    assert_eq!(error.reason(), Reason::KeyManagerUnavailable);
    assert!(error.to_string().contains("does not accept the login"), "{error}");
    assert_eq!(barbican.requests(), 0);
}

#[tokio::test]
async fn number_of_cached_secrets_is_bounded() {
    let mut barbican = FakeBarbican::start().await;
    // Its backoff answers most of the requests.
    barbican.stop().await;
    let (manager, settings) = (KeyManager::default(), barbican.settings());
    for number in 0..=u128::try_from(super::SECRETS_MAX).expect("small") {
        let reference = barbican.reference(Uuid::from_u128(number));
        let now = Duration::ZERO;
        manager.secret(&settings, &reference, Freshness::Cached, now).await.expect_err("nothing yet");
    }
    assert_eq!(manager.cached(), super::SECRETS_MAX);
}
