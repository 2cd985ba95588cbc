//! Why a string is not an export.

/// Reason why a string is not an export. The message has the value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// No `:/` between host and path.
    #[error("{0:?} is not an NFS export: expected host:/path, for example 192.168.1.34:/mnt/backups")]
    NotNfs(String),
    /// The part before `:/` is neither a host name, an IPv4 address nor a bracketed IPv6 address.
    #[error(
        "{0:?} is not a host: expected a host name, an IPv4 address, or an IPv6 address in brackets such as [fd00::1]"
    )]
    BadHost(String),
    /// A control character, which no export may contain.
    #[error("{0:?} contains a control character, which is not allowed in an export")]
    ControlCharacter(String),
    /// A `..` component, with which the path names a different directory than it seems to.
    #[error("{0:?} contains a \"..\" component: write the exported path without it")]
    ParentComponent(String),
    /// Not an endpoint URL.
    #[error(
        "{0:?} is not an S3 endpoint: expected a URL such as https://s3.example.com or https://s3.example.com:9000, without path, query or credentials"
    )]
    BadEndpoint(String),
    /// Not a bucket name.
    #[error(
        "{0:?} is not a bucket name: expected 3 to 63 characters (up to 255 on Ceph) of letters, digits, '.', '-' and '_', beginning with a letter or digit, or \"tenant:bucket\" for a bucket of another tenant of a Ceph endpoint"
    )]
    BadBucket(String),
}
