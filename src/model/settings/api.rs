//! How the API is served, and who may use it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How the API is served (`[api]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSettings {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// The group of its Unix sockets, by name or number; the agent's own without one.
    pub socket_group: Option<String>,
    /// Whether a request over a Unix socket needs a token as well.
    pub socket_needs_token: bool,
    /// How requests are authenticated.
    pub auth: AuthSettings,
    /// TLS on its TCP addresses (`[api.tls]`).
    pub tls: Option<TlsSettings>,
}

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Whether other hosts reach it.
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

/// How requests are authenticated (`[api] auth`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthSettings {
    /// Not at all: who reaches the API is an admin.
    None,
    /// By one secret, which makes an admin (`[api.token]`).
    Token {
        /// The file that holds it.
        file: PathBuf,
    },
    /// By tokens that Keystone knows.
    Keystone(Box<KeystoneSettings>),
}

/// How tokens are validated (`[api.keystone]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeystoneSettings {
    /// Where Keystone is, without `/v3`.
    pub url: String,
    /// Who the agent is to Keystone.
    pub credential: KeystoneCredential,
    /// The role that may change targets and types.
    pub admin_role: String,
    /// Certificate authorities to trust beside the system's, a PEM file.
    pub ca_bundle: Option<PathBuf>,
    /// The longest that a request waits for Keystone.
    pub timeout: Duration,
    /// How long a good token is not validated again.
    pub cache_time: Duration,
    /// How long a bad token is not validated again.
    pub negative_cache_time: Duration,
    /// The most good tokens that are remembered, and the most bad ones.
    pub cache_entries: usize,
    /// The most validations at the same time.
    pub validations: usize,
}

impl KeystoneSettings {
    /// Whether what is said to Keystone leaves this host in plain text.
    #[must_use]
    pub fn is_plain_text_elsewhere(&self) -> bool {
        let Some(rest) = self.url.strip_prefix("http://") else { return false };
        let authority = rest.split('/').next().unwrap_or(rest);
        let host = match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or(v6),
            None => authority.split(':').next().unwrap_or(authority),
        };
        let is_loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        !is_loopback && !host.eq_ignore_ascii_case("localhost")
    }
}

/// Who the agent is to Keystone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeystoneCredential {
    /// A service user with a password, in a project.
    Password {
        /// The user's name.
        username: String,
        /// The name of the user's domain.
        user_domain: String,
        /// The file that holds the password.
        password_file: PathBuf,
        /// The project's name.
        project: String,
        /// The name of the project's domain.
        project_domain: String,
    },
    /// An application credential.
    Application {
        /// Its id.
        id: String,
        /// The file that holds its secret.
        secret_file: PathBuf,
    },
}

/// TLS on TCP addresses (`[api.tls]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate and those between it and its authority, a PEM file.
    pub certificate: PathBuf,
    /// Its private key, a PEM file.
    pub key: PathBuf,
    /// The authorities of clients' certificates, a PEM file; without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub require_client_certificate: bool,
}
