//! Tokens as Keystone describes them.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::access_rules::AccessRule;
use super::bounded::bounded;

/// Type of the key manager in Keystone's catalog.
pub const KEY_MANAGER: &str = "key-manager";

/// Largest number of endpoints that are kept of a catalog.
const CATALOG_ENDPOINTS_MAX: usize = 64;

/// A token that was issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// Expiry.
    pub expires_at: Timestamp,
    /// Endpoints of the services of the cloud.
    pub catalog: Vec<CatalogEndpoint>,
}

/// Endpoint of a service in Keystone's catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEndpoint {
    /// Type of the service, such as `key-manager`.
    pub service_type: String,
    /// Network for which the endpoint is: `public`, `internal` or `admin`.
    pub interface: String,
    /// Region of the endpoint.
    pub region: String,
    /// Address.
    pub url: String,
}

/// Content of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// Id of the user.
    pub user_id: String,
    /// Its project. `None` for a token of the system, of a domain or without scope.
    pub project: Option<Project>,
    /// Whether its scope is the whole system.
    pub is_system: bool,
    /// Names of the user's roles in its scope.
    pub roles: Vec<String>,
    /// Access rules of the application credential for which it was issued. `None` if every request is allowed.
    pub access_rules: Option<Vec<AccessRule>>,
    /// Expiry.
    pub expires_at: Timestamp,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Project {
    /// Id of the project (Identity API v3).
    #[serde(deserialize_with = "bounded")]
    pub id: String,
    /// Name, which is unique only in one domain.
    #[serde(default, deserialize_with = "bounded")]
    pub name: String,
}

/// Body of an answer about a token.
#[derive(Deserialize)]
pub(super) struct TokenBody<T> {
    pub(super) token: T,
}

/// Part of an issued token's body.
#[derive(Deserialize)]
pub(super) struct IssuedTokenBody {
    pub(super) expires_at: Timestamp,
    #[serde(default)]
    catalog: Value,
}

#[derive(Deserialize)]
struct CatalogService {
    #[serde(default, rename = "type")]
    service_type: String,
    #[serde(default)]
    endpoints: Value,
}

#[derive(Deserialize)]
struct CatalogServiceEndpoint {
    #[serde(default)]
    interface: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    url: String,
}

impl IssuedTokenBody {
    /// Endpoints of the services that the agent uses. Others are not kept.
    pub(super) fn catalog(self) -> Vec<CatalogEndpoint> {
        let services = usable(self.catalog).filter(|service: &CatalogService| service.service_type == KEY_MANAGER);
        let endpoints = services.flat_map(|service| {
            let of_service = move |endpoint: CatalogServiceEndpoint| CatalogEndpoint {
                service_type: service.service_type.clone(),
                interface: endpoint.interface,
                region: endpoint.region.unwrap_or_default(),
                url: endpoint.url,
            };
            usable(service.endpoints).map(of_service)
        });
        endpoints.take(CATALOG_ENDPOINTS_MAX).collect()
    }
}

/// Parses a list without its unusable entries. Those of services that the agent does not use must not fail its login.
fn usable<T: DeserializeOwned>(list: Value) -> impl Iterator<Item = T> {
    let entries = match list {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok())
}

/// Part of a valid token's body.
#[derive(Deserialize)]
pub(super) struct ValidTokenBody {
    expires_at: Timestamp,
    user: User,
    project: Option<Project>,
    #[serde(default)]
    roles: Vec<Role>,
    #[serde(default)]
    system: System,
    application_credential: Option<ApplicationCredential>,
}

#[derive(Deserialize)]
struct ApplicationCredential {
    access_rules: Option<Vec<AccessRule>>,
}

#[derive(Deserialize)]
struct User {
    #[serde(deserialize_with = "bounded")]
    id: String,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

#[derive(Default, Deserialize)]
struct System {
    #[serde(default)]
    all: bool,
}

impl From<ValidTokenBody> for TokenFacts {
    fn from(token: ValidTokenBody) -> Self {
        Self {
            user_id: token.user.id,
            project: token.project,
            is_system: token.system.all,
            roles: token.roles.into_iter().map(|role| role.name).collect(),
            access_rules: token.application_credential.and_then(|credential| credential.access_rules),
            expires_at: token.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unusable_entry_of_the_catalog_is_skipped() {
        let usable = json!({ "interface": "public", "region": null, "url": "https://barbican.example.com" });
        let endpoints = json!([null, { "interface": null }, { "url": null }, { "region": 7 }, usable]);
        let services = json!([
            null,
            "text",
            { "type": null },
            { "type": KEY_MANAGER, "endpoints": null },
            { "type": KEY_MANAGER, "endpoints": endpoints },
        ]);
        for (catalog, expected) in [(services, 1), (json!(null), 0), (json!({}), 0)] {
            let body = json!({ "expires_at": "2026-11-29T00:00:00Z", "catalog": catalog });
            let body: IssuedTokenBody = serde_json::from_value(body).expect("a token");
            let catalog = body.catalog();
            assert_eq!(catalog.len(), expected, "{catalog:?}");
            assert!(catalog.iter().all(|endpoint| endpoint.url == "https://barbican.example.com"));
        }
    }
}
