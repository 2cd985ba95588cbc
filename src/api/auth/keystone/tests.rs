//! Validation of tokens: one request for each token at a time, and a Keystone that does not answer.

use std::time::Duration;

use futures::future::join_all;

use super::super::cache::PAUSE;
use super::*;
use crate::keystone::fake::FakeKeystone;

async fn auth(settings: &KeystoneSettings) -> KeystoneAuth {
    KeystoneAuth::load(settings).await.expect("settings")
}

/// Returns the owner of a token. Waits for its validation.
async fn owner(auth: &KeystoneAuth, token: &str) -> Result<Arc<TokenOwner>, Fault> {
    match auth.identify(token)? {
        Identity::Owner(owner) => Ok(owner),
        Identity::Pending(validation) => validated(validation).await,
        Identity::NoToken(_) => panic!("there is a token"),
    }
}

async fn status(auth: &KeystoneAuth, token: &str) -> u16 {
    match owner(auth, token).await {
        Ok(_) => 200,
        Err(fault) => fault.status().as_u16(),
    }
}

/// Advances the clock without waiting.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn concurrent_requests_with_one_token_are_validated_once() {
    let keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p"), &["member"], 3600);
    keystone.state.open.send_replace(false);
    let auth = auth(&keystone.settings()).await;
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let auth = auth.clone();
            tokio::spawn(async move { status(&auth, "t").await })
        })
        .collect();
    while keystone.asked().0 == 0 {
        tokio::task::yield_now().await;
    }
    // The first request is aborted, and the others still get the answer.
    requests[0].abort();
    keystone.state.open.send_replace(true);
    let mut requests = requests.into_iter();
    let first = requests.next().expect("a hundred").await;
    assert!(first.expect_err("aborted").is_cancelled());
    let answers = join_all(requests).await;
    assert!(answers.into_iter().all(|answer| answer.expect("an answer") == 200));
    assert_eq!(keystone.asked(), (1, 1));
    assert_eq!(auth.shared.cache().sizes(), (1, 0, 0));
}

#[tokio::test]
async fn ten_thousand_invalid_tokens_are_bounded_and_evict_no_valid_token() {
    let keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p"), &["member"], 3600);
    let settings = KeystoneSettings { cache_entries: 100, ..keystone.settings() };
    let auth = auth(&settings).await;
    assert_eq!(status(&auth, "t").await, 200);
    for batch in 0..100 {
        let tokens: Vec<String> = (0..100).map(|number| format!("garbage-{batch}-{number}")).collect();
        let answers = join_all(tokens.iter().map(|token| status(&auth, token))).await;
        assert!(answers.into_iter().all(|answer| answer == 401));
    }
    assert_eq!(keystone.asked().0, 10_001);
    assert_eq!(auth.shared.cache().sizes(), (1, 100, 0));
    keystone.revoke("t");
    assert_eq!(status(&auth, "t").await, 200, "it is cached");
    assert_eq!(status(&auth, "garbage-99-99").await, 401);
    assert_eq!(keystone.asked().0, 10_001, "both are cached");
}

#[tokio::test]
async fn cached_tokens_are_accepted_and_others_get_503_while_keystone_is_down() {
    let mut keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p"), &["member"], 3600);
    keystone.add("other", Some("p"), &["member"], 3600);
    let auth = auth(&keystone.settings()).await;
    assert_eq!((status(&auth, "t").await, status(&auth, "bad").await), (200, 401));
    keystone.stop().await;
    assert_eq!((status(&auth, "t").await, status(&auth, "bad").await), (200, 401));
    assert_eq!(status(&auth, "other").await, 503);
    auth.reload().await.expect("a reload needs no Keystone");
    assert_eq!(status(&auth, "t").await, 200);
    keystone.start_again().await;
    pass(PAUSE).await;
    assert_eq!(status(&auth, "other").await, 200);
}

#[tokio::test]
async fn request_waits_for_a_silent_keystone_no_longer_than_configured() {
    let keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p"), &["member"], 3600);
    keystone.state.open.send_replace(false);
    let settings = KeystoneSettings { timeout: Duration::from_millis(50), validations: 1, ..keystone.settings() };
    let auth = auth(&settings).await;
    let since = std::time::Instant::now();
    let answers = join_all((0..20).map(|number| {
        let auth = auth.clone();
        async move { status(&auth, &format!("t{number}")).await }
    }));
    assert!(answers.await.into_iter().all(|answer| answer == 503));
    assert!(since.elapsed() < Duration::from_secs(5), "they waited for each other: {:?}", since.elapsed());
    assert_eq!(auth.shared.cache().sizes(), (0, 0, 0));
    keystone.state.open.send_replace(true);
    pass(PAUSE).await;
    assert_eq!(status(&auth, "t").await, 200, "the timeout is not cached");
}

#[tokio::test]
async fn cached_token_ends_at_its_expiry_and_at_the_cache_time() {
    let keystone = FakeKeystone::start().await;
    keystone.add("ended", Some("p"), &["member"], -1);
    keystone.add("short", Some("p"), &["member"], 60);
    keystone.add("long", Some("p"), &["member"], 3600);
    let auth = auth(&keystone.settings()).await;
    assert_eq!(status(&auth, "ended").await, 401);
    assert_eq!(status(&auth, "short").await, 200);
    assert_eq!(status(&auth, "long").await, 200);
    keystone.revoke("short");
    keystone.revoke("long");
    // A test cannot advance the host's clock, which decides about the expiry.
    let now = Timestamp::now();
    let hash = TokenHash::of("short");
    let expires_at = auth.shared.cache().replace_expiry(hash, now).expect("a cached token");
    let life = expires_at.duration_since(now).as_secs();
    assert!((1..60).contains(&life), "Keystone's expiry is cached, {life} s from now");
    assert_eq!(status(&auth, "short").await, 401, "it expired");
    assert_eq!(status(&auth, "long").await, 200, "it is cached");
    pass(Duration::from_secs(301)).await;
    assert_eq!(status(&auth, "long").await, 401, "its cache time is over");
}

#[tokio::test]
async fn token_in_use_is_revalidated_before_its_cache_time_ends() {
    let keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p"), &["member"], 3600);
    let auth = auth(&keystone.settings()).await;
    assert_eq!(status(&auth, "t").await, 200);
    pass(Duration::from_secs(250)).await;
    keystone.revoke("t");
    assert_eq!(status(&auth, "t").await, 200, "the request does not wait for the revalidation");
    while auth.shared.cache().sizes().2 > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&auth, "t").await, 401);
    assert_eq!(keystone.asked().0, 2);
}

#[tokio::test]
async fn admin_role_counts_in_a_project_or_the_system() {
    let keystone = FakeKeystone::start().await;
    keystone.add("admin", Some("p"), &["reader", "Admin"], 3600);
    keystone.add("member", Some("p"), &["member", "administrator"], 3600);
    keystone.add("nowhere", None, &["admin"], 3600);
    keystone.add_system("system", &["admin"]);
    keystone.add_system("system reader", &["reader"]);
    let auth = auth(&keystone.settings()).await;
    for (token, is_admin, project) in [
        ("admin", true, Some("p")),
        ("member", false, Some("p")),
        ("nowhere", false, None),
        ("system", true, None),
        ("system reader", false, None),
    ] {
        let owner = owner(&auth, token).await.expect(token);
        assert_eq!(owner.caller.is_admin, is_admin, "{token}");
        assert_eq!(owner.caller.project_id.as_deref(), project, "{token}");
        assert_eq!(owner.caller.user_id, Some(format!("user of {token}")));
    }
}

/// Lets spawned tasks run until the condition holds.
async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn flood_of_unknown_tokens_delays_no_cached_token() {
    let keystone = FakeKeystone::start().await;
    for token in ["polled", "seldom"] {
        keystone.add(token, Some("p"), &["member"], 3600);
    }
    let auth = auth(&KeystoneSettings { validations: 2, ..keystone.settings() }).await;
    assert_eq!((status(&auth, "polled").await, status(&auth, "seldom").await), (200, 200));
    pass(Duration::from_secs(250)).await;
    assert_eq!(status(&auth, "polled").await, 200);
    until(|| auth.shared.cache().sizes().2 == 0).await;
    pass(Duration::from_secs(245)).await;
    keystone.hold("garbage");
    let flood: Vec<_> = (0..400)
        .map(|number| {
            let auth = auth.clone();
            tokio::spawn(async move { owner(&auth, &format!("garbage-{number}")).await.expect_err("bad").to_string() })
        })
        .collect();
    until(|| keystone.asked().0 == 5).await;
    let soon = Duration::from_secs(2);
    // Its cache time is over. Its revalidation does not queue behind the unknown tokens.
    let seldom = tokio::time::timeout(soon, status(&auth, "seldom")).await;
    assert_eq!(seldom.expect("not behind the flood"), 200);
    keystone.revoke("polled");
    assert_eq!(status(&auth, "polled").await, 200, "the request does not wait for the revalidation");
    let answered = until(|| auth.shared.cache().sizes().0 == 1);
    tokio::time::timeout(soon, answered).await.expect("revalidated during the flood");
    assert_eq!(keystone.asked().0, 7, "no more of the flood than the permits allow");
    pass(PERMIT_TIMEOUT).await;
    let (asking, waiting): (Vec<_>, Vec<_>) = flood.into_iter().enumerate().partition(|(number, _)| *number < 2);
    for (number, answer) in waiting {
        let answer = answer.await.expect("an answer");
        assert!(answer.contains("too many unknown tokens"), "{number}: {answer}");
    }
    for (number, answer) in asking {
        assert!(!answer.is_finished(), "Keystone may still answer for {number}");
    }
}

#[tokio::test]
async fn request_does_not_wait_for_keystone_that_just_failed() {
    let keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p"), &["member"], 3600);
    let auth = auth(&keystone.settings()).await;
    assert_eq!(status(&auth, "t").await, 200);
    keystone.answer_instead(Some((StatusCode::BAD_GATEWAY, serde_json::json!({}))));
    assert_eq!(status(&auth, "new").await, 503);
    let asked = keystone.asked().0;
    pass(Duration::from_secs(250) - PAUSE).await;
    assert_eq!(status(&auth, "new").await, 503);
    assert_eq!(keystone.asked().0, asked + 1, "the pause was over");
    for _ in 0..10 {
        assert_eq!((status(&auth, "other").await, status(&auth, "t").await), (503, 200));
    }
    until(|| auth.shared.cache().sizes().2 == 0).await;
    assert_eq!(keystone.asked().0, asked + 1, "neither a validation nor a revalidation");
    pass(PAUSE).await;
    assert_eq!(status(&auth, "t").await, 200);
    until(|| auth.shared.cache().sizes().2 == 0).await;
    assert_eq!(keystone.asked().0, asked + 2, "one revalidation");
    auth.reload().await.expect("the same settings");
    for _ in 0..10 {
        assert_eq!(status(&auth, "t").await, 200);
    }
    until(|| auth.shared.cache().sizes().2 == 0).await;
    assert_eq!(keystone.asked().0, asked + 2, "a reload does not end the pause of one token");
}

#[tokio::test]
async fn refusal_of_one_token_delays_no_other() {
    let keystone = FakeKeystone::start().await;
    let auth = auth(&keystone.settings()).await;
    for answer in [StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR] {
        keystone.answer_instead(Some((answer, serde_json::json!({}))));
        assert_eq!(status(&auth, "odd").await, 503);
        keystone.answer_instead(None);
        assert_eq!(status(&auth, &format!("after {answer}")).await, 401);
    }
}

#[tokio::test]
async fn token_too_long_for_keystone_is_not_sent() {
    let keystone = FakeKeystone::start().await;
    let auth = auth(&keystone.settings()).await;
    assert_eq!(status(&auth, &"x".repeat(TOKEN_SENT_MAX_BYTES + 1)).await, 401);
    assert_eq!(keystone.asked(), (0, 0));
    assert_eq!(status(&auth, &"x".repeat(TOKEN_SENT_MAX_BYTES)).await, 401);
    assert_eq!(keystone.asked(), (1, 1));
}
