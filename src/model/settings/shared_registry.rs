//! Settings of a registry that all nodes share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::api::is_plain_text_elsewhere;

/// Settings of the registry in etcd (`[registry]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRegistrySettings {
    /// URLs of the members or of a proxy, such as `https://host:2379`. At least one.
    pub endpoints: Vec<String>,
    /// Prefix of all keys, without slashes around it.
    pub prefix: String,
    /// File of the copy on this node.
    pub cache: PathBuf,
    /// PEM file of certificate authorities that are trusted in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// User, and the file of the password.
    pub login: Option<(String, PathBuf)>,
    /// Time between two comparisons of the copy with the registry.
    pub interval: Duration,
    /// Name of this node among all nodes (`[fleet] node`). `None`: an id that follows from the machine id.
    pub node: Option<String>,
    /// Labels of this node (`[fleet] labels`).
    pub labels: BTreeMap<String, String>,
}

impl SharedRegistrySettings {
    /// Returns the first endpoint to which requests cross a network in plain text.
    #[must_use]
    pub fn plain_text_elsewhere(&self) -> Option<&str> {
        self.endpoints.iter().map(String::as_str).find(|url| is_plain_text_elsewhere(url))
    }
}

impl fmt::Display for SharedRegistrySettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_secure = self.endpoints.iter().any(|url| url.starts_with("https:"));
        let hosts = self.endpoints.iter().filter_map(|url| url.split_once("://")).map(|(_, host)| host);
        let hosts: Vec<&str> = hosts.collect();
        write!(formatter, "{}://{}/{}", if is_secure { "etcd+https" } else { "etcd" }, hosts.join(","), self.prefix)
    }
}
