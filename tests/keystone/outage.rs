//! Outages of Keystone.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, eventually};
use crate::peer::{Keystone, status};

/// Number of occurrences of a text in the agent's log.
fn count_in_log(daemon: &Daemon, text: &str) -> usize {
    daemon.log().matches(text).count()
}

#[tokio::test]
async fn cached_tokens_work_while_keystone_is_down() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let daemon = Daemon::start(&keystone.workspace("timeout = \"1s\"")).await;
    let known = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&daemon, &known).await, 200);

    for (round, (down, up)) in [("halt", "restart"), ("pause", "resume")].into_iter().enumerate() {
        let unknown = keystone.token("alpha", "alpha", Some("alpha")).await;
        keystone.control(down);
        let began = Instant::now();
        assert_eq!(status(&daemon, &known).await, 200, "{down}");
        assert_eq!(status(&daemon, &format!("garbage-that-is-new-{round}")).await, 503, "{down}");
        assert_eq!(status(&daemon, &unknown).await, 503, "{down}");
        assert!(began.elapsed() < Duration::from_secs(5), "{down}: {:?}", began.elapsed());
        // The agent asks Keystone repeatedly, and logs the outage once.
        eventually("a line of the log", async || {
            assert_eq!(status(&daemon, &unknown).await, 503, "{down}");
            (count_in_log(&daemon, "tokens cannot be validated") > round).then_some(())
        })
        .await;
        for _ in 0..20 {
            assert_eq!(status(&daemon, &unknown).await, 503, "{down}");
        }
        assert_eq!(count_in_log(&daemon, "tokens cannot be validated"), round + 1, "{}", daemon.log());

        keystone.control(up);
        eventually("the validation of the token", async || (status(&daemon, &unknown).await == 200).then_some(()))
            .await;
        let mut number = 0;
        eventually("a line of the log", async || {
            number += 1;
            assert_eq!(status(&daemon, &format!("garbage-{round}-{number}")).await, 401, "{up}");
            (count_in_log(&daemon, "tokens are validated again") > round).then_some(())
        })
        .await;
        assert_eq!(count_in_log(&daemon, "tokens are validated again"), round + 1, "{}", daemon.log());
    }
}

#[tokio::test]
async fn advice_when_agent_may_not_validate_tokens() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let workspace = keystone.workspace("");
    workspace.configure("[api.keystone]\nusername = \"alpha\"\nproject = \"alpha\"");
    workspace.write("password", "alpha");
    let daemon = Daemon::start(&workspace).await;
    let admin = keystone.admin_token().await;
    assert_eq!(status(&daemon, &admin).await, 503);
    daemon.wait_for_log("openstack role add").await;
}
