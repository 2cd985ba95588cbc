//! The command line gets a token from Keystone by itself.

use crate::daemon::Daemon;
use crate::peer::Keystone;
use crate::workspace::{CommandOutput, Workspace};

async fn list(workspace: &Workspace, daemon: &Daemon, variables: &[(&str, &str)]) -> CommandOutput {
    let api = format!("http://{}", daemon.address());
    let mut command = workspace.command(&["--api", &api, "target", "list", "--json"]);
    CommandOutput::of(command.envs(variables.iter().copied())).await
}

#[tokio::test]
async fn cli_token_from_variable_openrc_or_clouds_yaml() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let workspace = keystone.workspace("");
    let daemon = Daemon::start(&workspace).await;

    let none = list(&workspace, &daemon, &[]).await;
    assert!(none.code == 3 && none.stderr.contains("OS_AUTH_URL"), "{none:?}");
    let url = format!("{}/v3", keystone.fact("URL"));
    let openrc = [
        ("OS_AUTH_URL", url.as_str()),
        ("OS_USERNAME", "alpha"),
        ("OS_PASSWORD", "alpha"),
        ("OS_PROJECT_NAME", "alpha"),
    ];
    assert_eq!(list(&workspace, &daemon, &openrc).await.json()["backup_targets"], serde_json::json!([]));
    let token = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(list(&workspace, &daemon, &[("OS_TOKEN", &token)]).await.code, 0);
    let clouds = format!(
        "clouds:\n  here:\n    auth:\n      auth_url: {url}\n      username: alpha\n      password: alpha\n      project_name: alpha\n      user_domain_name: Default\n      project_domain_name: Default\n"
    );
    workspace.write("clouds.yaml", clouds);
    assert_eq!(list(&workspace, &daemon, &[("OS_CLOUD", "here")]).await.code, 0);
    let mut wrong = openrc;
    wrong[2].1 = "not the password";
    let refused = list(&workspace, &daemon, &wrong).await;
    assert!(refused.code == 3 && refused.stderr.contains("does not accept the login"), "{refused:?}");

    keystone.control("halt");
    let over_socket = workspace.run(&["target", "list", "--json"]).await;
    assert_eq!(over_socket.code, 0, "{over_socket:?}");
}
