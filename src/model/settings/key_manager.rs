//! Settings of the key manager.

use std::path::PathBuf;
use std::time::Duration;

use super::api::{KeystoneSettings, is_plain_text_elsewhere};

/// Settings of OpenStack's key manager, from which the credentials of buckets are read (`[key_manager]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyManagerSettings {
    /// Keystone at which the agent's user logs in (`[api.keystone]`).
    pub keystone: KeystoneSettings,
    /// URL of the key manager, without `/v1`. `None` means that Keystone's catalog has it.
    pub endpoint: Option<String>,
    /// Interface of the endpoint in the catalog.
    pub interface: String,
    /// Region of the endpoint in the catalog. `None` means the first one.
    pub region: Option<String>,
    /// Time after which a secret is read again.
    pub refresh_interval: Duration,
    /// Deadline of reading one secret.
    pub timeout: Duration,
    /// Whether a secret may name another endpoint than its target.
    pub accept_other_endpoints: bool,
    /// PEM file of certificate authorities that are trusted in addition to those of the system.
    pub ca_bundle: Option<PathBuf>,
}

impl KeyManagerSettings {
    /// Whether both use the same key manager with the same user, so that what was read with one may be used with the
    /// other.
    #[must_use]
    pub fn is_same_service(&self, other: &Self) -> bool {
        let identity = |settings: &Self| {
            let Self { keystone, endpoint, interface, region, .. } = settings.clone();
            (keystone.url, keystone.credential, endpoint, interface, region)
        };
        identity(self) == identity(other)
    }

    /// Returns a warning if secrets cross a network in plain text, because Keystone's catalog has this address of the
    /// key manager. A configured address has its own warning.
    #[must_use]
    pub fn catalog_warning(&self, url: &str) -> Option<String> {
        (self.endpoint.is_none() && is_plain_text_elsewhere(url)).then(|| {
            format!(
                "the key manager at {url}, an address of Keystone's catalog, is used without TLS, so others on the network can read the credentials of buckets. Set an https:// URL in [key_manager] endpoint, or correct the catalog"
            )
        })
    }

    /// Reports whether secrets cross a network in plain text, as far as the configuration shows it.
    #[must_use]
    pub fn is_plain_text_elsewhere(&self) -> bool {
        self.endpoint.as_deref().is_some_and(is_plain_text_elsewhere)
    }
}
