//! The interface to etcd v3: keys with revisions, transactions and leases.
//!
//! [`KeyValueStore`] is the interface, so that the code above it is tested against a simulated store as well.
//!
//! **An error says nothing about the content of the store.** Only an answer does. A lease is lost when etcd says so, and
//! not when a request fails. After an error for which [`EtcdError::is_uncertain`] is true, a transaction may have been
//! made, now or later. The caller reads back to know.

mod error;
mod key_value;
mod transaction;

pub use error::EtcdError;
pub use key_value::{AnswerHeader, EtcdRevision, KeyRange, KeyValue, LeaseId, RangeAnswer, RangeRequest};
pub use transaction::{Compare, CompareCondition, Txn, TxnAnswer, TxnOperation, TxnResult};

use std::time::Duration;

use async_trait::async_trait;

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

    /// Makes a transaction: one set of operations if all comparisons are true, the other one otherwise. It is never sent
    /// twice.
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
