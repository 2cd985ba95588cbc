//! Secrets, correct or wrong, do not leave the agent in logs, answers, arguments or output.

use crate::daemon::Daemon;
use crate::gateway::{Gateway, Keys, immutable_target, target, workspace_for};

/// A secret that the gateway refuses. A mistyped secret must not be shown either.
const WRONG_SECRET: &str = "mistyped/But+StillSecret";

#[tokio::test]
async fn secrets_appear_in_no_log_answer_or_command_line() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let wrong = Keys::new(&gateway.keys.access_key_id, WRONG_SECRET);
    for (keys, is_right) in [(&gateway.keys, true), (&wrong, false)] {
        let workspace = workspace_for(keys);
        let daemon = Daemon::start_logging(&workspace, "trace").await;
        let mut shown = Vec::new();
        for target in [target(&gateway.endpoint, &bucket), immutable_target(&gateway.tls_endpoint, &bucket)] {
            let id = daemon.create(target).await;
            shown.push(daemon.check(&id).await.to_string());
            shown.push(daemon.show(&id).await.to_string());
        }
        for path in ["/backup_targets/detail", "/node", "/readyz"] {
            shown.push(daemon.request("GET", path, None).await.body);
        }
        for more in [&[][..], &["--json"], &["--immutable"]] {
            let output = workspace.check_s3(&gateway.endpoint, &bucket, more).await;
            shown.extend([output.stdout, output.stderr]);
        }
        let output = workspace.run(&["status", "--json"]).await;
        shown.extend([output.stdout, output.stderr]);
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", daemon.pid())).expect("read");
            shown.push(String::from_utf8(bytes).expect("text"));
        }
        let log = daemon.log();
        // The log contains the probes, and the verdict shows that they used these keys.
        assert!(log.contains(&bucket), "the log does not mention the bucket:\n{log}");
        assert_eq!(shown.iter().any(|text| text.contains("wrong_secret")), !is_right);
        shown.push(log);
        for text in shown {
            assert!(!text.contains(&keys.secret_access_key), "a secret is shown: {text}");
        }
    }
}
