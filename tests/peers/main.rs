//! The agent against a real Ceph RADOS Gateway, which `tests/peers/run` starts and stops.
//!
//! Each test makes a bucket of its own with an independent client of the service, has the true
//! program probe it, and looks at what a user sees: the report as JSON, and the exit code.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, reason = "that is how tests work and fail")]

mod gateway;

use gateway::{Gateway, Keys, LONG, Lock};

const AVAILABLE: Option<i32> = Some(0);
const WARNING: Option<i32> = Some(1);
const OFFLINE: Option<i32> = Some(2);

#[test]
fn a_bucket_is_available_and_what_it_holds_is_told_to_the_byte() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket(Lock::None);
    gateway.put(&bucket, 5_000_001);
    let probe = gateway.probe(&bucket, &[]);
    assert_eq!((probe.code, probe.status()), (AVAILABLE, "available"), "{probe:?}");
    assert_eq!(probe.number("used_bytes"), Some(5_000_001), "{probe:?}");
    assert_eq!(probe.number("object_count"), Some(1), "{probe:?}");
    assert_eq!(probe.number("capacity_bytes"), None, "without quota the size is not known: {probe:?}");
    assert_eq!(probe.report["object_lock"], false, "{probe:?}");
}

#[test]
fn the_quota_is_the_capacity_and_nearly_used_up_is_a_warning() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket(Lock::None);
    gateway.put(&bucket, 5_000_000);
    gateway.quota(&bucket, 10 << 20);
    let probe = gateway.probe(&bucket, &[]);
    assert_eq!((probe.code, probe.number("capacity_bytes")), (AVAILABLE, Some(10 << 20)), "{probe:?}");
    gateway.quota(&bucket, 5 << 20);
    let probe = gateway.probe(&bucket, &[]);
    assert_eq!((probe.code, probe.reason()), (WARNING, "nearly_full"), "{probe:?}");
}

#[test]
fn a_locked_bucket_is_what_an_immutable_target_needs() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket(Lock::DefaultRetention);
    let probe = gateway.probe(&bucket, &["--immutable"]);
    assert_eq!((probe.code, probe.status()), (AVAILABLE, "available"), "{probe:?}");
    assert_eq!(probe.report["object_lock"], true, "{probe:?}");
    assert_eq!(probe.report["versioning"], true, "{probe:?}");
    assert_eq!(probe.report["default_retention"], "GOVERNANCE 30 days", "{probe:?}");
}

#[test]
fn a_locked_bucket_without_default_retention_is_a_warning() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket(Lock::NoDefault);
    let probe = gateway.probe(&bucket, &["--immutable"]);
    assert_eq!((probe.code, probe.reason()), (WARNING, "no_default_retention"), "{probe:?}");
    assert!(probe.report["default_retention"].is_null(), "{probe:?}");
}

#[test]
fn a_bucket_without_lock_is_offline_only_for_an_immutable_target() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket(Lock::None);
    // Enabling versioning would not give it a lock, so that is not what is told, and it changes nothing.
    for versioning in [false, true] {
        if versioning {
            gateway.enable_versioning(&bucket);
        }
        let probe = gateway.probe(&bucket, &["--immutable"]);
        assert_eq!((probe.code, probe.reason()), (OFFLINE, "object_lock_missing"), "{probe:?}");
        assert_eq!(probe.report["object_lock"], false, "it is known: {probe:?}");
    }
    assert_eq!(gateway.probe(&bucket, &[]).code, AVAILABLE);
}

#[test]
fn each_refusal_has_its_own_reason() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket(Lock::None);
    for (keys, reason) in [
        (Keys::WrongSecret, "wrong_secret"),
        (Keys::UnknownKey, "unknown_access_key"),
        (Keys::Suspended, "user_suspended"),
    ] {
        let probe = gateway.probe_as(keys, &bucket, &[]);
        assert_eq!((probe.code, probe.reason()), (OFFLINE, reason), "{probe:?}");
    }
    let probe = gateway.probe("no-such-bucket", &[]);
    assert_eq!((probe.code, probe.reason()), (OFFLINE, "bucket_not_found"), "{probe:?}");
}

#[test]
fn tls_needs_the_authority_that_signed_the_certificate() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket(Lock::None);
    let probe = gateway.probe_over_tls(&bucket, true);
    assert_eq!((probe.code, probe.status()), (AVAILABLE, "available"), "{probe:?}");
    let probe = gateway.probe_over_tls(&bucket, false);
    assert_eq!((probe.code, probe.reason()), (OFFLINE, "tls_failed"), "{probe:?}");
}

#[test]
fn a_name_of_the_longest_kind_is_a_bucket() {
    let gateway = Gateway::running();
    let bucket = gateway.bucket_named(LONG, Lock::None);
    assert_eq!(bucket.len(), 63);
    assert_eq!(gateway.probe(&bucket, &[]).code, AVAILABLE);
}
