//! Defaults, accepted configurations and error messages.

use super::*;
use crate::model::settings::{AuthSettings, KeystoneCredential, Listen, MetricsDetail};
use crate::model::{LockMode, RegistryUrl, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn refused(text: &str) -> String {
    parse(text, Path::new("c.toml")).expect_err(text).to_string()
}

#[test]
fn defaults_apply_when_file_is_empty() {
    let settings = parse("", Path::new("c.toml")).expect("defaults");
    assert_eq!(settings.api.listen.len(), 2);
    assert_eq!(settings.registry_url, RegistryUrl::Sqlite("/var/lib/targetwatch/registry.db".into()));
    assert_eq!(settings.agent.mounts.root, Path::new("/var/trilio/triliovault-mounts"));
    assert_eq!(settings.agent.probe.deadline, Duration::from_secs(2));
    assert_eq!(settings.agent.probe.canary.interval, Duration::from_secs(300));
    assert!(!settings.agent.s3_listing.enabled, "listing costs requests, so it is off by default");
    assert!(settings.declared.is_empty());
}

#[test]
fn sample_file_has_the_defaults() {
    let sample = include_str!("../../systemd/config.toml");
    // "#" comments out a key with its default. "# " starts prose or an example.
    let uncommented: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with([' ', '#']) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let as_shipped = parse(sample, Path::new("sample")).expect("as it is shipped");
    let with_all_keys = parse(&uncommented, Path::new("sample")).expect("with every key");
    let defaults = parse("", Path::new("c.toml")).expect("defaults");
    assert_eq!(as_shipped, defaults);
    assert_eq!(with_all_keys, defaults);
}

/// The keys of a section, as the error about an unknown key lists them.
fn keys_of(header: &str) -> Vec<String> {
    let error = refused(&format!("{header}\nno_such_key = 1\n"));
    let (_, keys) = error.split_once("expected").unwrap_or_else(|| panic!("{header}: {error}"));
    // The message may end with the line of the error, which is quoted too.
    keys.split('`').skip(1).step_by(2).filter(|key| !key.contains(' ')).map(str::to_owned).collect()
}

#[test]
fn sample_file_names_every_key() {
    let (mut headers, mut named, mut section) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in include_str!("../../systemd/config.toml").lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned() + ".";
            headers.insert(section.clone(), line.to_owned());
        } else if let Some((key, _)) = line.split_once(" = ") {
            named.insert(format!("{section}{key}"));
        }
    }
    let (mut sections, mut keys) = (vec![String::new()], 0);
    while let Some(section) = sections.pop() {
        // Keys of the file itself have no header, and `[s3]` has only sections.
        let table = if section.is_empty() { String::new() } else { format!("[{}]", section.trim_end_matches('.')) };
        for key in keys_of(headers.get(&section).unwrap_or(&table)) {
            keys += 1;
            let key = format!("{section}{key}");
            let below = format!("{key}.");
            if headers.keys().any(|header| header.starts_with(&below)) {
                sections.push(below);
            } else {
                assert!(named.contains(&key), "{key} is not in systemd/config.toml");
            }
        }
    }
    assert!(keys > 60, "{keys} keys found");
}

#[test]
fn pages_are_on_by_default_where_only_this_host_reaches_them() {
    for (listen, ui, expected) in [
        ("", "", true),
        ("listen = [\"127.0.0.1:1\", \"[::1]:1\", \"unix:/run/x.sock\"]", "", true),
        ("listen = [\"127.0.0.1:1\", \"192.0.2.7:1\"]", "", false),
        ("listen = [\"0.0.0.0:1\"]", "", false),
        ("listen = [\"0.0.0.0:1\"]", "enabled = true", true),
        ("", "enabled = false", false),
    ] {
        let text = format!("[api]\nallow_unauthenticated_remote = true\n{listen}\n[ui]\n{ui}");
        assert_eq!(parse(&text, Path::new("c.toml")).expect("valid").api.has_ui, expected, "{text}");
    }
}

#[test]
fn all_sections_are_accepted() {
    let text = r#"
        [api]
        listen = ["0.0.0.0:8781", "unix:/run/x.sock"]
        allow_unauthenticated_remote = true
        [metrics]
        listen = ["0.0.0.0:9781"]
        token_file = "credential:metrics.token"
        detail = "targets"
        [mounts]
        mode = "none"
        path_key = "export"
        address_map = { "192.168.1.34" = "192.168.2.34" }
        [[mounts.nfs]]
        location = "nas:/b*"
        options = "nfsvers=4.2,soft"
        [probe]
        nfs_interval = "1m30s"
        [[s3.credentials]]
        location = "ceph.example/*"
        profile = "ceph"
        addressing = "virtual"
        read_only = true
        append_only = true
        put_headers = { "X-Amz-Server-Side-Encryption" = "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id" = "k 1", "x-amz-storage-class" = "COLD" }
        [s3.canary]
        prefix = "a/.b=c/"
        [s3.lock_proof]
        mode = "compliance"
        min_retention = "30d"
        min_canary_retention = "1d"
        interval = "72h"
        [s3.listing]
        enabled = true
        interval = "24h"
        requests_max = 10000
        [[target]]
        type = "s3"
        s3_endpoint_url = "https://ceph.example"
        s3_bucket = "backups"
        immutable = true
        metadata = { rack = "12" }
    "#;
    let settings = parse(text, Path::new("c.toml")).expect("valid");
    assert_eq!(settings.api.listen[1], Listen::Unix("/run/x.sock".into()));
    assert_eq!(settings.api.metrics.detail, MetricsDetail::Targets);
    assert!(settings.api.metrics.token_file.is_some_and(|path| path.ends_with("metrics.token")));
    assert_eq!(settings.agent.probe.nfs_interval, Duration::from_secs(90));
    let access = &settings.agent.s3_access[0];
    assert!(access.read_only && access.append_only);
    let headers: Vec<&str> = access.put_headers.iter().flat_map(|(name, value)| [name.as_str(), value]).collect();
    let (encryption, class) = ("x-amz-server-side-encryption", "x-amz-storage-class");
    let key = "x-amz-server-side-encryption-aws-kms-key-id";
    assert_eq!(headers, [encryption, "aws:kms", key, "k 1", class, "COLD"]);
    assert_eq!(settings.agent.lock_proof.mode, Some(LockMode::Compliance));
    assert_eq!(settings.agent.lock_proof.min_retention, Duration::from_secs(30 * 24 * 3600));
    assert_eq!(settings.agent.s3_canary.retention, Duration::from_secs(24 * 3600 + 60), "and a minute");
    assert_eq!((settings.agent.s3_listing.enabled, settings.agent.s3_listing.requests_max), (true, 10_000));
    assert!(settings.declared[0].spec.is_immutable());
    assert_eq!(settings.declared[0].spec.export(), "ceph.example/backups");
}

#[test]
fn keystone_token_and_tls_are_accepted() {
    let text = r#"
        [api]
        listen = ["0.0.0.0:8781"]
        socket_group = "backup"
        socket_needs_token = true
        auth = "keystone"
        [api.keystone]
        url = "https://keystone.example:5000/v3/"
        application_credential_id = "21dc"
        application_credential_secret_file = "/etc/targetwatch/secret"
        admin_role = "backup_admin"
        cache_entries = 100
        [api.tls]
        certificate = "/etc/targetwatch/api.pem"
        key = "/etc/targetwatch/api.key"
        client_ca = "/etc/targetwatch/clients.pem"
        require_client_certificate = true
    "#;
    let api = parse(text, Path::new("c.toml")).expect("valid").api;
    let AuthSettings::Keystone(keystone) = api.auth else { panic!("{:?}", api.auth) };
    assert_eq!(keystone.url, "https://keystone.example:5000");
    assert!(matches!(keystone.credential, KeystoneCredential::Application { ref id, .. } if id == "21dc"));
    assert_eq!((keystone.cache_entries, keystone.cache_time), (100, Duration::from_secs(300)));
    assert!(api.socket_needs_token && api.tls.expect("TLS").require_client_certificate);

    let token = "[api]\nlisten = [\"10.0.0.1:1\"]\nauth = \"token\"\n[api.token]\nfile = \"/etc/t\"";
    let api = parse(token, Path::new("c.toml")).expect("a token protects a remote address").api;
    assert_eq!(api.auth, AuthSettings::Token { file: "/etc/t".into() });
}

#[test]
fn notification_receivers_are_accepted_and_bad_ones_refused() {
    let text = r#"
        [[notify.webhook]]
        url = "https://hooks.example/services/T0KEN?x=1"
        secret_file = "credential:webhook.secret"
        ca_bundle = "/etc/targetwatch/ca.pem"
        timeout = "2s"
        on = ["offline"]
        [[notify.command]]
        argv = ["/usr/local/sbin/page", "a b", ""]
    "#;
    let notify = parse(text, Path::new("c.toml")).expect("valid").notify;
    let (webhook, command) = (&notify.webhooks[0], &notify.commands[0]);
    assert_eq!((&*webhook.on, webhook.timeout), (&[Status::Offline][..], Duration::from_secs(2)));
    assert_eq!((command.arguments.len(), command.timeout), (2, Duration::from_secs(10)));
    assert_eq!(command.on, Status::ALL);

    let nine = "[[notify.webhook]]\nurl = \"http://h\"\n".repeat(9);
    for (text, expected) in [
        ("[[notify.webhook]]\nurl = \"ftp://h/T0KEN\"", &["c.toml:2", "[[notify.webhook]] url", "https"][..]),
        ("[[notify.webhook]]\nurl = \"https://u:T0KEN@h/\"", &["without user"]),
        ("[[notify.webhook]]\nurl = \"https://h/#T0KEN\"", &["fragment"]),
        ("[[notify.webhook]]\nsecret_file = \"/s\"", &["url"]),
        ("[[notify.webhook]]\nurl = \"http://h\"\ntimeout = \"2m\"", &["[[notify.webhook]] timeout", "60s"]),
        ("[[notify.webhook]]\nurl = \"http://h\"\non = []", &["[[notify.webhook]] on", "offline"]),
        ("[[notify.webhook]]\nurl = \"http://h\"\non = [\"down\"]", &["c.toml:3", "\"down\"", "\"offline\""]),
        ("[[notify.command]]\nargv = []", &["c.toml:2", "[[notify.command]] argv", "a program"]),
        ("[[notify.command]]\nargv = [\"page\"]", &["c.toml:2", "absolute path"]),
        ("[[notify.command]]\nargv = \"/bin/page\"", &["c.toml:2", "argv"]),
        ("[mounts]\nroot = \"/m\"\n[[notify.command]]\nargv = [\"/m/page\"]", &["c.toml:4", "below [mounts] root"]),
        (&*nine, &["[[notify.webhook]]", "at most 8"]),
    ] {
        let message = refused(text);
        for part in expected {
            assert!(message.contains(part), "{text:?} gave {message:?}, without {part:?}");
        }
        let refusal = message.lines().next().expect("a line");
        assert!(!refusal.contains("T0KEN"), "{message}");
    }
}

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
        let message = refused(text);
        for part in expected {
            assert!(message.contains(part), "{text:?} gave {message:?}, without {part:?}");
        }
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
        let message = refused(text);
        for part in expected {
            assert!(message.contains(part), "{text:?} gave {message:?}, without {part:?}");
        }
    }
}

#[test]
fn threshold_of_the_first_matching_location_applies() {
    let entry = |location: &str, within: &str| {
        format!("[[probe.target]]\nlocation = \"{location}\"\nfull_soon_within = \"{within}\"\n")
    };
    let text = format!("[probe]\nfull_soon_within = \"12h\"\n{}{}", entry("nas:/a*", "14d"), entry("*", "0s"));
    let probe = parse(&text, Path::new("c.toml")).expect("valid").agent.probe;
    let hours = |export| probe.full_soon_within_of(export).as_secs() / 3600;
    assert_eq!([hours("nas:/archive"), hours("ceph:8080/bucket")], [14 * 24, 0]);
    assert_eq!(
        parse("", Path::new("c.toml")).expect("defaults").agent.probe.full_soon_within_of("nas:/a").as_secs(),
        72 * 3600
    );
}

#[test]
fn declared_targets_with_one_mount_path_or_two_defaults_are_refused() {
    let target =
        |export: &str, more: &str| format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"{export}\"\n{more}\n");
    let same = refused(&(target("a:/x", "") + &target("b:/x", "")));
    assert!(same.contains("a:/x") && same.contains("b:/x"), "{same}");
    let defaults = refused(&(target("a:/x", "is_default = true") + &target("a:/y", "is_default = true")));
    assert!(defaults.contains("is_default") && defaults.contains("exactly one"), "{defaults}");
}

#[test]
fn declared_export_that_only_an_older_registry_contains_is_accepted() {
    for export in ["nas:/a//b", "nas:/a/./b"] {
        let text = format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"{export}\"");
        let settings = parse(&text, Path::new("c.toml")).expect(export);
        assert_eq!(settings.declared[0].spec.export(), export);
    }
}

#[test]
fn declared_metadata_and_names_have_the_limits_of_the_api() {
    let target = |more: &str| format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"a:/x\"\n{more}\n");
    let entries = (0..65).map(|number| format!("k{number} = \"v\"\n")).collect::<String>();
    let many = refused(&target(&format!("[target.metadata]\n{entries}")));
    assert!(many.contains("65 keys, 64 is the limit"), "{many}");
    let long = refused(&target(&format!("metadata = {{ a = \"{}\" }}", "x".repeat(4097))));
    assert!(long.contains("has 4097 characters, expected 1 to 4096 characters"), "{long}");
    let name = refused(&target(&format!("btt_name = \"{}\"", "x".repeat(256))));
    assert!(name.contains("has 256 characters, expected 1 to 255 characters"), "{name}");
}

#[test]
fn explicit_configuration_file_must_exist() {
    let error = load(Some(Path::new("/nonexistent/config.toml"))).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/config.toml"), "{error}");
}

#[test]
fn fingerprint_depends_on_settings_only() {
    let fingerprint = |text: &str| parse(text, Path::new("c.toml")).expect("valid").fingerprint();
    let defaults = fingerprint("");
    assert!(defaults.len() == 12 && defaults.bytes().all(|byte| byte.is_ascii_hexdigit()), "{defaults}");
    assert_eq!(fingerprint("# a comment\n[probe]\nnfs_interval = \"10s\""), defaults);
    assert_eq!(fingerprint("[api]\nlisten = [\"127.0.0.1:1\"]"), defaults);
    assert_ne!(fingerprint("[probe]\nnfs_interval = \"11s\""), defaults);
}

#[test]
fn key_manager_uses_the_login_of_keystone_whatever_the_authentication() {
    let login = "[api.keystone]\nurl = \"https://k:5000/v3\"\nusername = \"u\"\npassword_file = \"/f/p\"\n";
    for auth in ["none", "keystone"] {
        let text = format!(
            "[api]\nauth = {auth:?}\n{login}[key_manager]\nenabled = true\nendpoint = \"https://b:9311/v1/\"\nrefresh_interval = \"1m\""
        );
        let settings = parse(&text, Path::new("c.toml")).expect("valid");
        let key_manager = settings.agent.key_manager.expect("enabled");
        assert_eq!((key_manager.keystone.url.as_str(), key_manager.refresh_interval.as_secs()), ("https://k:5000", 60));
        assert_eq!(key_manager.endpoint.as_deref(), Some("https://b:9311"));
        assert!(!key_manager.accept_other_endpoints);
    }
    assert_eq!(
        parse(&format!("[api]\nauth = \"keystone\"\n{login}"), Path::new("c")).expect("valid").agent.key_manager,
        None
    );
    for (text, words) in [
        ("[key_manager]\nenabled = true", ["[api.keystone] url", "[key_manager] enabled = true needs it"]),
        ("[key_manager]\nendpoint = \"https://b\"", ["[key_manager] endpoint", "enabled is false"]),
        ("[key_manager]\ninterface = \"private\"", ["[key_manager] interface", "\"internal\""]),
        ("[key_manager]\nrefresh_interval = \"0s\"", ["[key_manager] refresh_interval", "duration"]),
        ("[key_manager]\nendpoint = \"b:9311\"", ["[key_manager] endpoint", "URL of the key manager"]),
        (login, ["[api.keystone] url", "not used"]),
    ] {
        let error = refused(text);
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}

#[test]
fn registry_in_etcd_has_members_prefix_and_copy() {
    let parsed = |text: &str| parse(text, Path::new("c.toml")).expect(text).registry_url;
    let url = parsed(
        "[registry]\nurl = \"etcd+https://a.example:2379,[fd00::1]/clouds/one/\"\nuser = \"u\"\npassword_file = \"/p\"\ncompare_interval = \"5s\"",
    );
    let shared = url.shared().expect("shared");
    assert_eq!(shared.endpoints, ["https://a.example:2379", "https://[fd00::1]:2379"]);
    assert_eq!((&*shared.prefix, shared.interval), ("clouds/one", Duration::from_secs(5)));
    assert_eq!(url.file(), Path::new("/var/lib/targetwatch/registry.db"));
    assert_eq!(url.to_string(), "etcd+https://a.example:2379,[fd00::1]:2379/clouds/one");
    let plain = parsed("[registry]\nurl = \"etcd://127.0.0.1\"\nuser = \"u\"\npassword_file = \"/p\"\ncache = \"/c\"");
    assert_eq!((plain.to_string().as_str(), plain.file()), ("etcd://127.0.0.1:2379/targetwatch", Path::new("/c")));
    for (text, part) in [
        ("url = \"etcd://\"", "is not a member of etcd"),
        ("url = \"etcd://u:p@host\"", "is not a member of etcd"),
        ("url = \"etcd://host/a b\"", "is not a prefix"),
        ("url = \"mysql://host\"", "is not the URL of a registry"),
        ("url = \"etcd://host\"\nuser = \"u\"\npassword_file = \"/p\"", "without TLS"),
        ("url = \"etcd+https://host\"\nuser = \"u\"", "missing"),
        ("url = \"etcd+https://host\"\npassword_file = \"/p\"", "not used without"),
        ("cache = \"/c\"", "not used with an sqlite URL"),
    ] {
        let error = refused(&format!("[registry]\n{text}"));
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn labels_of_a_node_are_checked_and_need_a_shared_registry() {
    let etcd = "[registry]\nurl = \"etcd://127.0.0.1\"\n[fleet]\nnode = \"compute-1\"\n";
    let labelled = format!("{etcd}labels = {{ rack = \"a\", \"topology/az\" = \"1\" }}");
    let url = parse(&labelled, Path::new("c.toml")).expect("valid").registry_url;
    let labels = &url.shared().expect("shared").labels;
    assert_eq!((labels.len(), labels["rack"].as_str(), labels["topology/az"].as_str()), (2, "a", "1"));
    let many: String = (0..33).map(|number| format!("l{number} = \"a\"\n")).collect();
    for (text, part) in [
        (format!("{etcd}labels = {{ rack = \"a b\" }}"), "[fleet] labels: \"a b\" is not the key or value of a label"),
        (format!("{etcd}labels = {{ \"\" = \"a\" }}"), "[fleet] labels: \"\" is not the key"),
        (format!("{etcd}[fleet.labels]\n{many}"), "[fleet] labels: 33 labels, 32 is the limit"),
        ("[fleet]\nlabels = { rack = \"a\" }".to_owned(), "[fleet] labels: not used with an sqlite URL"),
    ] {
        let error = refused(&text);
        assert!(error.contains(part), "{text}: {error}");
    }
}
