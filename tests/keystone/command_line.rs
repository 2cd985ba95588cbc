//! The command line gets a token from Keystone by itself.

use crate::daemon::{Daemon, in_time};
use crate::peer::Keystone;
use crate::place::{Place, Told};

async fn list(place: &Place, agent: &Daemon, variables: &[(&str, &str)]) -> Told {
    let api = format!("http://{}", agent.address());
    let mut command = place.command(&["--api", &api, "target", "list", "--json"]);
    command.envs(variables.iter().copied());
    let output = in_time("the list", command.output()).await.expect("run");
    Told {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

#[tokio::test]
async fn from_a_variable_an_openrc_file_clouds_yaml_and_not_over_the_socket() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let place = keystone.place("");
    let agent = Daemon::start(&place).await;

    let none = list(&place, &agent, &[]).await;
    assert!(none.code == 3 && none.err.contains("OS_AUTH_URL"), "{none:?}");
    let url = format!("{}/v3", keystone.fact("URL"));
    let openrc = [
        ("OS_AUTH_URL", url.as_str()),
        ("OS_USERNAME", "alpha"),
        ("OS_PASSWORD", "alpha"),
        ("OS_PROJECT_NAME", "alpha"),
    ];
    assert_eq!(list(&place, &agent, &openrc).await.json()["backup_targets"], serde_json::json!([]));
    let token = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(list(&place, &agent, &[("OS_TOKEN", &token)]).await.code, 0);
    let clouds = format!(
        "clouds:\n  here:\n    auth:\n      auth_url: {url}\n      username: alpha\n      password: alpha\n      project_name: alpha\n      user_domain_name: Default\n      project_domain_name: Default\n"
    );
    std::fs::write(place.path("clouds.yaml"), clouds).expect("written");
    assert_eq!(list(&place, &agent, &[("OS_CLOUD", "here")]).await.code, 0);
    let mut wrong = openrc;
    wrong[2].1 = "not the password";
    let refused = list(&place, &agent, &wrong).await;
    assert!(refused.code == 3 && refused.err.contains("does not accept the login"), "{refused:?}");

    keystone.control("halt");
    let over_socket = place.run(&["target", "list", "--json"]).await;
    assert_eq!(over_socket.code, 0, "{over_socket:?}");
}
