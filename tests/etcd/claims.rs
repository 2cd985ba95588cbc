//! Claims while a member of etcd is cut off, with the presence and the claims of agents and a driver of this test.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use targetwatch::driver::{FactBoard, FactKey, FactKind, FactQuestion, SharedFact, Turn};
use targetwatch::etcd::{
    Compare, EtcdClient, FleetSize, KeyValue, KeyValueStore as _, ObservedKey, RangeRequest, Txn, TxnOperation,
};
use targetwatch::fleet::claims::Claims;
use targetwatch::fleet::presence::{NodeIdentity, Presence};
use targetwatch::model::TargetId;
use uuid::Uuid;

use super::cluster::{EtcdCluster, client_of};
use super::facts::{SOON, within};

const TARGET: TargetId = Uuid::from_u128(1);
const SUBJECT: &str = "access-key";

fn key(folder: &str) -> String {
    format!("/fleet/v1/{folder}/{TARGET}/lock_proof/{SUBJECT}")
}

fn fact_key(kind: FactKind) -> FactKey {
    FactKey { target: TARGET, kind, subject: SUBJECT.to_owned() }
}

/// A node with its own client.
struct ClaimingNode {
    client: Arc<EtcdClient>,
    board: Arc<FactBoard>,
    _presence: Presence,
    _claims: Claims,
}

impl ClaimingNode {
    async fn start(name: &str, urls: &[String]) -> Self {
        let (client, board) = (client_of(urls).await, Arc::<FactBoard>::default());
        let [node, hostname, boot_id, version] = [name; 4].map(str::to_owned);
        let identity = NodeIdentity { node, labels: Default::default(), hostname, boot_id, version };
        let (size, generation) = (FleetSize::default(), ObservedKey::new("/t/generation"));
        let presence = Presence::start(client.clone(), "/fleet/v1/", identity, Box::new(|| None), size, generation);
        let claims = Claims::start(client.clone(), "/fleet/v1/", name, presence.lease(), board.clone());
        Self { client, board, _presence: presence, _claims: claims }
    }

    fn turn(&self, kind: FactKind) -> Turn {
        let (age_max, wanted_for) = (Duration::from_hours(1), Duration::from_hours(1));
        self.board.turn(FactQuestion { key: &fact_key(kind), age_max, wanted_for })
    }

    /// Finds the fact, as the driver of the holder.
    async fn find(&self, value: &str) {
        within(SOON, "the claim", async || (self.turn(FactKind::LockProof) == Turn::Find).then_some(())).await;
        let fact = SharedFact { node: String::new(), observed_at: Timestamp::now(), value: value.to_owned() };
        self.board.post(&fact_key(FactKind::LockProof), fact);
    }

    /// Waits until the node uses a fact of another one with this value.
    async fn uses(&self, value: &str) {
        within(SOON, value, async || match self.turn(FactKind::LockProof) {
            Turn::Use(fact) if fact.value == value => Some(()),
            _ => None,
        })
        .await;
    }
}

async fn entry(client: &EtcdClient, key: String) -> Option<KeyValue> {
    client.range(&RangeRequest::key(key)).await.ok()?.entries.pop()
}

/// Waits until the fact in etcd has this value.
async fn wait_for_fact(client: &EtcdClient, value: &str) {
    within(SOON, value, async || {
        let stored = entry(client, key("facts")).await?;
        String::from_utf8_lossy(&stored.value).contains(value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn claim_of_a_node_that_is_cut_off_with_the_leader_is_taken_over() {
    let etcd = EtcdCluster::start_in_namespaces(3).await;
    let cut = etcd.leader();
    let majority: Vec<String> =
        etcd.urls.iter().enumerate().filter(|(n, _)| *n != cut).map(|(_, url)| url.clone()).collect();
    let registered = TxnOperation::put(format!("/fleet/v1/registry/targets/{TARGET}"), "{}");
    etcd.client().await.commit(&Txn { success: vec![registered], ..Txn::default() }).await.expect("made");
    let late = ClaimingNode::start("late", &etcd.urls[cut..=cut]).await;
    late.find("found first").await;
    wait_for_fact(&late.client, "found first").await;
    let next = ClaimingNode::start("next", &majority).await;
    next.uses("found first").await;
    let claim = entry(&next.client, key("claims")).await.expect("a claim");
    assert_eq!(claim.value, "late");

    etcd.network().isolate(Some(cut));
    late.find("found while cut off").await;
    // The other members end the lease when its time to live has passed. Here they do so as soon as they have a leader.
    let lease = claim.lease.expect("a lease");
    within(SOON, "a leader", async || next.client.revoke(lease).await.ok()).await;
    assert_eq!(entry(&next.client, key("claims")).await, None);
    // A new question makes the node look at once.
    next.turn(FactKind::UsageListing);
    next.find("found by the next holder").await;
    wait_for_fact(&next.client, "found by the next holder").await;
    assert_eq!(late.turn(FactKind::LockProof), Turn::Find, "the late holder does not know, and goes on");
    let write = Txn {
        compares: vec![Compare::created_at(key("claims"), claim.create_revision)],
        success: vec![TxnOperation::put(key("facts"), "of the late holder")],
        ..Txn::default()
    };
    late.client.commit(&write).await.expect_err("no quorum");

    etcd.network().isolate(None);
    etcd.until_ready().await;
    let refused = late.client.commit(&write).await.expect("an answer");
    assert!(!refused.succeeded, "the claim has another revision");
    late.uses("found by the next holder").await;
    wait_for_fact(&next.client, "found by the next holder").await;
    let claim = entry(&next.client, key("claims")).await.expect("a claim");
    assert_eq!(claim.value, "next");
}
