//! Tests with a store that stops answering, and with one whose answer is lost.

use tokio::time::{Instant, sleep};

use super::*;
use crate::etcd::simulation::{Link, REQUEST_TIMEOUT, SimulatedCluster};
use crate::etcd::{AnswerHeader, GrantedLease, KeyValue, LeaseId, RangeAnswer};
use crate::registry::fixtures::nfs;

/// A store with an empty registry that answers this number of requests. Later ones wait for ever.
struct HangingStore {
    answers: std::sync::atomic::AtomicU32,
    cloud_id: Uuid,
}

impl HangingStore {
    async fn wait(&self) {
        use std::sync::atomic::Ordering::SeqCst;
        let answer = |left: u32| left.checked_sub(1);
        if self.answers.fetch_update(SeqCst, SeqCst, answer).is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn found(&self, key: &[u8]) -> RangeAnswer {
        let entries = self.entries(key);
        RangeAnswer { total: entries.len() as u64, entries, ..RangeAnswer::default() }
    }

    fn entries(&self, key: &[u8]) -> Vec<KeyValue> {
        let key = String::from_utf8_lossy(key);
        let value = match key.rsplit('/').next() {
            Some("cloud_id") => self.cloud_id.to_string(),
            Some("schema") => r#"{"min_reader":1,"min_writer":1}"#.to_owned(),
            Some("generation") => "7".to_owned(),
            _ => return Vec::new(),
        };
        let (create_revision, mod_revision) = (EtcdRevision(1), EtcdRevision(1));
        vec![KeyValue { key: key.into_owned().into(), value: value.into(), create_revision, mod_revision, lease: None }]
    }
}

#[async_trait]
impl KeyValueStore for HangingStore {
    async fn range(&self, request: &RangeRequest) -> Result<RangeAnswer, EtcdError> {
        self.wait().await;
        Ok(self.found(&request.keys.start))
    }

    async fn commit(&self, txn: &Txn) -> Result<TxnAnswer, EtcdError> {
        self.wait().await;
        let succeeded = txn.compares.is_empty();
        let operations = if succeeded { &txn.success } else { &txn.failure };
        let result = |operation: &TxnOperation| match operation {
            TxnOperation::Range(request) => TxnResult::Range(self.found(&request.keys.start)),
            _ => TxnResult::Put,
        };
        let results = operations.iter().map(result).collect();
        Ok(TxnAnswer { header: AnswerHeader::default(), succeeded, results })
    }

    async fn grant(&self, _: Duration) -> Result<GrantedLease, EtcdError> {
        std::future::pending().await
    }

    async fn keep_alive(&self, _: LeaseId) -> Result<Option<Duration>, EtcdError> {
        std::future::pending().await
    }

    async fn revoke(&self, _: LeaseId) -> Result<(), EtcdError> {
        std::future::pending().await
    }
}

/// A registry whose store answers this number of requests, and its version.
fn hanging_after(answers: u32) -> (EtcdRegistry, SharedVersion) {
    let cloud_id = Uuid::new_v4();
    let store = HangingStore { answers: answers.into(), cloud_id };
    let version = SharedVersion { cloud_id: CloudId(cloud_id), generation: 7 };
    (EtcdRegistry::new(Arc::new(store), "/cloud"), version)
}

#[tokio::test(start_paused = true)]
async fn read_of_the_content_ends_in_time() {
    let (registry, version) = hanging_after(1);
    assert_eq!(registry.read().await, Ok(SharedContent { version, targets: Vec::new() }), "one request");
    let (registry, _) = hanging_after(0);
    let began = Instant::now();
    let refused = registry.read().await.expect_err("no answer").to_string();
    assert_eq!(refused, "the registry in etcd could not be read within 20 s");
    assert_eq!(began.elapsed(), CONTENT_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn reads_before_a_commit_end_in_time() {
    for writes in [Vec::new(), vec![Write::DeleteTarget(Uuid::new_v4())]] {
        let (registry, version) = hanging_after(0);
        let began = Instant::now();
        let refused = registry.commit(version, &Snapshot::default(), &writes).await;
        let expected = "the registry in etcd could not be read for the change within 5 s";
        assert_eq!(refused, Err(Unavailable(expected.to_owned()).into()));
        assert_eq!(began.elapsed(), PREPARE_TIMEOUT);
    }
    let (registry, version) = hanging_after(1);
    assert_eq!(registry.commit(version, &Snapshot::default(), &[]).await, Ok(version), "one request");
}

#[tokio::test(start_paused = true)]
async fn version_is_known_after_an_answer_was_lost() {
    let cluster = Arc::new(SimulatedCluster::default());
    let client = cluster.client(0);
    let registry = EtcdRegistry::new(client.clone(), "/cloud");
    registry.cloud_id().await.expect("created");
    let SharedContent { version, .. } = registry.read().await.expect("empty");
    let (target, first_type) = nfs("nas:/a");
    let writes = [Write::PutTarget(target.into()), Write::PutType(first_type.into())];
    let began = Instant::now();
    let before = Snapshot::default();
    let committed = registry.commit(version, &before, &writes);
    // The reads before it are answered within some milliseconds, and the next request loses its answer.
    let lose_one_answer = async {
        sleep(Duration::from_millis(1)).await;
        client.set_link(Link::LosesAnswers);
        sleep(REQUEST_TIMEOUT / 2).await;
        client.set_link(Link::Up);
    };
    let (committed, ()) = tokio::join!(committed, lose_one_answer);
    let committed = committed.expect("found to be made");
    assert!(committed != version && began.elapsed() >= REQUEST_TIMEOUT);
    // A renewal shows the generation. Comparing it needs no request of its own.
    let generation = cluster.get(&registry.keys.generation()).expect("a generation");
    registry.observed_generation().see(generation.value, true);
    let requests = cluster.requests();
    assert_eq!(registry.version(Duration::MAX).await, Ok(committed));
    assert_eq!(cluster.requests(), requests);
}
