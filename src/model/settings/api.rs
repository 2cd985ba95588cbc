//! Settings of the API: listeners, authentication, TLS, metrics.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the API (`[api]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSettings {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// Group of the Unix sockets, by name or number. Without it, the sockets keep the group of the process.
    pub socket_group: Option<String>,
    /// Whether requests over a Unix socket also need a token.
    pub socket_needs_token: bool,
    /// Authentication of requests.
    pub auth: AuthSettings,
    /// TLS on the TCP addresses (`[api.tls]`).
    pub tls: Option<TlsSettings>,
    /// Settings of `GET /metrics`.
    pub metrics: MetricsSettings,
    /// Whether `GET /ui` serves pages for browsers (`[ui] enabled`).
    pub has_ui: bool,
}

/// Settings of `GET /metrics` (`[metrics]`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// Further addresses to listen on, which serve only the metrics.
    pub listen: Vec<Listen>,
    /// File of a secret that only permits reading the metrics.
    pub token_file: Option<PathBuf>,
    /// Which metrics are shown.
    pub detail: MetricsDetail,
}

/// Which metrics are shown (`[metrics] detail`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricsDetail {
    /// All metrics.
    #[default]
    Full,
    /// All metrics of targets, and the metrics of the agent except histograms and detailed counters.
    Targets,
}

/// Address that the API listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// TCP address.
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Reports whether other hosts can reach the address.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Authentication of requests (`[api] auth`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthSettings {
    /// No authentication. Every caller is an admin.
    None,
    /// One shared secret. A caller that sends it is an admin (`[api.token]`).
    Token {
        /// File of the secret.
        file: PathBuf,
    },
    /// Tokens that Keystone validates.
    Keystone(Box<KeystoneSettings>),
}

/// Settings of token validation (`[api.keystone]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeystoneSettings {
    /// URL of Keystone, without `/v3`.
    pub url: String,
    /// Credential with which the agent logs in to Keystone.
    pub credential: KeystoneCredential,
    /// Role that may change targets and types.
    pub admin_role: String,
    /// Type of this service in Keystone's catalog. Access rules of application credentials name it.
    pub service_type: String,
    /// PEM file of certificate authorities that are trusted in addition to those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// Longest time that a request waits for Keystone.
    pub timeout: Duration,
    /// Lifetime of the cache entry of a valid token.
    pub cache_time: Duration,
    /// Lifetime of the cache entry of an invalid token.
    pub negative_cache_time: Duration,
    /// Largest number of cached valid tokens. The same limit applies to invalid tokens.
    pub cache_entries: usize,
    /// Largest number of concurrent validations.
    pub validations: usize,
}

impl KeystoneSettings {
    /// Reports whether requests to Keystone cross a network in plain text.
    #[must_use]
    pub fn is_plain_text_elsewhere(&self) -> bool {
        is_plain_text_elsewhere(&self.url)
    }

    /// Returns the host of the URL: a name, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        host_of(&self.url)
    }
}

/// Reports whether requests to a URL cross a network in plain text.
pub(super) fn is_plain_text_elsewhere(url: &str) -> bool {
    let host = host_of(url);
    let is_loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    url.starts_with("http://") && !is_loopback && !host.eq_ignore_ascii_case("localhost")
}

/// Host of a URL: a name, or an IP address without brackets.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// Credential with which the agent logs in to Keystone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeystoneCredential {
    /// Service user with a password, scoped to a project.
    Password {
        /// Name of the user.
        username: String,
        /// Name of the user's domain.
        user_domain: String,
        /// File of the password.
        password_file: PathBuf,
        /// Name of the project.
        project: String,
        /// Name of the project's domain.
        project_domain: String,
    },
    /// Application credential.
    Application {
        /// Id of the application credential.
        id: String,
        /// File of its secret.
        secret_file: PathBuf,
    },
}

/// TLS on TCP addresses (`[api.tls]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of the certificate and its intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
    /// PEM file of the authorities of client certificates. Without it, the API requests no client certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without a certificate are refused.
    pub require_client_certificate: bool,
}
