//! Keys, their values and how to read them.

use std::fmt;

use bytes::Bytes;

/// Version of the whole store. Every transaction that writes increments it. A key that does not exist has revision 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EtcdRevision(pub u64);

impl fmt::Display for EtcdRevision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Identifier of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The notation of etcdctl.
        write!(formatter, "{:x}", self.0)
    }
}

/// State of the member that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerHeader {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Revision of the store when the request was served.
    pub revision: EtcdRevision,
    /// Raft term of the member. It grows with every election.
    pub raft_term: u64,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key was created.
    pub create_revision: EtcdRevision,
    /// Revision at which the key was last written.
    pub mod_revision: EtcdRevision,
    /// The lease with which the key ends.
    pub lease: Option<LeaseId>,
}

/// One key, or an interval of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: Bytes,
    /// First key after the interval. `None`: only the first key.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// One key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None }
    }

    /// All keys that begin with this prefix, which must not be empty.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        // The next prefix of the same length. 0xff cannot be incremented, and "\0" means up to the last key.
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        Self { start, end: Some(end.into()) }
    }

    /// Whether the range contains the key.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            None => self.start == key,
            Some(end) => self.start <= key && (end.as_ref() == b"\0" || key < end.as_ref()),
        }
    }
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// The keys, which are answered in their order.
    pub keys: KeyRange,
    /// Largest number of keys to answer.
    pub limit: Option<u32>,
    /// Revision of the store at which to read, instead of the latest one.
    pub revision: Option<EtcdRevision>,
    /// Answers only the keys that were written after this revision. The total counts the others too, so a key that was
    /// deleted since is missing there. etcd reads the whole interval for it, with all values.
    pub written_after: Option<EtcdRevision>,
    /// Whether any member may answer from its own state, which may be old. Cheaper, and works without a quorum.
    pub is_serializable: bool,
    /// Whether values are left out.
    pub is_keys_only: bool,
}

impl RangeRequest {
    /// A linearizable read of all these keys.
    #[must_use]
    pub fn new(keys: KeyRange) -> Self {
        Self { keys, limit: None, revision: None, written_after: None, is_serializable: false, is_keys_only: false }
    }

    /// A linearizable read of one key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::key(key))
    }

    /// A linearizable read of all keys that begin with this prefix, which must not be empty.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::prefix(prefix))
    }

    /// Lets any member answer from its own state.
    #[must_use]
    pub fn serializable(self) -> Self {
        Self { is_serializable: true, ..self }
    }

    /// Leaves the values out.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self { is_keys_only: true, ..self }
    }
}

/// Result of a read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeAnswer {
    /// State of the member that answered.
    pub header: AnswerHeader,
    /// The keys that exist, in their order, up to the limit.
    pub entries: Vec<KeyValue>,
    /// Number of keys in the interval, whatever the limit and the revisions of the keys.
    pub total: u64,
    /// Whether the limit left keys out.
    pub has_more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_contains_its_keys_only() {
        for (prefix, inside, outside) in [
            (&b"/a/"[..], &b"/a/b"[..], &b"/a"[..]),
            (b"/a/", b"/a/", b"/a0"),
            (b"a\xff", b"a\xff\xff", b"b"),
            (b"\xff", b"\xff\xff", b"\xfe"),
        ] {
            let range = KeyRange::prefix(prefix);
            assert!(range.contains(inside) && !range.contains(outside), "{range:?}");
        }
        assert!(KeyRange::key("a").contains(b"a") && !KeyRange::key("a").contains(b"aa"));
    }
}
