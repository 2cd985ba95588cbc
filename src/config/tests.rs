//! Defaults, accepted configurations and error messages.

mod declared;
mod errors;
mod registry;
mod sample;

use std::time::Duration;

use super::*;
use crate::model::settings::{AuthSettings, KeystoneCredential, Listen, MetricsDetail};
use crate::model::{LockMode, RegistryUrl, Status};

fn refused(text: &str) -> String {
    parse(text, Path::new("c.toml")).expect_err(text).to_string()
}

/// Asserts that a configuration is refused with a message that contains these parts.
fn assert_refused(text: &str, expected: &[&str]) {
    let message = refused(text);
    for part in expected {
        assert!(message.contains(part), "{text:?} gave {message:?}, without {part:?}");
    }
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
        assert_refused(text, expected);
        let message = refused(text);
        let refusal = message.lines().next().expect("a line");
        assert!(!refusal.contains("T0KEN"), "{message}");
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
