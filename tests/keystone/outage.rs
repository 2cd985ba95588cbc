//! Keystone away and back.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, eventually};
use crate::peer::{Keystone, status};

/// How often the agent's log has a text.
fn said(agent: &Daemon, text: &str) -> usize {
    agent.log().matches(text).count()
}

#[tokio::test]
async fn cached_tokens_work_while_keystone_is_down() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let agent = Daemon::start(&keystone.workspace("timeout = \"1s\"")).await;
    let known = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&agent, &known).await, 200);

    for (round, (away, back)) in [("halt", "again"), ("pause", "resume")].into_iter().enumerate() {
        let unknown = keystone.token("alpha", "alpha", Some("alpha")).await;
        keystone.control(away);
        let since = Instant::now();
        assert_eq!(status(&agent, &known).await, 200, "{away}");
        assert_eq!(status(&agent, &format!("garbage-that-is-new-{round}")).await, 503, "{away}");
        assert_eq!(status(&agent, &unknown).await, 503, "{away}");
        assert!(since.elapsed() < Duration::from_secs(5), "{away}: {:?}", since.elapsed());
        // It is asked again and again, and the log says once that it is away.
        eventually("a line of the log", async || {
            assert_eq!(status(&agent, &unknown).await, 503, "{away}");
            (said(&agent, "tokens cannot be validated") > round).then_some(())
        })
        .await;
        for _ in 0..20 {
            assert_eq!(status(&agent, &unknown).await, 503, "{away}");
        }
        assert_eq!(said(&agent, "tokens cannot be validated"), round + 1, "{}", agent.log());

        keystone.control(back);
        eventually("the token's turn", async || (status(&agent, &unknown).await == 200).then_some(())).await;
        let mut number = 0;
        eventually("a line of the log", async || {
            number += 1;
            assert_eq!(status(&agent, &format!("garbage-{round}-{number}")).await, 401, "{back}");
            (said(&agent, "tokens are validated again") > round).then_some(())
        })
        .await;
        assert_eq!(said(&agent, "tokens are validated again"), round + 1, "{}", agent.log());
    }
}

#[tokio::test]
async fn advice_when_agent_may_not_validate_tokens() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let workspace = keystone.workspace("");
    workspace.configure("[api.keystone]\nusername = \"alpha\"\nproject = \"alpha\"");
    std::fs::write(workspace.path("password"), "alpha").expect("written");
    let agent = Daemon::start(&workspace).await;
    let admin = keystone.admin_token().await;
    assert_eq!(status(&agent, &admin).await, 503);
    agent.wait_for_log("openstack role add").await;
}
