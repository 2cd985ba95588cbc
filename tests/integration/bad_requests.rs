//! Malformed requests: the refusal names the field and the expectation, and nothing changes.

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::http::raw;
use crate::report::assert_contains;
use crate::storage::nfs_target;
use crate::workspace::Workspace;

/// Maximum size of a body, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;

/// An agent with one target.
async fn daemon() -> Daemon {
    let daemon = Daemon::start(&Workspace::new()).await;
    daemon.create(nfs_target("/first")).await;
    daemon
}

/// Asserts that a body is refused with all these words, and that the list stays the same.
async fn assert_refused(daemon: &Daemon, body: &[u8], words: &[&str]) {
    let before = ids(daemon).await;
    let message = daemon.request_with_bytes("POST", "/backup_targets", body.to_vec()).await.fault(400, "badRequest");
    assert_contains(&message, words);
    assert!(!message.contains(char::is_control), "{message:?}");
    assert_eq!(ids(daemon).await, before, "after {message}");
}

async fn assert_target_refused(daemon: &Daemon, target: Value, words: &[&str]) {
    assert_refused(daemon, json!({ "backup_target": target }).to_string().as_bytes(), words).await;
}

async fn ids(daemon: &Daemon) -> Vec<Value> {
    daemon.targets().await.iter().map(|target| target["id"].clone()).collect()
}

/// The fields of a valid target with one more field.
fn target_with(key: &str, value: Value) -> Value {
    let mut target = nfs_target("/second");
    target[key] = value;
    target
}

#[tokio::test]
async fn bad_request_when_body_is_not_json() {
    let daemon = daemon().await;
    let deep = "[".repeat(100_000);
    for body in ["", "{", "backup_target", "{\"backup_target\": {\"type\": \"nfs\"", "\u{0}", &deep] {
        assert_refused(&daemon, body.as_bytes(), &["not JSON", "expected {\"backup_target\": {…}}"]).await;
    }
    assert_refused(&daemon, b"{\"backup_target\": {\"type\": \"\xff\"}}", &["not JSON"]).await;
}

#[tokio::test]
async fn bad_request_when_backup_target_is_missing() {
    let daemon = daemon().await;
    for (body, found) in [
        ("{}", "backup_target is missing"),
        ("{\"backup_targets\": {}}", "backup_target is missing"),
        ("[]", "the body is a list"),
        ("\"x\"", "the body is a string"),
        ("{\"backup_target\": []}", "backup_target is a list"),
        ("{\"backup_target\": null}", "backup_target is null"),
    ] {
        assert_refused(&daemon, body.as_bytes(), &[found, "expected {\"backup_target\": {…}}"]).await;
    }
}

#[tokio::test]
async fn bad_request_when_field_has_wrong_type() {
    let daemon = daemon().await;
    for (field, value, expected) in [
        ("type", json!(1), "is not a string"),
        ("filesystem_export", json!(["127.0.0.1:/x"]), "is not a string"),
        ("nfs_export", json!({}), "is not a string"),
        ("btt_name", json!(false), "is not a string"),
        ("s3_bucket", json!(7), "is not a string"),
        ("s3_endpoint_url", json!(7), "is not a string"),
        ("is_default", json!(2), "expected 0, 1, true or false"),
        ("is_default", json!(-1), "expected 0, 1, true or false"),
        ("is_default", json!("maybe"), "expected 0, 1, true or false"),
        ("immutable", json!(0.5), "expected 0, 1, true or false"),
        ("metadata", json!([{ "key": "a", "value": "b" }]), "a list is not an object"),
    ] {
        assert_target_refused(&daemon, target_with(field, value), &[field, expected]).await;
    }
    assert_target_refused(
        &daemon,
        target_with("metadata", json!({ "rack": [7] })),
        &["metadata.rack", "a list is not a string"],
    )
    .await;
}

#[tokio::test]
async fn bad_request_when_type_is_missing_or_unknown() {
    let daemon = daemon().await;
    let export = json!("127.0.0.1:/x");
    for kind in [Value::Null, json!("")] {
        let target = json!({ "type": kind, "filesystem_export": export });
        assert_target_refused(&daemon, target, &["type: missing", "\"nfs\" or \"s3\""]).await;
    }
    for kind in ["smb", "NFS", "nfs "] {
        let target = json!({ "type": kind, "filesystem_export": export });
        assert_target_refused(&daemon, target, &["type: ", kind, "\"nfs\" or \"s3\""]).await;
    }
}

#[tokio::test]
async fn bad_request_when_field_is_unknown_or_of_another_kind() {
    let daemon = daemon().await;
    assert_target_refused(&daemon, target_with("imutable", json!(1)), &["unknown field `imutable`", "expected one of"])
        .await;
    assert_target_refused(&daemon, target_with("s3_bucket", json!("backups")), &["s3_bucket", "type nfs has none"])
        .await;
    assert_target_refused(&daemon, target_with("immutable", json!(1)), &["immutable", "type nfs has none"]).await;
    assert_target_refused(
        &daemon,
        target_with("metadata", json!({ "object_lock": "1" })),
        &["metadata", "\"object_lock\""],
    )
    .await;
}

#[tokio::test]
async fn bad_request_when_s3_bucket_or_endpoint_is_invalid() {
    let daemon = daemon().await;
    let endpoint = "https://s3.example.com";
    let target = json!({ "type": "s3", "s3_endpoint_url": endpoint });
    assert_target_refused(&daemon, target, &["s3_bucket: missing"]).await;
    for bucket in ["ab", "has space", "../etc", "-dash", "a/b"] {
        let target = json!({ "type": "s3", "s3_endpoint_url": endpoint, "s3_bucket": bucket });
        assert_target_refused(&daemon, target, &["s3_bucket", bucket, "expected"]).await;
    }
    for url in ["ftp://s3.example.com", "https://user:pass@s3.example.com", "https://s3.example.com/path", "https://"] {
        let target = json!({ "type": "s3", "s3_endpoint_url": url, "s3_bucket": "backups" });
        assert_target_refused(&daemon, target, &["s3_endpoint_url", "expected"]).await;
    }
    let target = json!({ "type": "s3", "s3_endpoint_url": "https://me:hush@s3.example.com", "s3_bucket": "backups" });
    let message = daemon.try_create(target).await.fault(400, "badRequest");
    assert!(message.contains("s3.example.com") && !message.contains("hush"), "{message}");
    let other =
        json!({ "type": "s3", "s3_endpoint_url": endpoint, "s3_bucket": "backups", "filesystem_export": "else/where" });
    assert_target_refused(&daemon, other, &["filesystem_export", "s3.example.com/backups"]).await;
}

#[tokio::test]
async fn bad_request_when_export_is_not_host_and_path() {
    let daemon = daemon().await;
    assert_target_refused(&daemon, json!({ "type": "nfs" }), &["filesystem_export: missing", "host:/path"]).await;
    for export in ["nas", "/mnt", "nas:mnt", "fd00::1:/x", ":/x", "-o:/x"] {
        let target = json!({ "type": "nfs", "filesystem_export": export });
        assert_target_refused(&daemon, target, &["filesystem_export", "expected"]).await;
    }
    let both = json!({ "type": "nfs", "filesystem_export": "a:/x", "nfs_export": "b:/x" });
    assert_target_refused(&daemon, both, &["filesystem_export", "nfs_export", "differ"]).await;
}

#[tokio::test]
async fn bad_request_when_export_has_control_characters_or_dots() {
    let daemon = daemon().await;
    for path in ["/a\nb", "/a\u{0}b", "/a\u{1b}[2Jb", "/a\u{7f}"] {
        assert_target_refused(&daemon, nfs_target(path), &["filesystem_export", "control character"]).await;
    }
    for path in ["/..", "/a/../b", "/a/.."] {
        assert_target_refused(&daemon, nfs_target(path), &["filesystem_export", "\"..\""]).await;
    }
    assert_target_refused(&daemon, target_with("btt_name", json!("a\u{1b}b")), &["btt_name", "control character"])
        .await;
    daemon.create(nfs_target("/a..b")).await;
}

#[tokio::test]
async fn bad_request_when_mount_name_is_too_long() {
    let daemon = daemon().await;
    let path = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    for bytes in [190, 4000] {
        assert_target_refused(&daemon, nfs_target(&path(bytes)), &["filesystem_export", "189 bytes"]).await;
    }
    daemon.create(nfs_target(&path(189))).await;
}

#[tokio::test]
async fn bad_request_when_field_cannot_be_changed() {
    let daemon = daemon().await;
    let before = daemon.targets().await;
    let path = format!("/backup_targets/{}", before[0]["id"].as_str().expect("an id"));
    for (field, value) in [
        ("type", json!("s3")),
        ("filesystem_export", json!("127.0.0.1:/another")),
        ("s3_bucket", json!("backups")),
        ("is_default", json!(0)),
        ("immutable", json!(1)),
        ("btt_name", json!("another")),
    ] {
        let answer = daemon.request("PUT", &path, Some(&json!({ "backup_target": { field: value } }))).await;
        let message = answer.fault(400, "badRequest");
        assert_contains(&message, &[field]);
    }
    let after = daemon.targets().await;
    for key in ["type", "filesystem_export", "is_default", "updated_at", "backup_target_types"] {
        assert_eq!(after[0][key], before[0][key], "{key}");
    }
}

#[tokio::test]
async fn body_over_limit_is_rejected() {
    let daemon = daemon().await;
    let answer = daemon.request_with_bytes("POST", "/backup_targets", vec![b' '; BODY_MAX_BYTES + 1]).await;
    let message = answer.fault(413, "overLimit");
    assert!(message.contains("1048576 bytes"), "{message}");
    // The agent does not wait for a body that is announced but never sent.
    let announced = "POST /backup_targets HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n";
    let answer = raw(daemon.address(), announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut largest = json!({ "backup_target": nfs_target("/second") }).to_string().into_bytes();
    largest.resize(BODY_MAX_BYTES, b' ');
    assert_eq!(daemon.request_with_bytes("POST", "/backup_targets", largest).await.status, 200);
}

#[tokio::test]
async fn ten_thousand_headers_are_rejected() {
    let daemon = daemon().await;
    let headers: String = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let answer =
        raw(daemon.address(), format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(ids(&daemon).await.len(), 1);
}

#[tokio::test]
async fn non_http_bytes_are_rejected() {
    let daemon = daemon().await;
    for bytes in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\n\0\0\0\0"]
    {
        let answer = raw(daemon.address(), bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(ids(&daemon).await.len(), 1);
}
