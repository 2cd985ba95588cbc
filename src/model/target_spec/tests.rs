//! Fields of targets: what is accepted, refused and changed.

use super::*;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn nfs() -> SpecFields {
    SpecFields { kind: some("nfs"), filesystem_export: some("nas:/b"), ..SpecFields::default() }
}

fn s3() -> SpecFields {
    let s3_endpoint_url = some("https://s3.example.com:9000");
    SpecFields { kind: some("s3"), s3_endpoint_url, s3_bucket: some("backups"), ..SpecFields::default() }
}

#[test]
fn invisible_characters_are_refused_in_exports_of_new_targets_only() {
    for (character, code) in [('\u{202e}', "U+202E"), ('\u{200b}', "U+200B"), ('\u{2028}', "U+2028")] {
        let export = format!("nas:/b{character}c");
        let fields = SpecFields { filesystem_export: Some(export), ..nfs() };
        let spec = TargetSpec::from_fields(&fields).expect("a registry may contain it");
        let error = spec.check_new().expect_err(code).to_string();
        assert!(error.starts_with("filesystem_export: ") && error.contains(code), "{error}");
    }
    let visible = SpecFields { filesystem_export: some("nas:/\u{e9}日本"), ..nfs() };
    assert_eq!(TargetSpec::from_fields(&visible).and_then(|spec| spec.check_new()), Ok(()));
}

#[test]
fn ambiguous_paths_are_refused_in_exports_of_new_targets_only() {
    for (export, part) in [
        ("nas:/a//b", "nas:/a/b"),
        ("nas://a", "nas:/a"),
        ("nas:/a//", "nas:/a/"),
        ("nas:/./a", "nas:/a"),
        ("nas:/a/./", "nas:/a/"),
        ("nas:/a/.", "nas:/a"),
        ("nfs://nas/a", "without nfs://"),
        ("NFS://nas:2049/a", "without nfs://"),
        ("nas:/a,nas:/b", "one export"),
        ("nas:/a nas:/b", "one export"),
        ("nas:/a ", "white space"),
    ] {
        let fields = SpecFields { filesystem_export: some(export), ..nfs() };
        let spec = TargetSpec::from_fields(&fields).expect("a registry may contain it");
        let error = spec.check_new().expect_err(export).to_string();
        assert!(error.starts_with("filesystem_export: ") && error.contains(part), "{error}");
    }
    for export in ["nas:/", "nas:/a/", "nas:/.a/b.", "nas:/a b,c", "nas.example.com.:/a"] {
        let fields = SpecFields { filesystem_export: some(export), ..nfs() };
        assert_eq!(TargetSpec::from_fields(&fields).and_then(|spec| spec.check_new()), Ok(()), "{export}");
    }
}

#[test]
fn spec_is_built_for_each_kind() {
    let spec = TargetSpec::from_fields(&nfs()).expect("valid");
    assert_eq!((spec.kind(), spec.export().as_str(), spec.is_immutable()), (TargetKind::Nfs, "nas:/b", false));
    let filesystem_export = some("s3.example.com:9000/backups");
    let repeated = SpecFields { filesystem_export, immutable: Some(true), ..s3() };
    for (fields, immutable) in [(s3(), false), (repeated, true)] {
        let spec = TargetSpec::from_fields(&fields).expect("valid");
        assert_eq!((spec.kind(), spec.is_immutable()), (TargetKind::S3, immutable));
        assert_eq!(spec.export(), "s3.example.com:9000/backups");
    }
    let aws = TargetSpec::from_fields(&SpecFields { s3_endpoint_url: None, ..s3() }).expect("valid");
    assert_eq!(aws.export(), "backups");
}

#[test]
fn spec_is_the_same_after_a_round_trip_through_its_fields() {
    let aws = SpecFields { s3_endpoint_url: None, immutable: Some(true), ..s3() };
    let options = SpecFields { nfs_mount_opts: some("soft,nfsvers=3"), mount_mode: some("observe"), ..nfs() };
    let secret = SpecFields { secret_ref: some("https://barbican/v1/secrets/a"), ..s3() };
    let specs = [nfs(), s3(), aws, options, secret].map(|fields| TargetSpec::from_fields(&fields).expect("valid"));
    for spec in &specs {
        assert_eq!(TargetSpec::from_fields(&spec.to_fields()).as_ref(), Ok(spec));
        assert_eq!(spec.with_fields(&SpecFields::default()).as_ref(), Ok(spec));
    }
    let kinds = specs.map(|spec| spec.kind());
    assert!(TargetKind::ALL.iter().all(|kind| kinds.contains(kind)), "every kind: {kinds:?}");
}

#[test]
fn error_names_the_field_when_a_target_is_wrong() {
    for (fields, field, part) in [
        (SpecFields { kind: None, ..nfs() }, "type", "missing, expected \"nfs\" or \"s3\""),
        (SpecFields { kind: some("smb"), ..nfs() }, "type", "\"smb\" is not a type of backup target"),
        (SpecFields { filesystem_export: None, ..nfs() }, "filesystem_export", "type nfs needs host:/path"),
        (SpecFields { filesystem_export: some("nas"), ..nfs() }, "filesystem_export", "\"nas\" is not an NFS export"),
        (SpecFields { s3_bucket: some("b"), ..nfs() }, "s3_bucket", "type nfs has none"),
        (SpecFields { s3_endpoint_url: some("x"), ..nfs() }, "s3_endpoint_url", "type nfs has none"),
        (SpecFields { immutable: Some(true), ..nfs() }, "immutable", "type nfs has none"),
        (SpecFields { secret_ref: some("https://x/y"), ..nfs() }, "secret_ref", "type nfs has none"),
        (SpecFields { nfs_mount_opts: some("soft"), ..s3() }, "nfs_mount_opts", "type s3 has none"),
        (SpecFields { mount_mode: some("observe"), ..s3() }, "mount_mode", "type s3 has none"),
        (
            SpecFields { mount_mode: some("fuse"), ..nfs() },
            "mount_mode",
            "expected \"kernel\" or \"observe\" or \"none\"",
        ),
        (SpecFields { s3_endpoint_url: some("ftp://x"), ..s3() }, "s3_endpoint_url", "\"ftp://x\" is not an S3"),
        (SpecFields { s3_bucket: None, ..s3() }, "s3_bucket", "type s3 needs the name"),
        (SpecFields { s3_bucket: some("b"), ..s3() }, "s3_bucket", "\"b\" is not a bucket name"),
        (SpecFields { filesystem_export: some("x/y"), ..s3() }, "filesystem_export", "\"x/y\" is not s3.example"),
    ] {
        let error = TargetSpec::from_fields(&fields).expect_err(part);
        assert_eq!(error.field.as_str(), field, "{error}");
        assert!(error.problem.to_string().contains(part), "{error}");
    }
}

#[test]
fn scheme_and_immutability_change_and_everything_else_is_fixed() {
    let [export, bucket] = [nfs(), s3()].map(|fields| TargetSpec::from_fields(&fields).expect("valid"));
    let given = SpecFields::default;
    let plain = SpecFields { s3_endpoint_url: some("http://s3.example.com:9000"), immutable: Some(true), ..s3() };
    let changed = bucket.with_fields(&SpecFields { filesystem_export: Some(bucket.export()), ..plain.clone() });
    assert_eq!(changed.expect("allowed").to_fields(), plain);
    assert_eq!(export.with_fields(&SpecFields { immutable: Some(false), ..nfs() }).as_ref(), Ok(&export));
    for (spec, fields, field, part) in [
        (&export, SpecFields { kind: some("s3"), ..given() }, "type", "\"nfs\" cannot be changed to \"s3\""),
        (&export, SpecFields { filesystem_export: some("nas:/c"), ..given() }, "filesystem_export", "\"nas:/b\""),
        (&export, SpecFields { s3_bucket: some("other"), ..given() }, "s3_bucket", "type nfs has none"),
        (&export, SpecFields { immutable: Some(true), ..given() }, "immutable", "type nfs has none"),
        (&export, SpecFields { s3_endpoint_url: some("https://x"), ..given() }, "s3_endpoint_url", "type nfs"),
        (&bucket, SpecFields { s3_bucket: some("other"), ..given() }, "s3_bucket", "\"backups\" cannot be changed"),
        (&bucket, SpecFields { s3_endpoint_url: some("x://y"), ..given() }, "s3_endpoint_url", "is not an S3"),
        (
            &bucket,
            SpecFields { s3_endpoint_url: some("https://other"), ..given() },
            "s3_endpoint_url",
            "\"https://other\" would change the export of the target (s3.example.com:9000/backups)",
        ),
    ] {
        let error = spec.with_fields(&fields).expect_err(part);
        assert_eq!(error.field.as_str(), field, "{error}");
        assert!(error.problem.to_string().contains(part), "{error}");
    }
}
