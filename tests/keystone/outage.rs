//! Keystone away and back.

use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::peer::{Keystone, status};

#[tokio::test]
async fn known_tokens_go_on_while_keystone_is_away_and_others_when_it_is_back() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let agent = Daemon::start(&keystone.place("timeout = \"1s\"")).await;
    let known = keystone.token("alpha", "alpha", Some("alpha")).await;
    let unknown = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&agent, &known).await, 200);

    for (away, back) in [("halt", "again"), ("pause", "resume")] {
        keystone.control(away);
        let since = Instant::now();
        assert_eq!(status(&agent, &known).await, 200, "{away}");
        assert_eq!(status(&agent, "garbage-that-is-new").await, 503, "{away}");
        if away == "halt" {
            assert_eq!(status(&agent, &unknown).await, 503);
        }
        assert!(since.elapsed() < Duration::from_secs(5), "{away}: {:?}", since.elapsed());
        agent.logged("tokens cannot be validated").await;
        keystone.control(back);
        assert_eq!(status(&agent, &unknown).await, 200, "{back}");
    }
}

#[tokio::test]
async fn an_agent_that_may_not_validate_says_what_to_do() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let place = keystone.place("");
    place.configure("[api.keystone]\nusername = \"alpha\"\nproject = \"alpha\"");
    std::fs::write(place.path("password"), "alpha").expect("written");
    let agent = Daemon::start(&place).await;
    let admin = keystone.admin_token().await;
    assert_eq!(status(&agent, &admin).await, 503);
    agent.logged("openstack role add").await;
}
