//! Where an agent answers, and to whom a token may go there.
//!
//! A token is as good as its owner to who reads it. So it goes where a person said, or over the
//! agent's own socket, whose directory is root's; never to whoever has taken the defaults port. And it
//! crosses no network in plain text.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

/// Where the agent's unit puts its socket.
const DEFAULT_SOCKET: &str = "/run/targetwatch/api.sock";

/// Where the agent listens besides.
const DEFAULT_AUTHORITY: &str = "127.0.0.1:8781";

/// Where an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// `host:port`, with TLS.
    Tls(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let uri: Option<Uri> = text.parse().ok();
        let plain = uri.filter(|uri| uri.path() == "/" && uri.query().is_none() && uri.port_u16().is_some());
        let parts = plain.map(Uri::into_parts).and_then(|parts| Some((parts.scheme?, parts.authority?)));
        match parts {
            Some((scheme, authority)) if scheme == http::uri::Scheme::HTTP => Ok(Self::Tcp(authority.to_string())),
            Some((scheme, authority)) if scheme == http::uri::Scheme::HTTPS => Ok(Self::Tls(authority.to_string())),
            _ => Err("expected unix:/path, http://host:port or https://host:port".to_owned()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(formatter, "http://{authority}"),
            Self::Tls(authority) => write!(formatter, "https://{authority}"),
        }
    }
}

/// Where an agent is looked for when nobody says where.
#[derive(Debug, Clone)]
pub(super) struct DefaultAddresses {
    /// Its own socket: where it is, it is the one that is meant.
    pub(super) socket: Address,
    /// Its port, which anybody on this host may have taken.
    pub(super) port: Address,
}

impl Default for DefaultAddresses {
    fn default() -> Self {
        Self { socket: Address::Unix(DEFAULT_SOCKET.into()), port: Address::Tcp(DEFAULT_AUTHORITY.to_owned()) }
    }
}

/// Whether what is sent there in plain text stays on this host.
pub(super) fn stays_here(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}
