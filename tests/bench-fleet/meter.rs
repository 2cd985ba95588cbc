//! The client of etcd with a meter: requests, their times, and a cable that can be pulled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use targetwatch::etcd::{
    EtcdClient, EtcdError, GrantedLease, KeyValueStore, LeaseId, RangeAnswer, RangeRequest, Txn, TxnAnswer,
    TxnOperation,
};

/// Requests of all nodes.
#[derive(Debug, Default)]
pub struct Meter {
    is_cut: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    reads: Mutex<Vec<Duration>>,
    writes: Mutex<Vec<Duration>>,
}

/// Times of requests that were answered.
pub struct Times {
    pub reads: Vec<Duration>,
    pub writes: Vec<Duration>,
}

impl Meter {
    /// Separates all nodes from etcd, or connects them again.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Requests that were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Requests without an answer so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns the times since the last call.
    pub fn take(&self) -> Times {
        let take =
            |times: &Mutex<Vec<Duration>>| std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
        Times { reads: take(&self.reads), writes: take(&self.writes) }
    }

    async fn measure<T>(
        &self,
        is_write: bool,
        request: impl Future<Output = Result<T, EtcdError>>,
    ) -> Result<T, EtcdError> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Err(EtcdError::Unreachable("the cable is pulled".to_owned()));
        }
        let began = Instant::now();
        let answer = request.await;
        if answer.is_ok() {
            self.answered.fetch_add(1, Ordering::Relaxed);
            let times = if is_write { &self.writes } else { &self.reads };
            times.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }
}

/// The client of one node.
pub struct MeteredStore {
    pub client: EtcdClient,
    pub meter: Arc<Meter>,
}

#[async_trait]
impl KeyValueStore for MeteredStore {
    async fn range(&self, request: &RangeRequest) -> Result<RangeAnswer, EtcdError> {
        self.meter.measure(false, self.client.range(request)).await
    }

    async fn commit(&self, txn: &Txn) -> Result<TxnAnswer, EtcdError> {
        let is_write = txn.success.iter().any(|operation| !matches!(operation, TxnOperation::Range(_)));
        self.meter.measure(is_write, self.client.commit(txn)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<GrantedLease, EtcdError> {
        self.meter.measure(true, self.client.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, EtcdError> {
        self.meter.measure(false, self.client.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        self.meter.measure(true, self.client.revoke(lease)).await
    }
}
