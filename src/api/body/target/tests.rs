//! Bodies of targets that are accepted, and messages of refusals.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::api::wire::ScopeRequest;
use crate::model::NodeScope;
use crate::model::node_scope::scope;

fn create(fields: Value) -> Result<NewTarget, String> {
    new_target(json!({ "backup_target": fields }).to_string().as_bytes()).map_err(|fault| fault.to_string())
}

#[test]
fn bodies_of_the_guide_are_accepted_in_every_spelling() {
    let new = create(json!({
        "type": "s3", "s3_endpoint_url": "https://cephs3.triliodata.demo", "s3_bucket": "object-locked-cephs3-2",
        "filesystem_export": null, "is_default": 0, "btt_name": null, "immutable": 1, "metadata": {"a": "b"},
    }))
    .expect("accepted");
    assert_eq!(new.spec.export(), "cephs3.triliodata.demo/object-locked-cephs3-2");
    assert!(new.spec.is_immutable() && new.is_default == Some(false));
    assert_eq!(new.metadata, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    for (flag, expected) in [
        (json!(1), Some(true)),
        (json!(true), Some(true)),
        (json!("1"), Some(true)),
        (json!("True"), Some(true)),
        (json!(0), Some(false)),
        (json!(false), Some(false)),
        (json!("0"), Some(false)),
        (json!(null), None),
        (json!(""), None),
    ] {
        let new = create(json!({"type": "nfs", "nfs_export": "nas:/b/", "is_default": flag, "s3_bucket": ""}));
        let new = new.expect("accepted");
        assert_eq!((new.is_default, new.spec.export().as_str()), (expected, "nas:/b/"), "{flag}");
    }
}

#[test]
fn refusal_names_the_field_and_what_was_expected() {
    let nfs = |more: Value| {
        let mut fields = json!({"type": "nfs", "filesystem_export": "nas:/b"});
        let (Value::Object(fields_map), Value::Object(more)) = (&mut fields, more) else { panic!("objects") };
        fields_map.extend(more);
        fields
    };
    for (fields, parts) in [
        (json!({}), &["type: missing", "nfs"][..]),
        (json!({"type": "smb"}), &["type", "smb", "\"s3\""]),
        (json!({"type": 7}), &["type: 7 is not a string"]),
        (json!({"type": "nfs"}), &["filesystem_export: missing", "host:/path"]),
        (nfs(json!({"filesystem_export": "nas"})), &["filesystem_export", "host:/path"]),
        (nfs(json!({"filesystem_export": "nas:/a/../b"})), &["filesystem_export", ".."]),
        (nfs(json!({"filesystem_export": "nas:/a\u{7}"})), &["filesystem_export", "control character"]),
        (nfs(json!({"filesystem_export": ["nas:/a"]})), &["filesystem_export: a list is not a string"]),
        (nfs(json!({"nfs_export": "nas:/other"})), &["nfs_export", "differ"]),
        (nfs(json!({"is_default": 2})), &["is_default: 2 is not a flag", "0, 1, true or false"]),
        (nfs(json!({"is_default": "yes"})), &["is_default", "yes"]),
        (nfs(json!({"immutable": 1})), &["immutable", "nfs"]),
        (nfs(json!({"s3_bucket": "bucket"})), &["s3_bucket", "leave it out"]),
        (
            nfs(json!({"nfs_mount_opts": "soft, hard"})),
            &["nfs_mount_opts: mount options contain white space", "nfs(5)"],
        ),
        (nfs(json!({"nfs_mount_opts": "nfsvers=2"})), &["nfs_mount_opts", "nfsvers=2", "4.2"]),
        (nfs(json!({"nfs_mount_opts": "soft,remount"})), &["nfs_mount_opts", "\"remount\" is not allowed"]),
        (nfs(json!({"nfs_mount_opts": "x".repeat(4096)})), &["nfs_mount_opts", "4096 bytes", "4095"]),
        (nfs(json!({"secret_ref": "https://barbican/v1/secrets/a"})), &["secret_ref", "type nfs has none"]),
        (nfs(json!({"imutable": 1})), &["backup_target: unknown field `imutable`", "`immutable`"]),
        (nfs(json!({"metadata": []})), &["metadata: a list is not an object"]),
        (nfs(json!({"metadata": {"a": [1]}})), &["metadata.a: a list is not a string, a number or a boolean"]),
        (nfs(json!({"metadata": {"a": null}})), &["metadata.a: null is not a string, a number or a boolean"]),
        (nfs(json!({"metadata": {"immutable": "0"}})), &["metadata", "\"immutable\"", "the agent itself"]),
        (nfs(json!({"btt_name": "a\nb"})), &["btt_name", "control character"]),
        (nfs(json!({"btt_name": " a"})), &["btt_name", "a blank"]),
        (nfs(json!({"btt_name": "a\u{202e}"})), &["btt_name", "U+202E"]),
        (nfs(json!({"btt_name": "x".repeat(256)})), &["btt_name: has 256 characters", "1 to 255"]),
        (json!({"type": "s3", "s3_endpoint_url": "https://x"}), &["s3_bucket: missing"]),
        (json!({"type": "s3", "s3_endpoint_url": "ftp://x", "s3_bucket": "bucket"}), &["s3_endpoint_url", "ftp"]),
        (json!({"type": "s3", "s3_bucket": "b"}), &["s3_bucket", "3 to 63"]),
        (
            json!({"type": "s3", "s3_bucket": "bucket", "nfs_mount_opts": "soft"}),
            &["nfs_mount_opts", "type s3 has none"],
        ),
        (json!({"type": "s3", "s3_bucket": "bucket", "secret_ref": "ftp://x/y"}), &["secret_ref: not a reference"]),
        (json!({"type": "s3", "s3_bucket": "bucket", "filesystem_export": "x/y"}), &["filesystem_export", "bucket"]),
    ] {
        let message = create(fields.clone()).expect_err(&fields.to_string());
        for part in parts {
            assert!(message.contains(part), "{fields} gave {message:?}, without {part:?}");
        }
    }
    for (body, part) in [
        ("", "not JSON"),
        ("{\"backup_target\": ", "not JSON"),
        ("[]", "a list"),
        ("{\"backup_target\": {\"type\": \"nfs\", \"type\": \"s3\"}}", "one object contains \"type\" twice"),
        ("{\"backup_target\": {}, \"backup_target\": {}}", "one object contains \"backup_target\" twice"),
        ("{\"backup_target\": {\"metadata\": {\"a\": \"1\", \"a\": \"2\"}}}", "one object contains \"a\" twice"),
        ("{}", "backup_target is missing"),
        ("{\"backup_target\": 1}", "backup_target is a number"),
        (
            "{\"backup_target\": {\"type\": \"nfs\"}, \"is_default\": 1}",
            "unexpected top-level field \"is_default\": move it inside backup_target",
        ),
    ] {
        let message = new_target(body.as_bytes()).expect_err(body).to_string();
        assert!(message.contains(part), "{body:?} gave {message:?}");
    }
}

#[test]
fn empty_text_removes_mount_options_and_secret() {
    let options = "nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10";
    let new = create(json!({"type": "nfs", "nfs_export": "nas:/b", "nfs_mount_opts": options, "secret_ref": null}));
    let export = new.expect("accepted").spec;
    assert_eq!(export.to_fields().nfs_mount_opts.as_deref(), Some(options));
    let secret = "https://barbican.example.com:9311/v1/secrets/5f8c2c9e-52f3-4a0b-9f6b-0f5f1f6c9a11";
    let new = create(json!({"type": "s3", "s3_bucket": "bucket", "nfs_mount_opts": "", "secret_ref": secret}));
    let bucket = new.expect("accepted").spec;
    assert_eq!(bucket.to_fields().secret_ref.as_deref(), Some(secret));
    for (spec, fields, options, reference) in [
        (&export, json!({}), Some(options), None),
        (&export, json!({"nfs_mount_opts": null, "secret_ref": ""}), Some(options), None),
        (&export, json!({"nfs_mount_opts": "hard"}), Some("hard"), None),
        (&export, json!({"nfs_mount_opts": ""}), None, None),
        (&bucket, json!({"nfs_mount_opts": "", "secret_ref": null}), None, Some(secret)),
        (&bucket, json!({"secret_ref": "http://barbican/a"}), None, Some("http://barbican/a")),
        (&bucket, json!({"secret_ref": ""}), None, None),
    ] {
        let change = modification(json!({ "backup_target": fields }).to_string().as_bytes()).expect("decoded");
        let changed = spec.with_fields(&change.fields).expect("accepted").to_fields();
        assert_eq!(
            (changed.nfs_mount_opts.as_deref(), changed.secret_ref.as_deref()),
            (options, reference),
            "{fields}"
        );
    }
}

#[test]
fn metadata_numbers_and_booleans_become_text() {
    let metadata = json!({"a": "x", "b": 7, "c": -1.5, "d": true, "e": 18_446_744_073_709_551_615_u64, "f": false});
    let new = create(json!({"type": "nfs", "nfs_export": "nas:/b", "metadata": metadata})).expect("accepted");
    let values: Vec<&str> = new.metadata.values().map(String::as_str).collect();
    assert_eq!(values, ["x", "7", "-1.5", "true", "18446744073709551615", "false"]);
}

#[test]
fn name_is_the_first_type_name_when_btt_name_is_absent() {
    for (names, expected) in [
        (json!({"name": "gold"}), Some("gold")),
        (json!({"name": "gold", "btt_name": "silver"}), Some("silver")),
        (json!({"name": "gold", "btt_name": ""}), Some("gold")),
        (json!({"name": ""}), None),
    ] {
        let mut fields = json!({"type": "nfs", "nfs_export": "nas:/b"});
        fields.as_object_mut().expect("an object").extend(names.as_object().expect("an object").clone());
        assert_eq!(create(fields).expect("accepted").type_name.as_deref(), expected, "{names}");
    }
}

fn decoded_scope(value: &Value) -> Result<Option<Option<NodeScope>>, String> {
    let body = json!({ "backup_target": { "scope": value } }).to_string();
    modification(body.as_bytes()).map(|change| change.scope).map_err(|fault| fault.to_string())
}

#[test]
fn scope_is_all_or_an_object() {
    assert_eq!(decoded_scope(&json!("all")), Ok(Some(None)));
    assert_eq!(decoded_scope(&Value::Null), Ok(None), "not given");
    let both = scope(&["a", "b"], &[("rack", "1"), ("rack", "2")]);
    let sent = json!({ "nodes": ["b", "a", "a"], "labels": { "rack": ["1", "2"] } });
    assert_eq!(decoded_scope(&sent), Ok(Some(Some(both))));
    for request in [ScopeRequest::All, ScopeRequest::Only(scope(&["a"], &[]))] {
        let sent = serde_json::to_value(&request).expect("JSON");
        assert_eq!(decoded_scope(&sent), Ok(Some(request.into())), "{sent}");
    }
}

#[test]
fn wrong_scope_is_refused_with_its_field() {
    for (value, message) in [
        (json!("some"), "scope: \"some\" is not a scope, expected \"all\" or an object of nodes and labels"),
        (json!(3), "scope: 3 is not \"all\" or an object of nodes and labels"),
        (json!(["a"]), "scope: a list is not \"all\" or an object of nodes and labels"),
        (json!({ "nodes": "a" }), "scope.nodes: \"a\" is not a list"),
        (json!({ "labels": { "rack": "a" } }), "scope.labels.rack: \"a\" is not a list"),
    ] {
        assert_eq!(decoded_scope(&value), Err(message.to_owned()));
    }
    let unknown = decoded_scope(&json!({ "node": ["a"] })).expect_err("refused");
    assert!(unknown.contains("scope") && unknown.contains("unknown field `node`"), "{unknown}");
}
