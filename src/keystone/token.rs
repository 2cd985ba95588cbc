//! Tokens as Keystone describes them.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

/// Longest id or name that is accepted, in bytes. Keystone's columns have 64 characters for ids and names
/// of projects, and 255 for ids of users of other identity providers.
const NAME_MAX_BYTES: usize = 255;

/// A token that was issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// End of its life.
    pub expires_at: Timestamp,
}

/// Content of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// Id of its user.
    pub user_id: String,
    /// Its project. `None` for a token of the system, of a domain or without scope.
    pub project: Option<Project>,
    /// Whether its scope is the whole system.
    pub is_system: bool,
    /// Names of the user's roles in its scope.
    pub roles: Vec<String>,
    /// End of its life.
    pub expires_at: Timestamp,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Project {
    /// Its id.
    #[serde(deserialize_with = "bounded")]
    pub id: String,
    /// Its name, which is unique in its domain only.
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

/// A string that is kept for as long as the token is cached, or with what its user creates.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_too_long = text.len() > NAME_MAX_BYTES;
    if is_too_long { Err(serde::de::Error::custom("an id or a name is too long")) } else { Ok(text) }
}

impl From<ValidTokenBody> for TokenFacts {
    fn from(token: ValidTokenBody) -> Self {
        Self {
            user_id: token.user.id,
            project: token.project,
            is_system: token.system.all,
            roles: token.roles.into_iter().map(|role| role.name).collect(),
            expires_at: token.expires_at,
        }
    }
}
