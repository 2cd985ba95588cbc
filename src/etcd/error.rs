//! Why a request to etcd failed.

/// Why a request to etcd failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// No member could be connected to. Nothing was sent.
    #[error("etcd is unreachable: {0}")]
    Unreachable(String),
    /// A member did not answer in time.
    #[error("etcd did not answer in time: {0}")]
    TimedOut(String),
    /// The connection ended before the answer, or a proxy answered instead of etcd.
    #[error("no answer from etcd: {0}")]
    NoAnswer(String),
    /// The cluster has no leader or no quorum.
    #[error("etcd has no leader or no quorum: {0}")]
    NoQuorum(String),
    /// The database has reached its quota. Reads go on.
    #[error(
        "etcd refuses writes because its database has reached the quota (NOSPACE). Compact and defragment it, and then run: etcdctl alarm disarm"
    )]
    NoSpace,
    /// The requested revision has been compacted.
    #[error("the requested revision of etcd has been compacted")]
    Compacted,
    /// The lease of a write does not exist.
    #[error("the lease does not exist in etcd")]
    LeaseNotFound,
    /// User, password or token were refused.
    #[error(
        "etcd refuses the user or the password: {0}. Compare [registry] user and password_file with etcdctl user list"
    )]
    Unauthenticated(String),
    /// The user may not access a key.
    #[error(
        "etcd denies the user of [registry] access to a key. Grant its role this prefix (etcdctl role grant-permission)"
    )]
    PermissionDenied,
    /// Too many requests in etcd's queue.
    #[error("etcd is overloaded: {0}")]
    Overloaded(String),
    /// The member lags behind, has lost data, or belongs to another cluster.
    #[error("the answer of an etcd member is not used: {0}")]
    Stale(String),
    /// The request is larger than etcd accepts.
    #[error("the request is larger than etcd accepts: {0}")]
    TooLarge(String),
    /// etcd refused the request for another reason.
    #[error("etcd refuses the request: {0}")]
    Refused(String),
    /// The answer could not be understood. The server may not be etcd, or be of another version.
    #[error("unexpected answer from etcd: {0}. Check that the URL is that of etcd 3.4 or later")]
    Unexpected(String),
}

impl EtcdError {
    /// Whether a transaction or a lease may have been made, now or later.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::NoAnswer(_) | Self::NoQuorum(_) | Self::Stale(_) | Self::Unexpected(_) => true,
            Self::Unreachable(_)
            | Self::NoSpace
            | Self::Compacted
            | Self::LeaseNotFound
            | Self::Unauthenticated(_)
            | Self::PermissionDenied
            | Self::Overloaded(_)
            | Self::TooLarge(_)
            | Self::Refused(_) => false,
        }
    }
}
