//! The client and the failures of etcd.

use std::time::Duration;

use nix::sys::signal::Signal;
use targetwatch::etcd::{
    Compare, EtcdError, EtcdRevision, KeyValueStore as _, LeaseId, RangeAnswer, RangeRequest, Txn, TxnOperation,
    TxnResult,
};

use super::cluster::{EtcdCluster, HaProxy, client_of, login};

fn put(key: &str, value: &str) -> Txn {
    Txn { success: vec![TxnOperation::put(key.to_owned(), value.to_owned())], ..Txn::default() }
}

#[tokio::test]
async fn transaction_compares_and_returns_results() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let client = cluster.client().await;
    let create = Txn {
        compares: vec![Compare::absent("/a")],
        success: vec![TxnOperation::put("/a", "1"), TxnOperation::get("/a")],
        failure: vec![TxnOperation::get("/a"), TxnOperation::delete("/none")],
    };
    let first = client.commit(&create).await.expect("made");
    let entries = first.results[1].entries();
    assert!(first.succeeded && entries[0].create_revision == first.header.revision && entries[0].value == "1");
    let second = client.commit(&create).await.expect("answered");
    assert!(!second.succeeded && second.results[1] == TxnResult::Deleted(0), "{second:?}");
    for (compare, expected) in [
        (Compare::unchanged_since("/a", first.header.revision), true),
        (Compare::value("/a", "2"), false),
        (Compare::lease("/a", LeaseId(7)), false),
    ] {
        let txn = Txn { compares: vec![compare.clone()], ..Txn::default() };
        assert_eq!(client.commit(&txn).await.expect("answered").succeeded, expected, "{compare:?}");
    }
    let pages = RangeRequest { limit: Some(1), ..RangeRequest::prefix("/") };
    client.commit(&put("/b", "")).await.expect("made");
    let page = client.range(&pages).await.expect("answered");
    assert!(page.entries.len() == 1 && page.has_more);
}

#[tokio::test]
async fn keys_written_after_a_revision_are_read_with_the_number_of_all() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let client = cluster.client().await;
    let mut revision = EtcdRevision(0);
    for key in ["/a/1", "/a/2", "/a/3", "/b"] {
        revision = client.commit(&put(key, "value")).await.expect("made").header.revision;
    }
    let delete = Txn { success: vec![TxnOperation::delete("/a/3")], ..Txn::default() };
    let request =
        RangeRequest { limit: Some(1), written_after: Some(revision), ..RangeRequest::prefix("/a/").keys_only() };
    let reads = Txn { success: vec![TxnOperation::Range(request.clone())], ..Txn::default() };
    for (change, expected, has_more, total) in [
        (None, None, false, 3),
        (Some(put("/a/2", "other")), Some("/a/2"), false, 3),
        (Some(put("/a/1", "other")), Some("/a/1"), true, 3),
        (Some(delete), Some("/a/1"), true, 2),
    ] {
        if let Some(change) = change {
            client.commit(&change).await.expect("made");
        }
        let alone = client.range(&request).await.expect("answered");
        let TxnResult::Range(in_txn) = client.commit(&reads).await.expect("answered").results.remove(0) else {
            panic!("another result")
        };
        for RangeAnswer { entries, total: found, has_more: more, .. } in [alone, in_txn] {
            assert_eq!(entries.first().map(|entry| &entry.key[..]), expected.map(str::as_bytes));
            assert!(entries.len() <= 1 && entries.iter().all(|entry| entry.value.is_empty()), "{entries:?}");
            assert_eq!((found, more), (total, has_more), "{expected:?}");
        }
    }
}

#[tokio::test]
async fn lease_that_ended_is_lost_and_an_unanswered_renewal_is_not() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let client = cluster.client().await;
    let lease = client.grant(Duration::from_secs(60)).await.expect("granted");
    let txn = Txn { success: vec![TxnOperation::put_leased("/alive", "", lease.id)], ..Txn::default() };
    client.commit(&txn).await.expect("made");
    assert_eq!(client.keep_alive(lease.id).await, Ok(Some(Duration::from_secs(60))));
    client.revoke(lease.id).await.expect("revoked");
    client.revoke(lease.id).await.expect("the second time as well");
    assert_eq!(client.keep_alive(lease.id).await, Ok(None));
    assert_eq!(client.commit(&txn).await, Err(EtcdError::LeaseNotFound));
    assert_eq!(client.range(&RangeRequest::key("/alive")).await.expect("answered").entries, []);
    cluster.signal(0, Signal::SIGSTOP);
    let error = client.keep_alive(lease.id).await.expect_err("no answer");
    assert!(matches!(error, EtcdError::TimedOut(_)), "{error:?}");
}

#[tokio::test]
async fn compacted_revision_and_full_database_have_their_errors() {
    let cluster = EtcdCluster::start(1, &["--quota-backend-bytes=2000000"]).await;
    let client = cluster.client().await;
    let revision = client.commit(&put("/a", "1")).await.expect("made").header.revision;
    client.commit(&put("/a", "2")).await.expect("made");
    cluster.etcdctl(0, &["compaction", &(revision.0 + 1).to_string()]);
    let old = RangeRequest { revision: Some(revision), ..RangeRequest::key("/a") };
    assert_eq!(client.range(&old).await, Err(EtcdError::Compacted));

    cluster.fill().await;
    client.range(&RangeRequest::key("/a")).await.expect("reads go on");
    cluster.make_room().await;
    client.commit(&put("/a", "3")).await.expect("made after the alarm is disarmed");
    let too_large = client.commit(&put("/a", &"x".repeat(2 << 20))).await;
    assert!(matches!(too_large, Err(EtcdError::TooLarge(_))), "{too_large:?}");
}

#[tokio::test]
async fn wrong_password_and_revoked_role_have_their_errors() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let run = |arguments: &[&str]| cluster.etcdctl(0, arguments);
    run(&["user", "add", "root:r"]);
    run(&["user", "add", "agent:secret"]);
    run(&["role", "add", "agents"]);
    run(&["role", "grant-permission", "agents", "readwrite", "--prefix=true", "/mine/"]);
    run(&["user", "grant-role", "agent", "agents"]);
    let early = login(&cluster, "agent", "secret").await;
    early.commit(&put("/mine/a", "0")).await.expect("made without a token before authentication is enabled");
    run(&["auth", "enable"]);

    early.commit(&put("/mine/a", "1")).await.expect("made after a login");
    let denied = early.commit(&put("/other", "1")).await;
    assert_eq!(denied, Err(EtcdError::PermissionDenied));
    let wrong = login(&cluster, "agent", "wrong").await.range(&RangeRequest::key("/mine/a")).await;
    assert!(matches!(wrong, Err(EtcdError::Unauthenticated(_))), "{wrong:?}");
    let none = cluster.client().await.range(&RangeRequest::key("/mine/a")).await;
    assert!(matches!(none, Err(EtcdError::Unauthenticated(_))), "{none:?}");

    // Every change of users and roles makes the tokens old.
    cluster.etcdctl(0, &["--user=root:r", "role", "add", "others"]);
    early.commit(&put("/mine/a", "2")).await.expect("made after another login");
    cluster.etcdctl(0, &["--user=root:r", "user", "revoke-role", "agent", "agents"]);
    let revoked = early.commit(&put("/mine/a", "3")).await;
    assert_eq!(revoked, Err(EtcdError::PermissionDenied));
}

#[tokio::test]
async fn requests_go_on_without_the_leader_and_fail_without_a_quorum() {
    let mut cluster = EtcdCluster::start(3, &[]).await;
    let client = cluster.client().await;
    client.commit(&put("/a", "1")).await.expect("made");

    let killed = cluster.leader();
    cluster.kill(killed);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while client.commit(&put("/a", "2")).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "no new leader");
    }
    cluster.restart(killed);
    cluster.until_ready().await;

    let stopped = cluster.leader();
    cluster.signal(stopped, Signal::SIGSTOP);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while client.commit(&put("/a", "3")).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "no new leader");
    }
    let entries = client.range(&RangeRequest::key("/a")).await.expect("answered").entries;
    assert_eq!(entries[0].value, "3");

    let other = (0..3).find(|member| *member != stopped).expect("a member");
    let alone = (0..3).find(|member| *member != stopped && *member != other).expect("a member");
    cluster.signal(other, Signal::SIGSTOP);
    let alone = client_of(&cluster.urls[alone..=alone]).await;
    let error = alone.commit(&put("/a", "4")).await.expect_err("no quorum");
    assert!(error.is_uncertain(), "{error:?}");
    let local = alone.range(&RangeRequest::key("/a").serializable()).await;
    assert!(!matches!(&local, Ok(answer) if answer.entries[0].value == "4"), "{local:?}");

    for member in [stopped, other] {
        cluster.signal(member, Signal::SIGCONT);
    }
    cluster.until_ready().await;
    let after = cluster.client().await.range(&RangeRequest::key("/a")).await.expect("answered");
    assert!(after.header.revision > EtcdRevision(0));
}

#[tokio::test]
async fn one_call_uses_another_endpoint_when_the_first_is_dead() {
    let mut cluster = EtcdCluster::start(3, &[]).await;
    let leader = cluster.leader();
    let killed = (leader + 1) % 3;
    cluster.kill(killed);
    let urls = [cluster.urls[killed].clone(), cluster.urls[leader].clone()];
    // A client begins with a random endpoint: with 20 clients, some begin with the dead one.
    for _ in 0..20 {
        let client = client_of(&urls).await;
        client.range(&RangeRequest::key("/a")).await.expect("answered by the other endpoint");
        client.commit(&put("/a", "1")).await.expect("made by the other endpoint");
    }
}

#[tokio::test]
async fn reads_and_changes_work_as_soon_as_etcd_is_back() {
    let mut cluster = EtcdCluster::start(1, &[]).await;
    let client = cluster.client().await;
    client.commit(&put("/a", "1")).await.expect("made");
    cluster.kill(0);
    // Each is an attempt: otherwise they would fail for up to a minute after etcd is back.
    for _ in 0..10 {
        let error = client.range(&RangeRequest::key("/a")).await.expect_err("etcd is away").to_string();
        assert!(!error.contains("waiting"), "{error}");
    }
    cluster.restart(0);
    cluster.until_ready().await;
    assert_eq!(client.range(&RangeRequest::key("/a")).await.expect("answered").entries[0].value, "1");
    client.commit(&put("/a", "2")).await.expect("made");
}

#[tokio::test]
async fn haproxy_that_cuts_idle_connections_causes_no_error() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let haproxy = HaProxy::start(&cluster.urls, Duration::from_millis(300)).await;
    let client = client_of(std::slice::from_ref(&haproxy.url)).await;
    let lease = client.grant(Duration::from_secs(60)).await.expect("granted");
    for n in 0..20 {
        // Around the time at which haproxy closes the connection.
        tokio::time::sleep(Duration::from_millis(290 + n)).await;
        let renewed = client.keep_alive(lease.id).await;
        assert!(matches!(renewed, Ok(Some(_))), "{n}: {renewed:?}");
    }
}
