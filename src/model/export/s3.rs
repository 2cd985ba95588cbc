//! S3 endpoints and buckets.

use std::fmt;

use super::error::ExportError;
use super::host::{canonical_host, is_host, unbracketed};

/// Canonical endpoint of the standard partition of AWS, without China and GovCloud. In each partition, a name belongs
/// to one bucket (Amazon S3 User Guide, "General purpose bucket naming rules").
const AWS: &str = "s3.amazonaws.com";

/// Endpoint of an S3 service: scheme, host and optional port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Endpoint {
    tls: bool,
    host: String,
    port: Option<u16>,
}

impl S3Endpoint {
    /// Parses `[http[s]://]host[:port][/]`. The default scheme is https. A final dot of the host is dropped, because
    /// no certificate and no `Host` header has one (RFC 6066 §3).
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
        let host = if host.ends_with("..") { host } else { host.strip_suffix('.').unwrap_or(host) };
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

    /// Returns the canonical spelling of `host[:port]`, without the default port of the scheme. The scheme itself is
    /// not part of it, because a service has the same buckets with and without TLS.
    fn identity(&self) -> String {
        let host = canonical_host(&self.host);
        if is_aws(&host) {
            return AWS.to_owned();
        }
        match self.port.filter(|port| *port != if self.tls { 443 } else { 80 }) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// Returns whether both have the same host, and the same port or each the default port of its scheme. The scheme is
    /// not compared, and every region of AWS is the same service.
    #[must_use]
    pub fn is_same_service(&self, other: &Self) -> bool {
        let is_same_address = canonical_host(&self.host) == canonical_host(&other.host) && self.port() == other.port();
        is_same_address || self.identity() == other.identity()
    }

    /// Returns whether this is an endpoint of AWS, of any region of the standard partition.
    #[must_use]
    pub fn is_aws(&self) -> bool {
        is_aws(&canonical_host(&self.host))
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

/// Whether a host in lower case is an endpoint of AWS, of any region (AWS General Reference, "Amazon S3 endpoints"):
/// `s3.amazonaws.com`, `s3.eu-west-1.amazonaws.com`, `s3-eu-west-1.amazonaws.com`, `s3.dualstack.…`, `s3-fips.…`.
fn is_aws(host: &str) -> bool {
    let service = host.strip_suffix(".amazonaws.com").unwrap_or_default();
    let is_government = service.split(['.', '-']).any(|part| part == "gov");
    (service == "s3" || service.starts_with("s3.") || service.starts_with("s3-")) && !is_government
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
    /// and `_`, and before them `tenant:` for a bucket of another tenant. They include the names of AWS, which has no
    /// tenants. The service itself may be stricter.
    pub fn new(endpoint: Option<S3Endpoint>, bucket: &str) -> Result<Self, ExportError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let (tenant, name) = bucket.split_once(':').map_or((None, bucket), |(tenant, name)| (Some(tenant), name));
        let is_tenant = |tenant: &str| tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let valid = (3..=255).contains(&bucket.len())
            && name.len() >= 3
            && name.bytes().all(allowed)
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && !name.contains("..")
            && tenant.is_none_or(|tenant| endpoint.is_some() && is_tenant(tenant));
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

    /// Text that is the same for every spelling of the bucket.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}/{}", self.endpoint.as_ref().map_or_else(|| AWS.to_owned(), S3Endpoint::identity), self.bucket)
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
