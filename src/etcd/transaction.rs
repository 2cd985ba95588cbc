//! Transactions: operations that are made together, if the keys are as expected.

use bytes::Bytes;

use super::key_value::{AnswerHeader, EtcdRevision, KeyRange, KeyValue, LeaseId, RangeAnswer, RangeRequest};

/// A condition of one key. A key that does not exist has the revision 0 and no lease, and its value is not equal to
/// any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// What must be true of it.
    pub condition: CompareCondition,
}

/// What must be true of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareCondition {
    /// It exists.
    Exists,
    /// It was created at this revision.
    CreateRevision(EtcdRevision),
    /// It was last written at this revision.
    ModRevision(EtcdRevision),
    /// It has this value.
    Value(Bytes),
    /// It ends with this lease.
    Lease(Option<LeaseId>),
}

impl Compare {
    /// The key does not exist.
    #[must_use]
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::created_at(key, EtcdRevision(0))
    }

    /// The key exists.
    #[must_use]
    pub fn exists(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), condition: CompareCondition::Exists }
    }

    /// The key exists since this revision.
    #[must_use]
    pub fn created_at(key: impl Into<Bytes>, revision: EtcdRevision) -> Self {
        Self { key: key.into(), condition: CompareCondition::CreateRevision(revision) }
    }

    /// The key was not written after this revision.
    #[must_use]
    pub fn unchanged_since(key: impl Into<Bytes>, revision: EtcdRevision) -> Self {
        Self { key: key.into(), condition: CompareCondition::ModRevision(revision) }
    }

    /// The key has this value.
    #[must_use]
    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), condition: CompareCondition::Value(value.into()) }
    }

    /// The key ends with this lease.
    #[must_use]
    pub fn lease(key: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self { key: key.into(), condition: CompareCondition::Lease(Some(lease)) }
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOperation {
    /// Writes a key. A transaction writes a key at most once.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The lease with which the key ends.
        lease: Option<LeaseId>,
    },
    /// Deletes keys.
    Delete(KeyRange),
    /// Reads keys.
    Range(RangeRequest),
}

impl TxnOperation {
    /// Writes a key without a lease.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Writes a key that ends with a lease.
    #[must_use]
    pub fn put_leased(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: Some(lease) }
    }

    /// Deletes one key.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete(KeyRange::key(key))
    }

    /// Reads one key.
    #[must_use]
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Range(RangeRequest::key(key))
    }
}

/// A transaction. etcd allows 128 comparisons and 128 operations in each list by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// The conditions.
    pub compares: Vec<Compare>,
    /// Operations if all conditions are true.
    pub success: Vec<TxnOperation>,
    /// Operations if one condition is false.
    pub failure: Vec<TxnOperation>,
}

impl Txn {
    /// Whether any member answers from its own state: it only reads, and each read allows that.
    pub(super) fn is_serializable(&self) -> bool {
        let mut operations = self.success.iter().chain(&self.failure);
        operations.all(|operation| matches!(operation, TxnOperation::Range(request) if request.is_serializable))
    }
}

/// Result of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnResult {
    /// The key was written.
    Put,
    /// This number of keys was deleted.
    Deleted(u64),
    /// What was read. Its header has only the revision.
    Range(RangeAnswer),
}

impl TxnResult {
    /// Returns the keys that were read.
    #[must_use]
    pub fn entries(&self) -> &[KeyValue] {
        match self {
            Self::Range(answer) => &answer.entries,
            Self::Put | Self::Deleted(_) => &[],
        }
    }

    /// Returns the only key that was read, if it exists.
    #[must_use]
    pub fn into_entry(self) -> Option<KeyValue> {
        match self {
            Self::Range(answer) => answer.entries.into_iter().next(),
            Self::Put | Self::Deleted(_) => None,
        }
    }
}

/// Result of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnAnswer {
    /// State of the member that answered. Its revision is that of the writes.
    pub header: AnswerHeader,
    /// Whether all conditions were true.
    pub succeeded: bool,
    /// Results of the operations that were made, in their order.
    pub results: Vec<TxnResult>,
}
