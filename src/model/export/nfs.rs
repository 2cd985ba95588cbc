//! NFS exports.

use std::fmt;

use super::error::ExportError;
use super::host::{canonical_host, is_host, unbracketed};

/// NFS export, `host:/path`, exactly as written. The name of the mount directory depends on the trailing slash of
/// the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NfsExport {
    host: String,
    path: String,
}

impl NfsExport {
    /// Parses `host:/path`. The host may be a name, an IPv4 address or an IPv6 address in
    /// brackets, with an optional zone (`[fe80::1%eth0]`).
    ///
    /// # Errors
    /// [`ExportError`] when there is no `:/`, the host is invalid, or the path contains a control character or a
    /// `..` component.
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        if text.chars().any(char::is_control) {
            return Err(ExportError::ControlCharacter(text.to_owned()));
        }
        let (host, path) = split_host(text).ok_or_else(|| ExportError::NotNfs(text.to_owned()))?;
        if !is_nfs_host(host) {
            return Err(ExportError::BadHost(host.to_owned()));
        }
        if path.split('/').any(|component| component == "..") {
            return Err(ExportError::ParentComponent(text.to_owned()));
        }
        Ok(Self { host: host.to_owned(), path: path.to_owned() })
    }

    /// Returns why a new target must not have this export, or `None` if it may. Registries of earlier releases may
    /// contain such exports.
    ///
    /// A server resolves empty and `.` components. For NFSv4, the kernel then shows a different path than that of the
    /// export, so the mount would not be recognized.
    #[must_use]
    pub fn problem_of_new_target(&self) -> Option<String> {
        let is_list = self.path.split([',', ';', ' ']).skip(1).any(|part| split_host(part).is_some());
        if self.host.eq_ignore_ascii_case("nfs") && self.path.starts_with("//") {
            return Some(format!("\"{self}\" is a URL: write host:/path, without nfs:// and port"));
        }
        if is_list {
            return Some(format!("\"{self}\" is a list: write one export, and create one target for each"));
        }
        if self.path.ends_with(char::is_whitespace) {
            return Some(format!("\"{self}\" ends with white space: remove it"));
        }
        let mut clean: String =
            self.path.split('/').filter(|part| !matches!(*part, "" | ".")).flat_map(|part| ["/", part]).collect();
        if clean.is_empty() || self.path.ends_with('/') || self.path.ends_with("/./") {
            clean.push('/');
        }
        (clean != self.path)
            .then(|| format!("\"{self}\" has an empty or \".\" component in its path: write {}:{clean}", self.host))
    }

    /// Host as written, an IPv6 address with its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host for a resolver or a socket, without brackets.
    #[must_use]
    pub fn address(&self) -> &str {
        unbracketed(&self.host)
    }

    /// Exported path, which begins with `/`. A trailing slash is kept.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Text that is the same for every spelling of the export: host names are case-insensitive (RFC 4343), and a final
    /// dot only makes them absolute. Paths are compared as written.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}:{}", canonical_host(&self.host), self.path)
    }

    /// Returns the same export with another host, for a node that reaches the server at another address.
    ///
    /// # Errors
    /// [`ExportError::BadHost`] when `host` is not a host.
    pub fn with_host(&self, host: &str) -> Result<Self, ExportError> {
        let host = bracketed(host);
        if !is_nfs_host(&host) {
            return Err(ExportError::BadHost(host));
        }
        Ok(Self { host, path: self.path.clone() })
    }

    /// Returns whether the kernel's source of a mount has this export's host, with any path. Host names are
    /// case-insensitive (RFC 4343).
    #[must_use]
    pub fn matches_host_of(&self, source: &str) -> bool {
        split_host(source).is_some_and(|(host, _)| unbracketed(host).eq_ignore_ascii_case(self.address()))
    }

    /// Returns whether the kernel's source of a mount has this export's path, on any host.
    ///
    /// `nfs_path` in the kernel's `fs/nfs/namespace.c` drops trailing slashes from the name that mountinfo shows.
    #[must_use]
    pub fn matches_path_of(&self, source: &str) -> bool {
        split_host(source).is_some_and(|(_, path)| path.trim_end_matches('/') == self.path.trim_end_matches('/'))
    }
}

impl fmt::Display for NfsExport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.path)
    }
}

fn split_host(text: &str) -> Option<(&str, &str)> {
    let colon = if text.starts_with('[') { text.find("]:/")? + 1 } else { text.find(":/")? };
    Some((&text[..colon], &text[colon + 1..]))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// Whether `host` is a host as in [`is_host`], or a name with a final dot, which makes it absolute (RFC 1034 §3.1).
fn is_nfs_host(host: &str) -> bool {
    is_host(if host.starts_with('[') { host } else { host.strip_suffix('.').unwrap_or(host) })
}
