//! Settings of the aggregator.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Port of an agent whose address has none.
const DEFAULT_PORT: u16 = 8781;

/// Longest address of an agent, in bytes. A host name has at most 253 (RFC 1035 §2.3.4).
const ADDRESS_MAX_BYTES: usize = 300;

/// Shortest time between two polls of a node, if none is configured.
const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Time for each node between two polls of one, if none is configured: 500 polls a second.
const TIME_PER_NODE: Duration = Duration::from_millis(2);

/// Settings of `targetwatch aggregate` (`[aggregate]`).
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateSettings {
    /// Addresses of agents.
    pub nodes: Vec<NodeAddress>,
    /// File with further addresses, one in a line. It is read again when it changes.
    pub nodes_file: Option<PathBuf>,
    /// Service whose SRV records have further addresses.
    pub nodes_srv: Option<SrvSettings>,
    /// File of the token that is sent to the agents.
    pub token_file: Option<PathBuf>,
    /// PEM file of certificate authorities that are trusted in addition to those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// Time between two polls of a node. `None` for one that depends on the number of nodes.
    pub interval: Option<Duration>,
    /// When a target is available.
    pub available_when: AvailableWhen,
    /// On which nodes a target is expected.
    pub expected_on: ExpectedOn,
}

/// A service in DNS whose hosts run agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvSettings {
    /// Name of the service, such as `_targetwatch._tcp.example.com`.
    pub name: String,
    /// Whether the agents are reached with TLS.
    pub is_encrypted: bool,
    /// Name server that is asked instead of those of this host.
    pub server: Option<SocketAddr>,
}

impl AggregateSettings {
    /// Time between two polls of one of these nodes.
    #[must_use]
    pub fn interval(&self, nodes: usize) -> Duration {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        self.interval.unwrap_or_else(|| INTERVAL_MIN.max(TIME_PER_NODE.saturating_mul(nodes)))
    }
}

/// On how many of the expected nodes a target must be available to be available in the fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AvailableWhen {
    /// On all of them.
    All,
    /// On at least one.
    Any,
    /// On at least this part of them, from 0 to 1.
    Ratio(f64),
}

impl AvailableWhen {
    /// Whether the target is available in the fleet. It is not if no node is expected to have it.
    #[must_use]
    pub fn is_met(self, available: usize, expected: usize) -> bool {
        let enough = match self {
            Self::All => available == expected,
            Self::Any => true,
            Self::Ratio(ratio) => available as f64 >= ratio * expected as f64,
        };
        available > 0 && enough
    }
}

impl fmt::Display for AvailableWhen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("all"),
            Self::Any => formatter.write_str("any"),
            Self::Ratio(ratio) => write!(formatter, "ratio:{ratio}"),
        }
    }
}

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a policy, expected \"all\", \"any\", or \"ratio:\" and a number above 0 up to 1, such as \"ratio:0.95\""
)]
pub struct PolicyError(String);

impl FromStr for AvailableWhen {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let ratio = |text: &str| text.parse().ok().filter(|ratio| *ratio > 0.0 && *ratio <= 1.0).map(Self::Ratio);
        match text {
            "all" => Some(Self::All),
            "any" => Some(Self::Any),
            _ => text.strip_prefix("ratio:").and_then(ratio),
        }
        .ok_or_else(|| PolicyError(text.to_owned()))
    }
}

/// On which nodes a target is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedOn {
    /// On all nodes of the list.
    All,
    /// On the nodes whose agent has it.
    Reporting,
}

/// Address of an agent's API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    /// Host and port.
    authority: String,
    is_encrypted: bool,
}

impl NodeAddress {
    /// Name of the node: host and port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.authority
    }

    /// Whether the API is reached with TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Reports whether requests to the agent cross a network in plain text.
    #[must_use]
    pub fn is_plain_text_elsewhere(&self) -> bool {
        super::api::is_plain_text_elsewhere(&self.to_string())
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(formatter, "{scheme}://{}", self.authority)
    }
}

/// Why a text is not the address of an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of an agent, expected \"https://HOST[:PORT]\" or \"http://HOST[:PORT]\"")]
pub struct AddressError(String);

impl FromStr for NodeAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text).ok_or_else(|| AddressError(text.chars().take(ADDRESS_MAX_BYTES).collect()))
    }
}

impl NodeAddress {
    fn parse(text: &str) -> Option<Self> {
        let (is_encrypted, rest) = match text.split_once("://")? {
            ("https", rest) => (true, rest),
            ("http", rest) => (false, rest),
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: http::uri::Authority = rest.parse().ok()?;
        let is_plain = !rest.contains('@') && !authority.host().is_empty() && rest.len() <= ADDRESS_MAX_BYTES;
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok()?,
            None if rest == authority.host() => DEFAULT_PORT,
            None => return None,
        };
        let authority = format!("{}:{port}", authority.host().to_ascii_lowercase());
        is_plain.then_some(Self { authority, is_encrypted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_a_scheme_and_a_host() {
        for (text, expected) in [
            ("https://Compute-1", Some("https://compute-1:8781")),
            ("https://compute-1/", Some("https://compute-1:8781")),
            ("http://10.0.0.1:9000", Some("http://10.0.0.1:9000")),
            ("https://[2001:db8::1]", Some("https://[2001:db8::1]:8781")),
            ("https://[2001:db8::1]:1", Some("https://[2001:db8::1]:1")),
            ("compute-1", None),
            ("ftp://compute-1", None),
            ("https://", None),
            ("https://:8781", None),
            ("https://compute-1:", None),
            ("https://compute-1:65536", None),
            ("https://compute-1/v1", None),
            ("https://compute-1?x", None),
            ("https://user:secret@compute-1", None),
            ("https://a b", None),
        ] {
            let parsed = text.parse::<NodeAddress>().ok().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
        assert!(format!("https://{}", "a".repeat(400)).parse::<NodeAddress>().is_err());
    }

    #[test]
    fn interval_grows_with_the_number_of_nodes() {
        let settings = AggregateSettings {
            nodes: Vec::new(),
            nodes_file: None,
            nodes_srv: None,
            token_file: None,
            ca_bundle: None,
            interval: None,
            available_when: AvailableWhen::All,
            expected_on: ExpectedOn::All,
        };
        for (nodes, seconds) in [(0, 5), (1_000, 5), (2_500, 5), (10_000, 20), (20_000, 40)] {
            assert_eq!(settings.interval(nodes).as_secs(), seconds, "{nodes}");
        }
        let settings = AggregateSettings { interval: Some(Duration::from_secs(60)), ..settings };
        assert_eq!(settings.interval(10_000).as_secs(), 60);
    }

    #[test]
    fn policy_decides_by_the_expected_nodes() {
        for (text, met, missed) in [
            ("all", (3, 3), (2, 3)),
            ("any", (1, 3), (0, 3)),
            ("ratio:0.95", (95, 100), (94, 100)),
            ("ratio:1", (3, 3), (2, 3)),
            ("ratio:0.001", (1, 3), (0, 3)),
        ] {
            let policy: AvailableWhen = text.parse().expect(text);
            assert_eq!(policy.to_string(), text);
            assert!(policy.is_met(met.0, met.1) && !policy.is_met(missed.0, missed.1), "{text}");
            assert!(!policy.is_met(0, 0), "{text}: without nodes");
        }
        for text in ["", "most", "ratio:", "ratio:0", "ratio:1.01", "ratio:-1", "ratio:NaN", "ratio:95%"] {
            assert!(text.parse::<AvailableWhen>().is_err(), "{text}");
        }
    }
}
