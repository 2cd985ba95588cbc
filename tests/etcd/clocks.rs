//! Facts of agents whose clocks are wrong, as docs/fleet.md says: a proof counts for two intervals, and news of a
//! watched bucket for two intervals and a look at etcd.
//!
//! Services refuse requests of a node whose clock differs by 15 minutes or more. So smaller differences are tested.

use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;
use targetwatch::etcd::{KeyValueStore as _, RangeRequest};

use super::cluster::EtcdCluster;
use super::facts::{SOON, is_proved, node, proofs, report_of, value_of, within};
use super::failures::{set_clock, use_clock};
use super::fleet::{assert_sound, metric};
use crate::daemon::Daemon;
use crate::report::detail_of;
use crate::storage::{immutable_target, s3, s3_target};
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace};

/// The part of a report about a node that gets no recent news.
const NO_NEWS: &str = "there is no recent news from the other nodes";

/// Returns a workspace of a node whose clock differs by `offset`. A proof counts for 20 minutes.
fn node_with_clock(name: &str, etcd: &EtcdCluster, offset: &str) -> Workspace {
    let mut workspace = node(name, etcd, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    workspace.configure("[s3.lock_proof]\ninterval = \"10m\"");
    use_clock(&mut workspace);
    set_clock(&workspace, offset);
    workspace
}

fn is_available(report: &Value) -> bool {
    report["status"] == "available" && report["verdict"] == "available"
}

/// Waits until a node uses the proof of the node `finder`.
async fn until_proof_is_used(daemon: &Daemon, id: &str) {
    let is_of_finder = |report: &Value| is_proved(report) && report["object_lock_proof"]["node"] == "finder";
    let report = report_of(daemon, id, "the proof of the other node", is_of_finder).await;
    assert!(is_available(&report), "{report:#}");
}

#[tokio::test]
async fn proof_counts_for_two_intervals_by_the_clock_of_the_node_that_uses_it() {
    let (etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    let finder = Daemon::start(&node_with_clock("finder", &etcd, "-7m")).await;
    let locked = finder.create(immutable_target(&s3, "locked")).await;
    report_of(&finder, &locked, "a proof", is_proved).await;
    let of_behind = node_with_clock("behind", &etcd, "-14m");
    let (behind, recent) =
        (Daemon::start(&of_behind).await, Daemon::start(&node_with_clock("recent", &etcd, "+8m")).await);
    let ahead = Daemon::start(&node_with_clock("ahead", &etcd, "+14m")).await;
    for daemon in [&behind, &recent] {
        until_proof_is_used(daemon, &locked).await;
    }

    // Facts of all targets are read together. So when the node has news of this one, it has the old proof too.
    report_of(&ahead, &locked, "a probe", |report| !report["verdict"].is_null()).await;
    let plain = finder.create(s3_target(&s3, "plain")).await;
    report_of(&ahead, &plain, "old news", |report| {
        is_available(report)
            && (value_of(&etcd, "claims", &plain, "bucket") == "ahead" || detail_of(report, "bucket").contains(NO_NEWS))
    })
    .await;
    let report = ahead.report(&locked).await;
    assert_eq!((&report["reason"], proofs(&s3)), (&"lock_proof_pending".into(), 1), "{report:#}");
    ahead.check(&locked).await;
    let report = report_of(&ahead, &locked, "its own proof", is_proved).await;
    assert_eq!((&report["object_lock_proof"]["node"], proofs(&s3)), (&Value::Null, 2), "{report:#}");
    assert!(is_available(&report), "{report:#}");

    // A verdict in use is not lost when the clock is set, in either direction.
    let is_used = async || metric(&behind, "targetwatch_fleet_shared_facts{fact=\"lock_proof\"}").await == Some(1.0);
    for (offset, used) in [("+14m", false), ("-14m", true)] {
        set_clock(&of_behind, offset);
        within(SOON, "a probe with this clock", async || (is_used().await == used).then_some(())).await;
        let before = behind.report(&locked).await["checked_at"].clone();
        let report = report_of(&behind, &locked, "a report", |report| report["checked_at"] != before).await;
        assert!(is_available(&report) && is_proved(&report), "{report:#}");
        assert_eq!(report["object_lock_proof"]["node"], "finder", "{report:#}");
    }
    assert_eq!(proofs(&s3), 2);
    for daemon in [&finder, &behind, &recent, &ahead] {
        assert_sound(daemon, 0.0).await;
    }
}

#[tokio::test]
async fn news_of_a_node_with_a_wrong_clock_never_decides_and_ends() {
    let (etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    let of_holder = node_with_clock("holder", &etcd, "+14m");
    let holder = Daemon::start(&of_holder).await;
    let id = holder.create(s3_target(&s3, "plain")).await;
    within(SOON, "the claim", async || (value_of(&etcd, "claims", &id, "bucket") == "holder").then_some(())).await;
    let other = Daemon::start(&node_with_clock("other", &etcd, "+0")).await;
    let is_watched = |report: &Value| is_available(report) && report["bucket_watched_by"] == "holder";
    report_of(&other, &id, "news from the future", is_watched).await;

    set_clock(&of_holder, "-14m");
    report_of(&other, &id, "news of 14 minutes ago", |report| {
        is_available(report) && report["bucket_watched_by"].is_null() && detail_of(report, "bucket").contains(NO_NEWS)
    })
    .await;
    set_clock(&of_holder, "+0");
    report_of(&other, &id, "recent news", is_watched).await;

    set_clock(&of_holder, "+14m");
    let is_ahead = || {
        let fact: Value = serde_json::from_str(&value_of(&etcd, "facts", &id, "bucket")).ok()?;
        let observed_at: Timestamp = fact["observed_at"].as_str()?.parse().ok()?;
        (observed_at > Timestamp::now() + Duration::from_mins(10)).then_some(())
    };
    within(SOON, "a fact from the future", async || is_ahead()).await;
    report_of(&other, &id, "news from the future", is_watched).await;
    let client = etcd.client().await;
    let alive = client.range(&RangeRequest::key("/fleet/v1/nodes/holder/alive")).await.expect("answered").entries;
    let lease = alive.first().and_then(|entry| entry.lease).expect("the lease of the holder");
    holder.signal(Signal::SIGSTOP);
    // A node that asks for another fact reads all of them at once, so also the latest news.
    other.create(s3_target(&s3, "versioned")).await;
    // Two intervals and a look at etcd take 56 s. It is 14 minutes until the clock of this node is that of the news.
    let report = within(2 * SOON, "the end of the news", async || {
        // Otherwise the claim would end too, and this node would watch the bucket.
        client.keep_alive(lease).await.expect("answered").expect("renewed");
        Some(other.report(&id).await).filter(|report| report["bucket_watched_by"].is_null())
    })
    .await;
    assert!(is_available(&report), "{report:#}");
    assert_eq!(value_of(&etcd, "claims", &id, "bucket"), "holder");
    holder.signal(Signal::SIGCONT);
    // The probe of the only target was due while the agent was paused.
    assert_sound(&holder, 1.0).await;
    assert_sound(&other, 0.0).await;
    for daemon in [&holder, &other] {
        // It has been probed since.
        let report = daemon.report(&id).await;
        assert!(is_available(&report), "{report:#}");
    }
}

#[tokio::test]
async fn only_the_node_is_offline_whose_clock_is_an_hour_wrong_and_it_comes_back() {
    let (etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    let of_wrong = node_with_clock("wrong", &etcd, "+0");
    let wrong = Daemon::start(&of_wrong).await;
    let id = wrong.create(immutable_target(&s3, "locked")).await;
    report_of(&wrong, &id, "a proof", is_proved).await;
    let holds = |name: &str| ["lock_proof", "bucket"].iter().all(|fact| value_of(&etcd, "claims", &id, fact) == name);
    within(SOON, "the claims", async || holds("wrong").then_some(())).await;
    let right = Daemon::start(&node_with_clock("right", &etcd, "+0")).await;
    let is_right = |report: &Value| is_available(report) && is_proved(report);
    report_of(&right, &id, "the proof of the holder", is_right).await;
    for offset in ["+1h", "-1h"] {
        set_clock(&of_wrong, offset);
        // A node that does not watch the bucket asks it rarely, or when a check is requested.
        let report = wrong.check(&id).await;
        assert_eq!((&report["status"], &report["reason"]), (&"offline".into(), &"clock_skewed".into()), "{report:#}");
        within(SOON, "another holder", async || holds("right").then_some(())).await;
        let report = right.report(&id).await;
        assert!(is_right(&report), "{report:#}");
        set_clock(&of_wrong, "+0");
        let is_right_again = |report: &Value| is_right(report) && report["bucket_watched_by"] == "right";
        report_of(&wrong, &id, "the right clock", is_right_again).await;
    }
    let report = right.report(&id).await;
    assert!(is_right(&report), "{report:#}");
    assert_eq!(proofs(&s3), 1);
    for daemon in [&wrong, &right] {
        assert_sound(daemon, 0.0).await;
    }
}
