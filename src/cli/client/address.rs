//! Addresses of an agent, and the rule that decides to which of them the client sends a token.
//!
//! Anyone who reads a token can act as its owner. So the client sends a token only to an address that the
//! user gave, or over the agent's own socket, whose directory belongs to root. It never sends a
//! token to the default port, because any process may listen there. A token never crosses a network
//! in plain text.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

/// Socket of the agent's systemd unit.
const DEFAULT_SOCKET: &str = "/run/targetwatch/api.sock";

/// Default TCP address of the agent.
const DEFAULT_AUTHORITY: &str = "127.0.0.1:8781";

/// Address of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// `host:port` without TLS.
    Tcp(String),
    /// `host:port` with TLS.
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

/// Addresses to try when no address is given, in this order.
#[derive(Debug, Clone)]
pub(super) struct DefaultAddresses {
    /// Socket of the agent. If it exists, the agent created it.
    pub(super) socket: Address,
    /// TCP port. Any process of this host may listen on it.
    pub(super) port: Address,
}

impl Default for DefaultAddresses {
    fn default() -> Self {
        Self { socket: Address::Unix(DEFAULT_SOCKET.into()), port: Address::Tcp(DEFAULT_AUTHORITY.to_owned()) }
    }
}

/// Reports whether plain text to this peer stays on this host.
pub(super) fn is_this_host(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}
