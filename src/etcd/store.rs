//! The interface of a key-value store.

use std::time::Duration;

use async_trait::async_trait;

use super::error::EtcdError;
use super::key_value::{AnswerHeader, LeaseId, RangeAnswer, RangeRequest};
use super::transaction::{Txn, TxnAnswer};

/// A lease as granted. Its keys are deleted when it is not renewed for this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantedLease {
    /// The lease.
    pub id: LeaseId,
    /// Time to live. etcd may grant more than requested.
    pub ttl: Duration,
    /// State of the member that answered.
    pub header: AnswerHeader,
}

/// The part of etcd's interface that the agent uses. Every call ends within a deadline of the implementation.
#[async_trait]
pub trait KeyValueStore: Send + Sync + 'static {
    /// Reads keys. Linearizable, unless the request says otherwise.
    ///
    /// # Errors
    /// [`EtcdError`], after which nothing is known about the keys.
    async fn range(&self, request: &RangeRequest) -> Result<RangeAnswer, EtcdError>;

    /// Makes a transaction: one set of operations if all comparisons are true, the other one otherwise. It is never
    /// sent twice.
    ///
    /// # Errors
    /// [`EtcdError`]. The transaction may have been made if [`EtcdError::is_uncertain`].
    async fn commit(&self, txn: &Txn) -> Result<TxnAnswer, EtcdError>;

    /// Creates a lease. After an error, a lease without keys may remain until its end.
    ///
    /// # Errors
    /// [`EtcdError`].
    async fn grant(&self, ttl: Duration) -> Result<GrantedLease, EtcdError>;

    /// Renews a lease and returns its time to live. `None`: the lease has ended, and its keys are deleted.
    ///
    /// # Errors
    /// [`EtcdError`], after which the lease may exist or not.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, EtcdError>;

    /// Ends a lease and deletes its keys. Succeeds if it has already ended.
    ///
    /// # Errors
    /// [`EtcdError`], after which the lease may exist or not.
    async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError>;
}
