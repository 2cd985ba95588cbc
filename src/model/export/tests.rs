//! Exports that are accepted or refused, and how they are written.

use super::*;
use proptest::prelude::*;

#[test]
fn nfs_export_is_split_at_first_colon_slash() {
    for (text, address, path) in [
        ("192.168.1.34:/mnt/tvault/162", "192.168.1.34", "/mnt/tvault/162"),
        ("x:/Trilio_Backup", "x", "/Trilio_Backup"),
        ("nas.example.com:/home/kolla/", "nas.example.com", "/home/kolla/"),
        ("[fd00::1]:/x", "fd00::1", "/x"),
        ("[fe80::1%eth0]:/x", "fe80::1%eth0", "/x"),
        ("nas:/odd:/name", "nas", "/odd:/name"),
        ("nas:/", "nas", "/"),
    ] {
        let export = NfsExport::parse(text).expect(text);
        assert_eq!((export.address(), export.path()), (address, path), "{text}");
        assert_eq!(export.to_string(), text);
    }
}

#[test]
fn invalid_nfs_export_is_refused_with_expectation() {
    for text in
        ["", "nas", "/mnt", "nas:mnt", ":/mnt", "fd00::1:/x", "[fd00::1:/x", "[nas]:/x", "na s:/x", "-o:/x", "nas/a:/x"]
    {
        let error = NfsExport::parse(text).expect_err(text);
        assert!(error.to_string().contains("expected"), "{text}: {error}");
    }
    assert!(matches!(NfsExport::parse("nas:/a/../b"), Err(ExportError::ParentComponent(_))));
    assert!(matches!(NfsExport::parse("nas:/.."), Err(ExportError::ParentComponent(_))));
    assert!(matches!(NfsExport::parse("nas:/a\nb"), Err(ExportError::ControlCharacter(_))));
    assert!(matches!(NfsExport::parse("nas:/a\0b"), Err(ExportError::ControlCharacter(_))));
    assert!(NfsExport::parse("nas:/a..b/c").is_ok());
}

fn matches(export: &NfsExport, source: &str) -> bool {
    export.matches_host_of(source) && export.matches_path_of(source)
}

#[test]
fn source_of_mount_is_recognized_in_every_spelling() {
    let export = NfsExport::parse("NAS:/home/kolla/").expect("valid");
    assert!(matches(&export, "nas:/home/kolla"));
    assert!(!matches(&export, "nas:/home/kolla/x"));
    assert!(!matches(&export, "other:/home/kolla"));
    let six = NfsExport::parse("[fd00::1]:/x").expect("valid");
    assert!(matches(&six, "[fd00::1]:/x"));
    assert!(matches(&NfsExport::parse("nas:/").expect("valid"), "nas:/"));
    assert!(!matches(&six, "tmpfs"));
    let absolute = NfsExport::parse("nas.example.com.:/x").expect("a final dot is legal");
    assert!(matches(&absolute, "nas.example.com.:/x"));
    for text in ["[fd00::1].:/x", ".:/x", "nas..:/x"] {
        assert!(NfsExport::parse(text).is_err(), "{text}");
    }
}

#[test]
fn mapped_host_replaces_host_of_export() {
    let export = NfsExport::parse("192.168.1.34:/x").expect("valid");
    assert_eq!(export.with_host("fd00::2").expect("valid").to_string(), "[fd00::2]:/x");
    assert!(export.with_host("-o").is_err());
}

#[test]
fn endpoint_is_scheme_host_and_port() {
    for (text, url, authority, port) in [
        ("https://cephs3.triliodata.demo", "https://cephs3.triliodata.demo", "cephs3.triliodata.demo", 443),
        ("http://10.0.0.1:8080/", "http://10.0.0.1:8080", "10.0.0.1:8080", 8080),
        ("s3.example.com:9000", "https://s3.example.com:9000", "s3.example.com:9000", 9000),
        ("HTTPS://[fd00::1]:443", "https://[fd00::1]:443", "[fd00::1]:443", 443),
    ] {
        let endpoint = S3Endpoint::parse(text).expect(text);
        assert_eq!((endpoint.url().as_str(), endpoint.authority().as_str(), endpoint.port()), (url, authority, port));
    }
    for text in [
        "",
        "https://",
        "ftp://x",
        "https://x/path",
        "https://x?y",
        "https://user@x",
        "https://x:0",
        "https://x:99999",
        "https://x:080a",
        "https://x:0443",
        "a b",
    ] {
        assert!(S3Endpoint::parse(text).is_err(), "{text}");
    }
}

#[test]
fn location_is_displayed_without_scheme() {
    for (text, export) in [
        ("https://cephs3.triliodata.demo/trilio-qamanual", "cephs3.triliodata.demo/trilio-qamanual"),
        ("http://127.0.0.1:9000/bucket/", "127.0.0.1:9000/bucket"),
        ("backups", "backups"),
        ("https://ceph.example/acme_1:backups", "ceph.example/acme_1:backups"),
        ("http://ceph.example:8080/:backups", "ceph.example:8080/:backups"),
    ] {
        assert_eq!(S3Location::parse(text).expect(text).to_string(), export);
    }
    for text in
        ["https://host", "https://host/", "ab", "https://host/a b", "https://host/-bad", "https://host/a/b", "a..b"]
            .into_iter()
            .chain(["acme:backups", "https://host/a-b:backups", "https://host/acme:ab", "https://host/a:b:backups"])
    {
        assert!(S3Location::parse(text).is_err(), "{text}");
    }
}

#[test]
fn identity_is_the_same_for_every_spelling_of_one_bucket_only() {
    let identity = |text: &str| S3Location::parse(text).expect(text).identity();
    for (one, spellings) in [
        (
            "https://s3.example.com/bucket",
            &[
                "HTTPS://s3.example.com/bucket",
                "https://S3.Example.COM/bucket",
                "https://s3.example.com:443/bucket",
                "https://s3.example.com/bucket/",
                "https://s3.example.com./bucket",
                "https://s3.example.com.:443/bucket",
                "http://s3.example.com/bucket",
                "http://s3.example.com:80/bucket",
                "s3.example.com/bucket",
            ][..],
        ),
        ("http://10.0.0.1:8080/bucket", &["https://10.0.0.1:8080/bucket"]),
        ("https://[fd00::1]/bucket", &["https://[FD00:0::1]:443/bucket"]),
        (
            "bucket",
            &[
                "https://s3.amazonaws.com/bucket",
                "https://S3.eu-west-1.amazonaws.com:443/bucket",
                "https://s3-eu-west-1.amazonaws.com/bucket",
                "https://s3.dualstack.eu-west-1.amazonaws.com/bucket",
                "https://s3-fips.us-east-1.amazonaws.com/bucket",
            ],
        ),
    ] {
        for spelling in spellings {
            assert_eq!(identity(spelling), identity(one), "{spelling}");
        }
    }
    let others = [
        "https://s3.example.com/bucket",
        "https://s3.example.com/Bucket",
        "https://s3.example.com:8443/bucket",
        "https://s3.example.com:80/bucket",
        "http://s3.example.com:443/bucket",
        "bucket",
        "https://s3.us-gov-west-1.amazonaws.com/bucket",
        "https://s3.cn-north-1.amazonaws.com.cn/bucket",
        "https://s3.amazonaws.com.example.com/bucket",
        "https://evils3.amazonaws.com/bucket",
    ];
    let identities: std::collections::HashSet<String> = others.iter().map(|text| identity(text)).collect();
    assert_eq!(identities.len(), others.len(), "{identities:?}");
    let nfs = |text: &str| NfsExport::parse(text).expect(text).identity();
    assert_eq!(nfs("NAS.example.com.:/b"), nfs("nas.example.com:/b"));
    assert_eq!(nfs("[FD00:0::1]:/b"), nfs("[fd00::1]:/b"));
    assert_ne!(nfs("nas:/b"), nfs("nas:/B"));
}

proptest! {
    #[test]
    fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,40}|[a-z\\[\\]:/.%-]{0,40}") {
        if let Ok(export) = NfsExport::parse(&text) {
            prop_assert_eq!(export.to_string(), text.clone());
            prop_assert!(matches(&export, &text));
            prop_assert!(!export.host().starts_with('-'));
        }
        let _ = S3Endpoint::parse(&text);
        let _ = S3Location::parse(&text);
    }

    #[test]
    fn every_host_and_path_are_an_export(host in "[a-z][a-z0-9]{0,10}(\\.[a-z0-9]{1,5}){0,3}", path in "/[ -~]{0,60}") {
        prop_assume!(!path.split('/').any(|component| component == ".."));
        let text = format!("{host}:{path}");
        let export = NfsExport::parse(&text).expect("valid");
        prop_assert_eq!((export.host(), export.path()), (host.as_str(), path.as_str()));
    }
}
