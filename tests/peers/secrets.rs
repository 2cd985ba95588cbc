//! Secrets: right or wrong, they are in nothing that the agent says or shows of itself.

use crate::daemon::Daemon;
use crate::gateway::{Gateway, Keys, immutable_target, target, workspace_for};

/// A secret that the gateway refuses. Who mistypes one does not want it shown either.
const WRONG_SECRET: &str = "mistyped/But+StillNobodysBusiness";

#[tokio::test]
async fn secrets_appear_in_no_log_answer_or_command_line() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let wrong = Keys::new(&gateway.keys.access_key_id, WRONG_SECRET);
    for (keys, is_right) in [(&gateway.keys, true), (&wrong, false)] {
        let workspace = workspace_for(keys);
        let agent = Daemon::start_logging(&workspace, "trace").await;
        let mut said = Vec::new();
        for target in [target(&gateway.endpoint, &bucket), immutable_target(&gateway.tls_endpoint, &bucket)] {
            let id = agent.create(target).await;
            said.push(agent.check(&id).await.to_string());
            said.push(agent.show(&id).await.to_string());
        }
        for path in ["/backup_targets/detail", "/node", "/readyz"] {
            said.push(agent.request("GET", path, None).await.body);
        }
        for more in [&[][..], &["--json"], &["--immutable"]] {
            let output = workspace.check_s3(&gateway.endpoint, &bucket, more).await;
            said.extend([output.stdout, output.stderr]);
        }
        let output = workspace.run(&["status", "--json"]).await;
        said.extend([output.stdout, output.stderr]);
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", agent.pid())).expect("read");
            said.push(String::from_utf8(bytes).expect("text"));
        }
        let log = agent.log();
        // All was tried, and with these keys: the words that would have to come with a secret are there.
        assert!(log.contains(&bucket), "the log has nothing of the probes:\n{log}");
        assert_eq!(said.iter().any(|text| text.contains("wrong_secret")), !is_right);
        said.push(log);
        for text in said {
            assert!(!text.contains(&keys.secret_access_key), "a secret was said: {text}");
        }
    }
}
