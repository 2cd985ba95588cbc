//! A simulated cluster, for tests. It has the clock of the runtime, which tests pause, so hours pass in milliseconds.
//!
//! Each client has its own link to the cluster, which can be cut, lose answers, delay requests, or lead to a member
//! that was separated from the others. Transactions are atomic and ordered, and every write is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    AnswerHeader, Compare, CompareCondition, EtcdError, EtcdRevision, GrantedLease, KeyValue, KeyValueStore, LeaseId,
    RangeAnswer, RangeRequest, Txn, TxnAnswer, TxnOperation, TxnResult,
};

/// Time after which a client gives up.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How a client reaches the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// Requests are answered after some milliseconds.
    #[default]
    Up,
    /// No request arrives.
    Cut,
    /// Requests are served, and the answers are lost.
    LosesAnswers,
    /// Requests are served this long after they were sent. The client has given up by then.
    Delays(Duration),
    /// Each request has another fate, which this number determines: it is served, not served, served late, or its
    /// answer is lost.
    Erratic(u64),
    /// The member that the client reaches is separated from the others. It answers serializable reads from the state
    /// that it had, and nothing else.
    Minority,
}

/// A write to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedWrite {
    /// When.
    pub at: Instant,
    /// The revision of the store after it.
    pub revision: EtcdRevision,
    /// The client that sent it. `None`: the end of a lease.
    pub client: Option<usize>,
    /// The key.
    pub key: Bytes,
    /// The new value. `None`: it was deleted.
    pub value: Option<Bytes>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    raft_term: u64,
    keys: BTreeMap<Bytes, KeyValue>,
    leases: BTreeMap<LeaseId, Lease>,
    /// Leases that ended. An old etcd says that their renewal succeeded.
    ended: BTreeMap<LeaseId, Duration>,
    last_lease: i64,
    writes: Vec<RecordedWrite>,
    requests: u64,
    is_full: bool,
    /// Largest number of keys in the answer to one read.
    entries_max: Option<usize>,
    renews_ended_leases: bool,
    minority: BTreeMap<Bytes, KeyValue>,
    /// Time to serve one request. Requests are served one at a time.
    service_time: Duration,
    /// When all requests so far are served.
    busy_until: Option<Instant>,
}

/// The cluster.
#[derive(Debug, Default)]
pub struct SimulatedCluster(Mutex<State>);

/// A client of the cluster.
#[derive(Debug)]
pub struct SimulatedClient {
    cluster: Arc<SimulatedCluster>,
    number: usize,
    link: Mutex<Link>,
    sent: AtomicU64,
}

impl SimulatedCluster {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire();
        state
    }

    /// Returns a client with this number.
    pub fn client(self: &Arc<Self>, number: usize) -> Arc<SimulatedClient> {
        Arc::new(SimulatedClient { cluster: self.clone(), number, link: Mutex::default(), sent: AtomicU64::default() })
    }

    /// Returns a key.
    pub fn get(&self, key: &str) -> Option<KeyValue> {
        self.state().keys.get(key.as_bytes()).cloned()
    }

    /// Writes a key, as another program.
    pub fn put(&self, key: &str, value: &str) {
        let txn = Txn { success: vec![TxnOperation::put(key.to_owned(), value.to_owned())], ..Txn::default() };
        drop(self.state().commit(&txn, usize::MAX));
    }

    /// Deletes keys, as another program.
    pub fn delete_all(&self, keys: &[String]) {
        let success = keys.iter().map(|key| TxnOperation::delete(key.clone())).collect();
        drop(self.state().commit(&Txn { success, ..Txn::default() }, usize::MAX));
    }

    /// Returns the keys that begin with a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let state = self.state();
        let keys = state.keys.keys().map(|key| String::from_utf8_lossy(key).into_owned());
        keys.filter(|key| key.starts_with(prefix)).collect()
    }

    /// Returns another cluster, with the keys and the writes as they were at a revision.
    pub fn at(&self, revision: EtcdRevision) -> Arc<Self> {
        let state = self.state();
        let (keys, mut writes) = (state.keys_at(revision), state.writes.clone());
        writes.retain(|write| write.revision <= revision);
        Arc::new(Self(Mutex::new(State { revision: revision.0, keys, writes, ..State::default() })))
    }

    /// Returns all writes so far.
    pub fn writes(&self) -> Vec<RecordedWrite> {
        self.state().writes.clone()
    }

    /// Number of requests that were served.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Elects another leader, after which all times to live start again.
    pub fn elect(&self) {
        let (mut state, now) = (self.state(), Instant::now());
        state.raft_term += 1;
        state.leases.values_mut().for_each(|lease| lease.ends = now + lease.ttl);
    }

    /// Ends a lease although it was renewed, as a deposed leader of an old etcd does.
    pub fn revoke_wrongly(&self, lease: LeaseId) {
        self.state().end([lease].into(), None);
    }

    /// Lets renewals of leases that have ended succeed, as in an old etcd.
    pub fn renew_ended_leases(&self) {
        self.state().renews_ended_leases = true;
    }

    /// Sets whether writes are refused because the quota is reached.
    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// Refuses reads of more keys than this with the error that the answer is too large, as if the values were long.
    pub fn set_entries_max(&self, entries_max: Option<usize>) {
        self.state().entries_max = entries_max;
    }

    /// Sets the time to serve one request. Requests are served one at a time. A client that has given up is served too.
    pub fn set_service_time(&self, time: Duration) {
        self.state().service_time = time;
    }

    /// Separates a member from the others. It keeps the present state.
    pub fn separate_minority(&self) {
        let mut state = self.state();
        state.minority = state.keys.clone();
    }
}

impl State {
    fn header(&self) -> AnswerHeader {
        let revision = EtcdRevision(self.revision);
        AnswerHeader { cluster_id: 1, member_id: 1, revision, raft_term: self.raft_term }
    }

    /// Returns when a request that arrives now is served.
    fn queue(&mut self) -> Instant {
        let now = Instant::now();
        let served = self.busy_until.map_or(now, |until| until.max(now)) + self.service_time;
        self.busy_until = Some(served);
        served
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let ended = self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        self.end(ended, None);
    }

    fn end(&mut self, leases: BTreeSet<LeaseId>, client: Option<usize>) {
        for id in leases {
            let Some(lease) = self.leases.remove(&id) else { continue };
            self.ended.insert(id, lease.ttl);
            let keys: Vec<_> = self.keys.values().filter(|entry| entry.lease == Some(id)).cloned().collect();
            if !keys.is_empty() {
                self.revision += 1;
            }
            keys.into_iter().for_each(|entry| self.delete(&entry.key, client));
        }
    }

    fn delete(&mut self, key: &Bytes, client: Option<usize>) {
        self.keys.remove(key);
        self.record(key, None, client);
    }

    fn record(&mut self, key: &Bytes, value: Option<&Bytes>, client: Option<usize>) {
        let (at, revision) = (Instant::now(), EtcdRevision(self.revision));
        self.writes.push(RecordedWrite { at, revision, client, key: key.clone(), value: value.cloned() });
    }

    /// Returns the keys as they were at a revision, without their leases.
    fn keys_at(&self, revision: EtcdRevision) -> BTreeMap<Bytes, KeyValue> {
        let mut keys: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
        for write in self.writes.iter().take_while(|write| write.revision <= revision) {
            let (key, mod_revision) = (write.key.clone(), write.revision);
            let create_revision = keys.remove(&key).map_or(mod_revision, |former| former.create_revision);
            if let Some(value) = write.value.clone() {
                keys.insert(key.clone(), KeyValue { key, value, create_revision, mod_revision, lease: None });
            }
        }
        keys
    }

    fn range(&self, keys: &BTreeMap<Bytes, KeyValue>, request: &RangeRequest) -> Result<RangeAnswer, EtcdError> {
        let former = request.revision.map(|revision| self.keys_at(revision));
        let keys = former.as_ref().unwrap_or(keys);
        let in_interval = || keys.values().filter(|entry| request.keys.contains(&entry.key));
        let is_answered = |entry: &&KeyValue| request.written_after.is_none_or(|after| entry.mod_revision > after);
        let without_values = |entry| KeyValue { value: Bytes::new(), ..entry };
        let found = in_interval().filter(is_answered).cloned();
        let mut entries: Vec<_> =
            found.map(|entry| if request.is_keys_only { without_values(entry) } else { entry }).collect();
        let limit = request.limit.map_or(usize::MAX, |limit| limit as usize);
        let (total, has_more) = (in_interval().count() as u64, entries.len() > limit);
        entries.truncate(limit);
        if self.entries_max.is_some_and(|max| entries.len() > max) {
            return Err(EtcdError::TooLarge(format!("{} keys", entries.len())));
        }
        Ok(RangeAnswer { header: self.header(), entries, total, has_more })
    }

    fn is_true(keys: &BTreeMap<Bytes, KeyValue>, Compare { key, condition }: &Compare) -> bool {
        let entry = keys.get(key);
        match condition {
            CompareCondition::Exists => entry.is_some(),
            CompareCondition::CreateRevision(revision) => {
                entry.map_or(EtcdRevision(0), |entry| entry.create_revision) == *revision
            }
            CompareCondition::ModRevision(revision) => {
                entry.map_or(EtcdRevision(0), |entry| entry.mod_revision) == *revision
            }
            CompareCondition::Value(value) => entry.is_some_and(|entry| entry.value == value),
            CompareCondition::Lease(lease) => entry.and_then(|entry| entry.lease) == *lease,
        }
    }

    fn commit(&mut self, txn: &Txn, client: usize) -> Result<TxnAnswer, EtcdError> {
        let succeeded = txn.compares.iter().all(|compare| Self::is_true(&self.keys, compare));
        let operations = if succeeded { &txn.success } else { &txn.failure };
        let is_unknown = |operation: &TxnOperation| matches!(operation, TxnOperation::Put { lease: Some(lease), .. } if !self.leases.contains_key(lease));
        if operations.iter().any(is_unknown) {
            return Err(EtcdError::LeaseNotFound);
        }
        let writes = operations.iter().any(|operation| !matches!(operation, TxnOperation::Range(_)));
        if writes && self.is_full {
            return Err(EtcdError::NoSpace);
        }
        // A transaction with a read that is too large changes nothing.
        let read = |operation: &TxnOperation| match operation {
            TxnOperation::Range(request) => Some(self.range(&self.keys, request)),
            TxnOperation::Put { .. } | TxnOperation::Delete(_) => None,
        };
        operations.iter().filter_map(read).try_for_each(|answer| answer.map(drop))?;
        self.revision += u64::from(writes);
        let revision = EtcdRevision(self.revision);
        let mut results = Vec::new();
        for operation in operations {
            results.push(match operation {
                TxnOperation::Put { key, value, lease } => {
                    let create_revision = self.keys.get(key).map_or(revision, |entry| entry.create_revision);
                    let (key, value, lease) = (key.clone(), value.clone(), *lease);
                    self.record(&key, Some(&value), Some(client));
                    let entry = KeyValue { key: key.clone(), value, create_revision, mod_revision: revision, lease };
                    self.keys.insert(key, entry);
                    TxnResult::Put
                }
                TxnOperation::Delete(range) => {
                    let keys: Vec<_> = self.keys.keys().filter(|key| range.contains(key)).cloned().collect();
                    keys.iter().for_each(|key| self.delete(key, Some(client)));
                    TxnResult::Deleted(keys.len() as u64)
                }
                TxnOperation::Range(request) => TxnResult::Range(self.range(&self.keys, request)?),
            });
        }
        Ok(TxnAnswer { header: self.header(), succeeded, results })
    }
}

impl SimulatedClient {
    /// Changes the link to the cluster.
    pub fn set_link(&self, link: Link) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn link(&self) -> Link {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what happens to the next request.
    fn fate(&self) -> Link {
        let Link::Erratic(seed) = self.link() else { return self.link() };
        // A step of SplitMix64.
        let sent = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let mixed = seed.wrapping_add(sent.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        match mixed % 10 {
            0..=5 => Link::Up,
            6 => Link::Cut,
            7 => Link::LosesAnswers,
            _ => Link::Delays(Duration::from_secs((mixed >> 8) % 200)),
        }
    }

    /// Serves a request as the link does it.
    async fn serve<T: Send + 'static>(
        &self,
        serve: impl FnOnce(&mut State) -> Result<T, EtcdError> + Send + 'static,
    ) -> Result<T, EtcdError> {
        let cluster = self.cluster.clone();
        let served = move || {
            let mut state = cluster.state();
            state.requests += 1;
            serve(&mut state)
        };
        let sent = Instant::now();
        match self.fate() {
            Link::Up => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let at = self.cluster.state().queue();
                if at > sent + REQUEST_TIMEOUT {
                    tokio::spawn(async move {
                        tokio::time::sleep_until(at).await;
                        drop(served());
                    });
                    tokio::time::sleep_until(sent + REQUEST_TIMEOUT).await;
                    return Err(EtcdError::TimedOut("it is overloaded".to_owned()));
                }
                tokio::time::sleep_until(at).await;
                let answer = served();
                tokio::time::sleep(Duration::from_millis(2)).await;
                return answer;
            }
            Link::Cut => return Err(EtcdError::Unreachable("the link is cut".to_owned())),
            Link::Minority | Link::Erratic(_) => {}
            Link::LosesAnswers => drop(served()),
            Link::Delays(delay) => {
                // The request is on its way even if the client gives up.
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(served());
                });
            }
        }
        tokio::time::sleep(REQUEST_TIMEOUT).await;
        Err(EtcdError::TimedOut(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())))
    }
}

#[async_trait]
impl KeyValueStore for SimulatedClient {
    async fn range(&self, request: &RangeRequest) -> Result<RangeAnswer, EtcdError> {
        let (request, is_old) = (request.clone(), self.link() == Link::Minority && request.is_serializable);
        let answer = move |state: &mut State| state.range(if is_old { &state.minority } else { &state.keys }, &request);
        if is_old { answer(&mut self.cluster.state()) } else { self.serve(answer).await }
    }

    async fn commit(&self, txn: &Txn) -> Result<TxnAnswer, EtcdError> {
        if self.link() == Link::Minority && txn.is_serializable() {
            let state = self.cluster.state();
            let mut cut_off = State { revision: state.revision, raft_term: state.raft_term, ..State::default() };
            cut_off.keys.clone_from(&state.minority);
            return cut_off.commit(txn, self.number);
        }
        let (txn, number) = (txn.clone(), self.number);
        self.serve(move |state| state.commit(&txn, number)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<GrantedLease, EtcdError> {
        self.serve(move |state| {
            if state.is_full {
                return Err(EtcdError::NoSpace);
            }
            state.last_lease += 1;
            let id = LeaseId(state.last_lease);
            state.leases.insert(id, Lease { ttl, ends: Instant::now() + ttl });
            Ok(GrantedLease { id, ttl, header: state.header() })
        })
        .await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, EtcdError> {
        self.serve(move |state| {
            if state.renews_ended_leases
                && let Some(ttl) = state.ended.get(&lease)
            {
                return Ok(Some(*ttl));
            }
            let now = Instant::now();
            Ok(state.leases.get_mut(&lease).map(|found| {
                found.ends = now + found.ttl;
                found.ttl
            }))
        })
        .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        let number = self.number;
        self.serve(move |state| {
            state.end([lease].into(), Some(number));
            Ok(())
        })
        .await
    }
}

mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lease_deletes_its_keys_unless_it_is_renewed() {
        let cluster = Arc::new(SimulatedCluster::default());
        let client = cluster.client(0);
        let lease = client.grant(Duration::from_secs(60)).await.expect("a lease").id;
        let put = Txn { success: vec![TxnOperation::put_leased("a", "1", lease)], ..Txn::default() };
        assert!(client.commit(&put).await.expect("an answer").succeeded);
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(client.keep_alive(lease).await, Ok(Some(Duration::from_secs(60))));
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(cluster.get("a").is_some());
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!((cluster.get("a"), client.keep_alive(lease).await), (None, Ok(None)));
        assert_eq!(client.commit(&put).await, Err(EtcdError::LeaseNotFound));
    }

    #[tokio::test(start_paused = true)]
    async fn links_fail_as_they_say() {
        let cluster = Arc::new(SimulatedCluster::default());
        let client = cluster.client(0);
        let put = |value: &'static str| Txn { success: vec![TxnOperation::put("a", value)], ..Txn::default() };
        client.set_link(Link::LosesAnswers);
        assert!(matches!(client.commit(&put("1")).await, Err(EtcdError::TimedOut(_))));
        assert_eq!(cluster.get("a").expect("made").value, "1");
        client.set_link(Link::Delays(Duration::from_secs(30)));
        assert!(matches!(client.commit(&put("2")).await, Err(EtcdError::TimedOut(_))));
        assert_eq!(cluster.get("a").expect("not yet").value, "1");
        tokio::time::sleep(Duration::from_secs(26)).await;
        assert_eq!(cluster.get("a").expect("late").value, "2");
        cluster.separate_minority();
        client.set_link(Link::Up);
        client.commit(&put("3")).await.expect("an answer");
        client.set_link(Link::Minority);
        let old = client.range(&RangeRequest::key("a").serializable()).await.expect("an answer");
        assert_eq!(old.entries[0].value, "2");
        assert!(client.range(&RangeRequest::key("a")).await.is_err());
        client.set_link(Link::Cut);
        assert!(matches!(client.keep_alive(LeaseId(1)).await, Err(EtcdError::Unreachable(_))));
        assert_eq!(cluster.writes().len(), 3);
    }
}
