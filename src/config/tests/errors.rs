//! What is refused, and what the message says about it.

use super::*;

#[test]
fn unused_or_incomplete_authentication_is_refused() {
    for (text, expected) in [
        ("[api]\nauth = \"ldap\"", &["c.toml:2", "[api] auth", "\"keystone\""][..]),
        ("[api]\nauth = \"token\"", &["[api.token] file", "needs it"]),
        ("[api.token]\nfile = \"/etc/t\"", &["c.toml:2", "[api.token] file", "auth = \"token\""]),
        ("[api.keystone]\nurl = \"http://k:5000\"", &["[api.keystone] url", "not used"]),
        ("[api]\nauth = \"keystone\"", &["[api.keystone] url", "needs it"]),
        ("[api]\nauth = \"keystone\"\n[api.keystone]\nurl = \"http://k:5000\"", &["password_file", "its own user"]),
        ("[api]\nauth = \"keystone\"\n[api.keystone]\nurl = \"k:5000\"", &["c.toml:4", "https://keystone"]),
        ("[api]\nsocket_needs_token = true", &["c.toml:2", "does not use tokens"]),
        ("[api.tls]\ncertificate = \"/c\"", &["c.toml:2", "certificate and key"]),
        ("[api.tls]\nclient_ca = \"/c\"", &["certificate and key"]),
        ("[api.tls]\nrequire_client_certificate = true", &["client_ca"]),
        (
            "[api.tls]\ncertificate = \"/c\"\nkey = \"/k\"\nrequire_client_certificate = true",
            &["c.toml:4", "client_ca"],
        ),
        ("[api.keystone]\nvalidation = 1", &["c.toml:2", "validations"]),
    ] {
        assert_refused(text, expected);
    }
}

#[test]
fn put_headers_are_those_of_the_api_reference() {
    for (headers, expected) in [
        (r#"{ "x-amz-acl" = "bucket-owner-full-control" }"#, None),
        (r#"{ "x-amz-acl" = "owner" }"#, Some("bucket-owner-full-control")),
        (r#"{ "x-amz-server-side-encryption" = "AES256" }"#, None),
        (r#"{ "x-amz-server-side-encryption" = "aes256" }"#, Some("AES256, aws:fsx, aws:kms, aws:kms:dsse")),
        (r#"{ "x-amz-server-side-encryption-aws-kms-key-id" = "k" }"#, Some("needs x-amz-server-side-encryption")),
        (
            r#"{ "x-amz-server-side-encryption" = "AES256", "x-amz-server-side-encryption-context" = "e30=" }"#,
            Some("needs x-amz-server-side-encryption"),
        ),
        (r#"{ "x-amz-storage-class" = "STANDARD_IA" }"#, None),
        (r#"{ "x-amz-storage-class" = "standard-ia" }"#, Some("STANDARD_IA")),
        (r#"{ "x-amz-storage-class" = "a b" }"#, Some("not a storage class")),
        (r#"{ "x-amz-storage-class" = "GLACIER" }"#, Some("cannot be read back")),
        (r#"{ "x-amz-expected-bucket-owner" = "111122223333" }"#, None),
        (r#"{ "x-amz-expected-bucket-owner" = "" }"#, Some("1 to 2048 printable")),
        (r#"{ "x-amz-expected-bucket-owner" = "a\r\nb: c" }"#, Some("1 to 2048 printable")),
        (r#"{ "x-amz-tagging" = "team=backup", "X-Amz-Tagging" = "a=b" }"#, Some("given twice")),
        (r#"{ "x-amz-object-lock-mode" = "COMPLIANCE" }"#, Some("not a supported header, expected x-amz-acl")),
        (r#"{ "authorization" = "a" }"#, Some("not a supported header")),
    ] {
        let text = format!("[[s3.credentials]]\nlocation = \"*\"\nput_headers = {headers}");
        match expected {
            None => assert!(parse(&text, Path::new("c.toml")).is_ok(), "{headers}"),
            Some(words) => {
                let message = refused(&text);
                let place = message.contains("c.toml:3") && message.contains("[[s3.credentials]] put_headers");
                assert!(place && message.contains(words), "{headers} gave {message}");
            }
        }
    }
}

#[test]
fn syntax_errors_quote_no_part_of_a_value() {
    for text in [
        "[[notify.command]]\nargv = [\"/x\",\n  \"--header\", \"Bearer SECRET=\" oops\n]",
        "[[notify.command]]\nargv = [\"/x\",\n[\"SECRET\" oops\n]",
        "[[notify.webhook]]\nurl = \"\"\"\nhttps://h/SECRET?a=b\"\"\" oops",
        "[[notify.webhook]]\nurl = \"https://h/SECRET?a=b\" oops",
    ] {
        let error = refused(text);
        assert!(error.starts_with("configuration c.toml:") && !error.contains("SECRET"), "{error}");
    }
}

#[test]
fn errors_name_file_line_key_and_expectation() {
    for (text, expected) in [
        ("[probe]\nnfs_intervall = \"10s\"", &["c.toml:2", "nfs_intervall", "nfs_interval"][..]),
        ("[probe]\nnfs_interval = 10", &["c.toml:2", "string", "in `nfs_interval = …`"]),
        ("[probe]\n\ndeadline = \"soon\"", &["c.toml:3", "[probe] deadline", "soon", "500ms"]),
        ("[probe]\ndeadline = \"0s\"", &["[probe] deadline", "10ms"]),
        ("[probe]\nnfs_interval = \"1ms\"", &["[probe] nfs_interval", "1s"]),
        ("[probe]\nfailures_before_offline = 0", &["c.toml:2", "failures_before_offline", "1 to 1000"]),
        ("[probe]\nfailures_before_offline = -1", &["c.toml:2", "failures_before_offline"]),
        ("[probe]\nnearly_full_percent = 101", &["nearly_full_percent", "0 to 100"]),
        ("[probe]\nfull_soon_within = \"366d\"", &["[probe] full_soon_within", "365d"]),
        (
            "[[probe.target]]\nlocation = \"\"\nfull_soon_within = \"1d\"",
            &["[[probe.target]] location", "not a pattern"],
        ),
        (
            "[[probe.target]]\nlocation = \"*\"\nfull_soon_within = \"soon\"",
            &["[[probe.target]] full_soon_within", "30d"],
        ),
        ("[mounts]\nroot = \"relative\"", &["c.toml:2", "[mounts] root", "absolute"]),
        ("[mounts]\nroot = \"/a/../b\"", &["[mounts] root", "without \"..\""]),
        ("[visibility]\nconsumers = [\"a b\"]", &["c.toml:2", "[visibility] consumers", "name of a process"]),
        ("[visibility]\nconsumers = [\"\"]", &["[visibility] consumers", "ps -o comm"]),
        ("[visibility]\nconsumers = [\"host\"]", &["[visibility] consumers", "reserved"]),
        ("[visibility]\nconsumers = 3", &["c.toml:2", "consumers"]),
        ("[mounts]\nmode = \"fuse\"", &["[mounts] mode", "\"kernel\" or \"observe\" or \"none\""]),
        ("[mounts]\nnfs_options = \"soft, ro\"", &["[mounts] nfs_options", "comma-separated"]),
        ("[mounts]\naddress_map = { \"a\" = \"-b\" }", &["[mounts] address_map", "-b"]),
        ("[registry]\nurl = \"mysql://x\"", &["[registry] url", "sqlite:///absolute/path"]),
        ("[api]\nlisten = []", &["[api] listen", "1 to 16"]),
        ("[api]\nlisten = [\"8781\"]", &["c.toml:2", "[api] listen", "IP:PORT"]),
        ("[api]\nlisten = [\"0.0.0.0:1\"]", &["[api] listen", "allow_unauthenticated_remote"]),
        ("[metrics]\nlisten = [\"0.0.0.0:1\"]", &["c.toml:2", "[metrics] listen", "token_file"]),
        ("[metrics]\nlisten = [\"127.0.0.1:8781\"]", &["[metrics] listen", "[api] listen"]),
        ("[metrics]\nlisten = [\"[::1]:1\", \"[::1]:1\"]", &["[metrics] listen", "duplicate"]),
        ("[metrics]\ntoken_file = \"secret\"", &["[metrics] token_file", "absolute path"]),
        ("[metrics]\ndetail = \"none\"", &["[metrics] detail", "\"full\" or \"targets\""]),
        ("[[target]]\ntype = \"smb\"", &["c.toml:2", "[[target]] type", "\"nfs\" or \"s3\""]),
        ("[[target]]\ntype = \"nfs\"", &["c.toml:2", "[[target]] filesystem_export: missing", "host:/path"]),
        ("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"nas\"", &["c.toml:3", "filesystem_export", "host:/path"]),
        (
            "[[target]]\ntype = \"nfs\"\nfilesystem_export = \"nas:/b\"\nbtt_name = \"a \"",
            &["c.toml:4", "[[target]] btt_name", "a blank"],
        ),
        (
            "[[target]]\ntype = \"nfs\"\nfilesystem_export = \"nas:/b\"\nmetadata = { bucket = \"b\" }",
            &["c.toml:4", "[[target]] metadata: key \"bucket\" is set by the agent itself"],
        ),
        (
            "[[target]]\ntype = \"nfs\"\nfilesystem_export = \"nas:/b\"\nmetadata = { a = \"\" }",
            &["c.toml:4", "[[target]] metadata: value of \"a\" is empty, expected 1 to 4096"],
        ),
        ("[[target]]\ntype = \"s3\"\ns3_endpoint_url = \"https://x\"", &["c.toml:2", "[[target]] s3_bucket: missing"]),
        ("[[s3.credentials]]\nlocation = \"*\"\naccess_key_id_file = \"/x\"", &["c.toml:2", "secret_access_key_file"]),
        ("[s3.canary]\nprefix = \"a\"", &["c.toml:2", "[s3.canary] prefix", "end with /"]),
        ("[s3.canary]\nprefix = \"/\"", &["[s3.canary] prefix"]),
        ("[s3.canary]\nprefix = \"a/../b/\"", &["[s3.canary] prefix"]),
        ("[s3.canary]\nretention = \"2m\"\ninterval = \"1m\"", &["[s3.canary] retention", "accumulate", "60 s"]),
        ("[s3.canary]\nretention = \"2h\"", &["[s3.canary] retention", "5s", "3600s"]),
        ("[s3.lock_proof]\nmode = \"soft\"", &["[s3.lock_proof] mode", "\"default\"", "\"compliance\""]),
        ("[s3.lock_proof]\ninterval = \"1m\"", &["[s3.lock_proof] interval", "600s"]),
        ("[s3.lock_proof]\nmin_retention = \"long\"", &["[s3.lock_proof] min_retention", "30d"]),
        ("[s3.lock_proof]\nmin_canary_retention = \"soon\"", &["[s3.lock_proof] min_canary_retention", "30d"]),
        ("[s3.lock_proof]\nmin_canary_retention = \"12h\"", &["c.toml:2", "min_canary_retention", "half of interval"]),
        ("[s3.listing]\nenabled = \"on\"", &["c.toml:2", "boolean", "enabled"]),
        ("[s3.listing]\ninterval = \"5s\"", &["c.toml:2", "[s3.listing] interval", "10s"]),
        ("[s3.listing]\ninterval = \"off\"", &["[s3.listing] interval", "off"]),
        ("[s3.listing]\nrequests_max = 0", &["c.toml:2", "[s3.listing] requests_max", "1 to 10000", "found 0"]),
        ("[s3.listing]\nrequests_max = 10001", &["[s3.listing] requests_max", "1 to 10000"]),
        ("[s3.listing]\npages = 1", &["c.toml:2", "pages", "requests_max"]),
        ("[api\n", &["c.toml:1"]),
    ] {
        assert_refused(text, expected);
    }
}

#[test]
fn explicit_configuration_file_must_exist() {
    let error = load(Some(Path::new("/nonexistent/config.toml"))).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/config.toml"), "{error}");
}
