//! etcd v3: keys with revisions, transactions and leases.
//!
//! [`EtcdClient`] uses the JSON gateway of etcd's members. [`KeyValueStore`] is its interface.
//!
//! **An error says nothing about the content of the store.** Only an answer does. A lease is lost when etcd says so,
//! and not when a request fails. After an error for which [`EtcdError::is_uncertain`] is true, a transaction may have
//! been made, now or later. The caller reads back to know.

mod client;
mod error;
mod fleet_size;
mod gateway;
mod guard;
mod key_value;
mod maintenance;
mod member_status;
mod observed_key;
#[cfg(test)]
pub mod simulation;
mod store;
mod transaction;

pub use client::{EtcdClient, EtcdSettings};
pub use error::EtcdError;
pub use fleet_size::FleetSize;
pub(crate) use fleet_size::{shortest_interval, stretched};
pub use key_value::{AnswerHeader, EtcdRevision, KeyRange, KeyValue, LeaseId, RangeAnswer, RangeRequest};
pub use member_status::MemberStatus;
pub use observed_key::{Observation, ObservedKey};
pub use store::{GrantedLease, KeyValueStore};
pub use transaction::{Compare, CompareCondition, Txn, TxnAnswer, TxnOperation, TxnResult};
