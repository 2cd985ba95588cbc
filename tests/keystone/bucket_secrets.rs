//! Credentials of buckets from the secrets of a real Barbican.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::barbican::Barbican;
use crate::daemon::{Daemon, eventually};
use crate::peer::Keystone;
use crate::report::{assert_contains, assert_healthy, assert_offline, assert_warning};
use crate::storage::{s3, s3_target};
use crate::support::s3_server::S3Server;
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace};

const LOGIN: &str = "POST /v3/auth/tokens";

/// The payload that Trilio stores.
fn payload(secret_key: &str) -> Value {
    json!({
        "access_key": ACCESS_KEY_ID, "secret_key": secret_key, "vault_s3_region_name": "us-east-1",
        "vault_s3_endpoint_url": "", "vault_s3_bucket": "", "vault_s3_ssl": false, "vault_s3_ssl_verify": false,
        "vault_s3_ssl_cert": "", "vault_s3_signature_version": "default", "vault_s3_auth_version": "DEFAULT",
        "bucket_object_lock": false,
    })
}

fn target(s3: &S3Server, bucket: &str, reference: &str) -> Value {
    let mut target = s3_target(s3, bucket);
    target["secret_ref"] = json!(reference);
    target
}

#[tokio::test]
async fn bucket_credentials_are_read_from_barbican() {
    let (keystone, s3) = (Keystone::start().await, s3().await);
    let barbican = Barbican::start(&keystone).await;
    let text = payload(SECRET_ACCESS_KEY).to_string();
    let mut missing = payload(SECRET_ACCESS_KEY);
    missing.as_object_mut().expect("an object").remove("access_key");
    let mut other = payload(SECRET_ACCESS_KEY);
    other["vault_s3_bucket"] = json!("another");
    let forbidden = barbican.store(&text).await;
    barbican.permit(&forbidden, false).await;

    let daemon = Daemon::start_logging(&barbican.workspace(&keystone, ""), "trace").await;
    let stored = barbican.store(&text).await;
    let in_project = barbican.store_in_project_of_agent(&keystone, &text).await;
    for (bucket, reference) in [("plain", &stored), ("versioned", &in_project)] {
        let id = daemon.create(target(&s3, bucket, reference)).await;
        assert_healthy(&daemon.check(&id).await);
    }
    let (answered, unknown) = (s3.requests().len(), barbican.unknown_reference());
    for (reference, reason, words) in [
        (&forbidden, "secret_forbidden", "acl user add"),
        (&unknown, "secret_not_found", "no such secret"),
        (&barbican.store_nothing().await, "secret_not_found", "no payload"),
        (&barbican.store("not JSON").await, "secret_malformed", "not a JSON object"),
        (&barbican.store(&missing.to_string()).await, "secret_malformed", "access_key is missing"),
        (&barbican.store(&other.to_string()).await, "secret_malformed", "vault_s3_bucket is \"another\""),
        (&reference_of_another_port(&stored), "secret_not_found", "not a secret of the configured key manager"),
    ] {
        let id = daemon.create(target(&s3, "measured", reference)).await;
        assert_contains(&assert_offline(&daemon.check(&id).await, reason), &[words]);
        daemon.delete(&id).await;
    }
    let more = &s3.requests()[answered..];
    assert!(!more.iter().any(|request| request.contains("measured")), "requests without credentials: {more:?}");
    let shown = format!("{} {}", daemon.get("/backup_targets/detail").await, daemon.log());
    assert!(shown.contains("TRACE") && !shown.contains(SECRET_ACCESS_KEY), "a secret is shown");
    assert!(!shown.contains(ACCESS_KEY_ID), "an access key is shown");

    // With its address in the configuration, another interface of the catalog is not needed.
    let endpoint = stored.split("/v1/").next().expect("an address");
    let workspace = barbican.workspace(&keystone, &format!("endpoint = {endpoint:?}\ninterface = \"admin\""));
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(target(&s3, "plain", &stored)).await;
    assert_healthy(&daemon.check(&id).await);
    doctor_finds(&workspace, "passed").await;
    barbican.control("halt");
    doctor_finds(&workspace, "failed").await;
}

/// Asserts what `targetwatch doctor` finds about the key manager. Keystone is up.
async fn doctor_finds(workspace: &Workspace, expected: &str) {
    let output = workspace.run(&["doctor", "--json", "--config", workspace.config().to_str().expect("text")]).await;
    let checks = output.json()["checks"].take();
    for (name, expected) in [("keystone", "passed"), ("key_manager", expected)] {
        let check = checks.as_array().expect("a list").iter().find(|check| check["name"] == name).expect(name);
        assert_eq!(check["outcome"], expected, "{checks:#}");
    }
}

fn reference_of_another_port(reference: &str) -> String {
    let (_, id) = reference.rsplit_once('/').expect("an id");
    format!("http://127.0.0.1:1/v1/secrets/{id}")
}

#[tokio::test]
async fn rotated_deleted_and_unreachable_secrets_of_barbican() {
    let (keystone, s3) = (Keystone::start().await, s3().await);
    let barbican = Barbican::start(&keystone).await;
    let stored = barbican.store(&payload(SECRET_ACCESS_KEY).to_string()).await;
    let rotated = barbican.store(&payload("rotated").to_string()).await;
    let workspace = barbican.workspace(&keystone, "refresh_interval = \"24h\"\ntimeout = \"1s\"");
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(target(&s3, "plain", &stored)).await;
    daemon.wait_for_report(&id, "the first verdict", |report| report["verdict"] == "available").await;
    let (requests, probes) = (barbican.requests(), s3.requests().len());
    eventually("more probes", async || (s3.requests().len() > probes + 2).then_some(())).await;
    assert_eq!(barbican.requests(), requests, "the secret is cached");

    // Rotation: the service refuses the old key, and the next probe reads the new one.
    s3.set_secret("rotated");
    daemon.wait_for_report(&id, "a refusal", |report| report["reason"] == "wrong_secret").await;
    barbican.swap(&stored, &rotated);
    daemon.wait_for_report(&id, "the new key", |report| report["verdict"] == "available").await;

    // A new secret_ref is read at once.
    s3.set_secret("again");
    let again = barbican.store(&payload("again").to_string()).await;
    daemon.modify(&id, json!({ "secret_ref": again })).await;
    daemon.wait_for_report(&id, "the new secret", |report| report["verdict"] == "available").await;

    // A new password of the agent revokes its token. Keystone also revokes tokens that it issues in the same second.
    let logins = keystone.count_requests(LOGIN);
    barbican.change_agent_password(&keystone, "changed").await;
    workspace.write("password", "changed");
    daemon.check(&id).await;
    let healthy = |report: &Value| report["reason"].is_null() && report["verdict"] == "available";
    daemon.wait_for_report(&id, "a new token", healthy).await;
    assert!(keystone.count_requests(LOGIN) > logins);

    barbican.permit(&again, false).await;
    assert_warning(&daemon.check(&id).await, "secret_forbidden");
    barbican.permit(&again, true).await;
    daemon.wait_for_report(&id, "the permission", healthy).await;

    for (down, up) in [("pause", "resume"), ("halt", "restart")] {
        barbican.control(down);
        let began = Instant::now();
        let report = daemon.check(&id).await;
        assert_warning(&report, "key_manager_unavailable");
        assert_contains(report["message"].as_str().expect("a message"), &["last good credentials"]);
        assert!(began.elapsed() < Duration::from_secs(10), "{down}: {:?}", began.elapsed());
        barbican.control(up);
        daemon.wait_for_report(&id, "the key manager", healthy).await;
    }

    // Without good credentials, the target is offline.
    barbican.control("halt");
    let workspace = barbican.workspace(&keystone, "");
    workspace.write("password", "changed");
    let fresh = Daemon::start(&workspace).await;
    let offline = fresh.create(target(&s3, "plain", &again)).await;
    let report = fresh.check(&offline).await;
    let found = (&report["status"], &report["verdict"], &report["reason"]);
    assert_eq!(found, (&json!("offline"), &json!("timed_out"), &json!("key_manager_unavailable")), "{report:#}");
    barbican.control("restart");

    barbican.delete(&again).await;
    assert_warning(&daemon.check(&id).await, "secret_not_found");
}
