//! Secrets do not leave the agent in logs, answers or arguments, at any log level.

use serde_json::json;

use crate::daemon::Daemon;
use crate::storage::{immutable_target, prove_lock, s3, s3_target};
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace};

/// Asserts that a text from this source contains no credential.
fn assert_no_secret(source: &str, text: &str) {
    for secret in [SECRET_ACCESS_KEY, ACCESS_KEY_ID] {
        if let Some(line) = text.lines().find(|line| line.contains(secret)) {
            panic!("{secret} is in {source}: {line}");
        }
    }
}

#[tokio::test]
async fn credentials_appear_in_no_log_answer_or_argument() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let daemon = Daemon::start_logging(&workspace, "trace").await;
    let good = daemon.create(immutable_target(&s3, "locked")).await;
    let missing = daemon.create(s3_target(&s3, "missing")).await;
    assert_eq!(prove_lock(&daemon, &s3, &good).await["status"], "available");
    assert_eq!(daemon.check(&missing).await["reason"], "bucket_not_found");
    // The service refuses this key, and may quote it in its answer.
    workspace.write("secret", format!("{SECRET_ACCESS_KEY}x"));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    assert_eq!(daemon.check(&good).await["reason"], "wrong_secret");

    for path in ["/backup_targets", "/backup_targets/detail", "/node", "/openapi.json", "/readyz"] {
        assert_no_secret(path, &daemon.request("GET", path, None).await.body);
    }
    for id in [&good, &missing] {
        for path in ["", "/checks", "/set_default"] {
            let path = format!("/backup_targets/{id}{path}");
            assert_no_secret(&path, &daemon.request("GET", &path, None).await.body);
        }
    }
    let bad = json!({ "backup_target": { "metadata": { "note": 1 } } });
    assert_no_secret("a fault", &daemon.request("PUT", &format!("/backup_targets/{good}"), Some(&bad)).await.body);
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).expect("read");
    assert_no_secret("its arguments", &String::from_utf8_lossy(&cmdline));
    let log = daemon.log();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "all levels are logged: {log}");
    assert_no_secret("its log", &log);
}

#[tokio::test]
async fn credentials_appear_in_no_command_line_output() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    daemon.create(s3_target(&s3, "plain")).await;
    let config = workspace.config();
    let url = format!("{}/plain", s3.endpoint());
    let check = ["check", "s3", &url, "--config", config.to_str().expect("text")];
    let config = config.to_str().expect("text");
    let commands: [&[&str]; 8] = [
        &["doctor", "--config", config],
        &["config", "check", config, "--json"],
        &["status"],
        &["status", "--json"],
        &["target", "list"],
        &["check", "all", "--json"],
        &check,
        &[&check[..], &["--json"]].concat(),
    ];
    for secret in [SECRET_ACCESS_KEY, "another"] {
        workspace.write("secret", secret);
        for arguments in commands {
            let output = workspace.run(arguments).await;
            assert_no_secret(&format!("{arguments:?}"), &format!("{}{}", output.stdout, output.stderr));
        }
    }
}

#[tokio::test]
async fn secret_in_configuration_is_rejected_without_echo() {
    let workspace = Workspace::new();
    let good = workspace.config_text();
    let file = format!("\"{}\"", workspace.path("secret").display());
    for (key, bad) in [
        ("secret_access_key", good.replace("secret_access_key_file", "secret_access_key").replace(&file, "{}")),
        ("secret_access_key_file", good.replace(&file, "{}")),
        ("secret_access_key", good.replace("secret_access_key_file = ", "secret_access_key ").replace(&file, "{}")),
        (
            "s3_endpoint_url",
            format!("{good}\n[[target]]\ntype = \"s3\"\ns3_bucket = \"backups\"\ns3_endpoint_url = {{}}"),
        ),
        ("credentials", "[s3]\ncredentials = {}".to_owned()),
        ("credentials", "[s3]\ncredentials = [{}]".to_owned()),
        ("s3", "s3 = {}".to_owned()),
    ] {
        let secret = if key == "s3_endpoint_url" {
            format!("\"https://me:{SECRET_ACCESS_KEY}@s3.example.com\"")
        } else {
            format!("\"{SECRET_ACCESS_KEY}\"")
        };
        assert_ne!(bad, good);
        workspace.write_config(&bad.replace("{}", &secret));
        let stderr = Daemon::fails_to_start(&workspace).await;
        assert!(stderr.contains("config.toml:"), "{key}: {stderr}");
        assert_no_secret("the refusal", &stderr);
    }
}

#[tokio::test]
async fn credentials_in_endpoint_are_rejected_without_echo() {
    let daemon = Daemon::start(&Workspace::new()).await;
    for host in ["s3.example.com", "s3.example.com\n", "s3.example.com/@", "\u{7f}"] {
        let url = format!("https://me:{SECRET_ACCESS_KEY}@{host}");
        let target = json!({ "type": "s3", "s3_endpoint_url": url, "s3_bucket": "backups" });
        let message = daemon.try_create(target).await.fault(400, "badRequest");
        assert!(message.contains("s3_endpoint_url"), "{message}");
        assert_no_secret("the refusal", &message);
    }
}
