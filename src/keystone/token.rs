//! Tokens as Keystone describes them.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;

use super::access_rules::AccessRule;
use super::bounded::bounded;

/// A token that was issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// Expiry.
    pub expires_at: Timestamp,
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
