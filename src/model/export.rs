//! Exports: the strings that identify a target's storage.
//!
//! `host:/path` for NFS, `host[:port]/bucket` (without scheme) for S3. Both are parsed once, where they enter the
//! agent. The parsed values are safe for `mount.nfs`, for an S3 client and for the derivation of a directory name.
//! They contain no control characters and no `..`, and no host begins like an option of a command.

use std::fmt;
use std::net::Ipv6Addr;

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
    /// A `..` component, which would name another directory than the written one.
    #[error("{0:?} contains a \"..\" component: write the exported path without it")]
    ParentComponent(String),
    /// Not an endpoint URL.
    #[error(
        "{0:?} is not an S3 endpoint: expected a URL such as https://s3.example.com or https://s3.example.com:9000, without path, query or credentials"
    )]
    BadEndpoint(String),
    /// Not a bucket name.
    #[error(
        "{0:?} is not a bucket name: expected 3 to 63 characters (up to 255 on Ceph) of letters, digits, '.', '-' and '_', beginning with a letter or digit"
    )]
    BadBucket(String),
}

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

    /// Returns why a new target must not have this export, if so. Registries may contain such exports.
    ///
    /// A server resolves empty and `.` components. The kernel then shows the mount of NFSv4 with another path
    /// than the export's, so it would not be recognized.
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

    /// Returns whether the kernel's source of a mount is this export.
    ///
    /// `nfs_path` in the kernel's `fs/nfs/namespace.c` drops trailing slashes from the name that
    /// mountinfo shows, and host names are case-insensitive (RFC 4343).
    #[must_use]
    pub fn matches_source(&self, source: &str) -> bool {
        let is_host =
            split_host(source).is_some_and(|(host, _)| unbracketed(host).eq_ignore_ascii_case(self.address()));
        is_host && self.matches_path_of(source)
    }

    /// Returns whether the kernel's source of a mount has this export's path, on any host.
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

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// Returns whether `host` is a host name (RFC 1123, and underscores, which are in use), an IPv4 address, or a
/// bracketed IPv6 address. A name must not begin with `-`, because a command would parse it as an option.
pub(crate) fn is_host(host: &str) -> bool {
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

/// Whether `host` is a host as in [`is_host`], or a name with a final dot, which makes it absolute (RFC 1034 §3.1).
fn is_nfs_host(host: &str) -> bool {
    is_host(if host.starts_with('[') { host } else { host.strip_suffix('.').unwrap_or(host) })
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Endpoint of an S3 service: scheme, host and optional port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Endpoint {
    tls: bool,
    host: String,
    port: Option<u16>,
}

impl S3Endpoint {
    /// Parses `[http[s]://]host[:port][/]`. The default scheme is https.
    ///
    /// # Errors
    /// [`ExportError::BadEndpoint`] for anything else: another scheme, a path, a query or
    /// credentials in the URL.
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        // Credentials are not allowed here, and must not appear in the error.
        let shown = match text.rsplit_once('@') {
            Some((_, after)) => format!("…@{after}"),
            None => text.to_owned(),
        };
        let bad = || ExportError::BadEndpoint(shown.clone());
        if text.chars().any(char::is_control) {
            return Err(ExportError::ControlCharacter(shown));
        }
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some(_) => return Err(bad()),
            None => (true, text),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if authority.starts_with('[') {
            let end = authority.find(']').ok_or_else(bad)? + 1;
            (&authority[..end], authority[end..].strip_prefix(':'))
        } else {
            authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)))
        };
        let port =
            port.map(|digits| digits.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(bad)).transpose()?;
        let written = host.len() + port.map_or(0, |port| 1 + port.to_string().len());
        if !is_host(host) || written != authority.len() {
            return Err(bad());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }

    /// URL for an S3 client, without trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }

    /// `host[:port]`, as written.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Host for a resolver, without brackets.
    #[must_use]
    pub fn address(&self) -> &str {
        unbracketed(&self.host)
    }

    /// TCP port: as written, or the default of the scheme, 443 or 80.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// Returns whether the service uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

/// S3 bucket at an endpoint, or on AWS without an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Location {
    endpoint: Option<S3Endpoint>,
    bucket: String,
}

impl S3Location {
    /// Creates a location. Without an endpoint it is on AWS.
    ///
    /// # Errors
    /// [`ExportError::BadBucket`] for an invalid name. Valid are the names of Ceph: 3 to 255 letters, digits, `.`, `-`
    /// and `_`. They include the names of AWS. The service itself may be stricter.
    pub fn new(endpoint: Option<S3Endpoint>, bucket: &str) -> Result<Self, ExportError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let valid = (3..=255).contains(&bucket.len())
            && bucket.bytes().all(allowed)
            && bucket.as_bytes()[0].is_ascii_alphanumeric()
            && !bucket.contains("..");
        if !valid {
            return Err(ExportError::BadBucket(bucket.to_owned()));
        }
        Ok(Self { endpoint, bucket: bucket.to_owned() })
    }

    /// Parses `[scheme://]host[:port]/bucket`, or only a bucket name for AWS.
    ///
    /// # Errors
    /// [`ExportError`] when the endpoint or the bucket is malformed.
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let after_scheme = trimmed.find("://").map_or(0, |at| at + 3);
        match trimmed[after_scheme..].rfind('/') {
            Some(slash) => {
                let (endpoint, bucket) = trimmed.split_at(after_scheme + slash);
                Self::new(Some(S3Endpoint::parse(endpoint)?), &bucket[1..])
            }
            None if after_scheme > 0 => Err(ExportError::BadBucket(String::new())),
            None => Self::new(None, trimmed),
        }
    }

    /// Endpoint. `None` means AWS.
    #[must_use]
    pub fn endpoint(&self) -> Option<&S3Endpoint> {
        self.endpoint.as_ref()
    }

    /// Name of the bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }
}

/// `host[:port]/bucket` without scheme; the bucket alone on AWS.
impl fmt::Display for S3Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(formatter, "{}/{}", endpoint.authority(), self.bucket),
            None => formatter.write_str(&self.bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nfs_export_is_split_at_first_colon_slash() {
        for (text, address, path) in [
            ("192.168.1.34:/mnt/tvault/162", "192.168.1.34", "/mnt/tvault/162"),
            ("x:/Trilio_Backup", "x", "/Trilio_Backup"),
            ("nas.example.com:/home/kolla/", "nas.example.com", "/home/kolla/"),
            ("[fd00::1]:/x", "fd00::1", "/x"),
            ("[fe80::1%eth0]:/x", "fe80::1%eth0", "/x"),
            ("nas:/odd:/name", "nas", "/odd:/name"),
            ("nas:/", "nas", "/"),
        ] {
            let export = NfsExport::parse(text).expect(text);
            assert_eq!((export.address(), export.path()), (address, path), "{text}");
            assert_eq!(export.to_string(), text);
        }
    }

    #[test]
    fn invalid_nfs_export_is_refused_with_expectation() {
        for text in [
            "",
            "nas",
            "/mnt",
            "nas:mnt",
            ":/mnt",
            "fd00::1:/x",
            "[fd00::1:/x",
            "[nas]:/x",
            "na s:/x",
            "-o:/x",
            "nas/a:/x",
        ] {
            let error = NfsExport::parse(text).expect_err(text);
            assert!(error.to_string().contains("expected"), "{text}: {error}");
        }
        assert!(matches!(NfsExport::parse("nas:/a/../b"), Err(ExportError::ParentComponent(_))));
        assert!(matches!(NfsExport::parse("nas:/.."), Err(ExportError::ParentComponent(_))));
        assert!(matches!(NfsExport::parse("nas:/a\nb"), Err(ExportError::ControlCharacter(_))));
        assert!(matches!(NfsExport::parse("nas:/a\0b"), Err(ExportError::ControlCharacter(_))));
        assert!(NfsExport::parse("nas:/a..b/c").is_ok());
    }

    #[test]
    fn source_of_mount_is_recognized_in_every_spelling() {
        let export = NfsExport::parse("NAS:/home/kolla/").expect("valid");
        assert!(export.matches_source("nas:/home/kolla"));
        assert!(!export.matches_source("nas:/home/kolla/x"));
        assert!(!export.matches_source("other:/home/kolla"));
        let six = NfsExport::parse("[fd00::1]:/x").expect("valid");
        assert!(six.matches_source("[fd00::1]:/x"));
        assert!(NfsExport::parse("nas:/").expect("valid").matches_source("nas:/"));
        assert!(!six.matches_source("tmpfs"));
        let absolute = NfsExport::parse("nas.example.com.:/x").expect("a final dot is legal");
        assert!(absolute.matches_source("nas.example.com.:/x"));
        for text in ["[fd00::1].:/x", ".:/x", "nas..:/x"] {
            assert!(NfsExport::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mapped_host_replaces_host_of_export() {
        let export = NfsExport::parse("192.168.1.34:/x").expect("valid");
        assert_eq!(export.with_host("fd00::2").expect("valid").to_string(), "[fd00::2]:/x");
        assert!(export.with_host("-o").is_err());
    }

    #[test]
    fn endpoint_is_scheme_host_and_port() {
        for (text, url, authority, port) in [
            ("https://cephs3.triliodata.demo", "https://cephs3.triliodata.demo", "cephs3.triliodata.demo", 443),
            ("http://10.0.0.1:8080/", "http://10.0.0.1:8080", "10.0.0.1:8080", 8080),
            ("s3.example.com:9000", "https://s3.example.com:9000", "s3.example.com:9000", 9000),
            ("HTTPS://[fd00::1]:443", "https://[fd00::1]:443", "[fd00::1]:443", 443),
        ] {
            let endpoint = S3Endpoint::parse(text).expect(text);
            assert_eq!(
                (endpoint.url().as_str(), endpoint.authority().as_str(), endpoint.port()),
                (url, authority, port)
            );
        }
        for text in [
            "",
            "https://",
            "ftp://x",
            "https://x/path",
            "https://x?y",
            "https://user@x",
            "https://x:0",
            "https://x:99999",
            "https://x:080a",
            "https://x:0443",
            "a b",
        ] {
            assert!(S3Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn location_is_displayed_without_scheme() {
        for (text, export) in [
            ("https://cephs3.triliodata.demo/trilio-qamanual", "cephs3.triliodata.demo/trilio-qamanual"),
            ("http://127.0.0.1:9000/bucket/", "127.0.0.1:9000/bucket"),
            ("backups", "backups"),
        ] {
            assert_eq!(S3Location::parse(text).expect(text).to_string(), export);
        }
        for text in
            ["https://host", "https://host/", "ab", "https://host/a b", "https://host/-bad", "https://host/a/b", "a..b"]
        {
            assert!(S3Location::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,40}|[a-z\\[\\]:/.%-]{0,40}") {
            if let Ok(export) = NfsExport::parse(&text) {
                prop_assert_eq!(export.to_string(), text.clone());
                prop_assert!(export.matches_source(&text));
                prop_assert!(!export.host().starts_with('-'));
            }
            let _ = S3Endpoint::parse(&text);
            let _ = S3Location::parse(&text);
        }

        #[test]
        fn every_host_and_path_are_an_export(host in "[a-z][a-z0-9]{0,10}(\\.[a-z0-9]{1,5}){0,3}", path in "/[ -~]{0,60}") {
            prop_assume!(!path.split('/').any(|component| component == ".."));
            let text = format!("{host}:{path}");
            let export = NfsExport::parse(&text).expect("valid");
            prop_assert_eq!((export.host(), export.path()), (host.as_str(), path.as_str()));
        }
    }
}
