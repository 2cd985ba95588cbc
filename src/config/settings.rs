//! The validated configuration, and its fingerprint.

use crate::model::RegistryUrl;
use crate::model::digest::sha256_hex;
use crate::model::settings::{AgentSettings, AggregateSettings, ApiSettings, DeclaredTarget, NotifySettings};

/// Length of a fingerprint, in bytes.
const FINGERPRINT_BYTES: usize = 6;

/// The validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Listeners, authentication and TLS of the API.
    pub api: ApiSettings,
    /// URL of the registry.
    pub registry_url: RegistryUrl,
    /// Settings of mounts and probes.
    pub agent: AgentSettings,
    /// Settings of notifications.
    pub notify: NotifySettings,
    /// Settings of `targetwatch aggregate`. The agent ignores them.
    pub aggregate: AggregateSettings,
    /// Targets to create at start-up if they do not exist.
    pub declared: Vec<DeclaredTarget>,
}

impl Settings {
    /// Returns a fingerprint of the settings: 12 hexadecimal digits of their SHA-256. It does not depend on comments,
    /// nor on the addresses to listen on, which differ between nodes. It is comparable between agents of one version.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut compared = self.clone();
        compared.api.listen.clear();
        compared.api.metrics.listen.clear();
        // Settings contain the paths of secrets but not the secrets. A token in the URL of a webhook cannot be guessed.
        sha256_hex(format!("{compared:?}"), FINGERPRINT_BYTES)
    }
}
