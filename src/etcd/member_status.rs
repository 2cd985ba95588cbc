//! What a member says about itself.

use super::key_value::EtcdRevision;

/// State of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Version of etcd.
    pub version: String,
    /// Newest revision that the member has.
    pub revision: EtcdRevision,
    /// Size of the database, in bytes.
    pub database_bytes: u64,
    /// Largest size of the database, in bytes. `None` if the member does not say it.
    pub quota_bytes: Option<u64>,
    /// Alarms of the cluster and problems of the member, such as `alarm:NOSPACE`.
    pub problems: Vec<String>,
}
