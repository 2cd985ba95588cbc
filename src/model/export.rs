//! Exports: the strings that identify a target's storage.
//!
//! `host:/path` for NFS, `host[:port]/bucket` (without scheme) for S3. Both are parsed once, where they enter the
//! agent. The parsed values are safe for `mount.nfs`, for an S3 client and for the derivation of a directory name.
//! They contain no control characters and no `..`, and no host begins with `-` like an option of a command.

mod nfs;
mod s3;

use std::net::Ipv6Addr;

pub use nfs::NfsExport;
pub use s3::{S3Endpoint, S3Location};

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

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// Returns whether `host` is a host name (RFC 1123, and underscores, which are in use), an IPv4 address, or a
/// bracketed IPv6 address. A name must not begin with `-`, because a command would parse it as an option.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let Some(inner) = inner.strip_suffix(']') else {
            return false;
        };
        let (address, zone) = inner.split_once('%').map_or((inner, None), |(a, z)| (a, Some(z)));
        return address.parse::<Ipv6Addr>().is_ok()
            && zone.is_none_or(|zone| !zone.is_empty() && zone.bytes().all(is_host_byte));
    }
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(is_host_byte)
        && host.split('.').all(|label| !label.is_empty() && !label.starts_with('-'))
}

/// Returns the canonical spelling of a host.
fn canonical_host(host: &str) -> String {
    match unbracketed(host).parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests;
