//! OpenStack clients find the agent in the catalog of Keystone, and discover its version.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::daemon::{Daemon, with_timeout};
use crate::peer::Keystone;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keystone/discover.py");

#[tokio::test]
async fn keystoneauth_discovers_the_version_and_lists_targets() {
    let keystone = Keystone::start().await;
    let workspace = keystone.workspace("");
    let daemon = Daemon::start(&workspace).await;
    let root = format!("http://{}", daemon.address());
    for (endpoint, discovered) in [
        ("", "/v1/".to_owned()),
        ("/v1", "/v1/".to_owned()),
        // keystoneauth replaces the variable by the project of the token.
        ("/v1/$(project_id)s", format!("/v1/{}", keystone.admin_project().await)),
    ] {
        let found = discover(&keystone, &format!("{root}{endpoint}")).await;
        let expected = json!({
            "url": format!("{root}{discovered}"),
            "version": [1, 0],
            "versions": ["1.0"],
            "status": 200,
            "targets": { "backup_targets": [] },
        });
        assert_eq!(found, expected, "{endpoint:?}");
    }
}

/// Runs the script with this endpoint in the catalog.
async fn discover(keystone: &Keystone, endpoint: &str) -> Value {
    let mut command = tokio::process::Command::new(keystone.fact("PYTHON"));
    command.arg(SCRIPT).env("ENDPOINT", endpoint).stdin(Stdio::null()).kill_on_drop(true);
    for name in ["URL", "ADMIN_PASSWORD"] {
        command.env(name, keystone.fact(name));
    }
    let output = with_timeout(endpoint, command.output()).await.expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
