//! Logins: user, credential, and scope of the token to issue.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// A login (Identity API v3, "Password authentication" and "Authenticating with an application
/// credential").
#[derive(Debug, Clone)]
pub struct Login {
    /// User and credential.
    pub method: Method,
    /// Scope of the token.
    pub scope: LoginScope,
}

/// User and credential.
#[derive(Debug, Clone)]
pub enum Method {
    /// A user with a password.
    Password {
        /// The user.
        user: Identifier,
        /// The password.
        password: SecretString,
    },
    /// An application credential, which determines the project.
    ApplicationCredential {
        /// Id, or name and user. Names are unique only for one user.
        id: Result<String, (String, Identifier)>,
        /// Secret of the application credential.
        secret: SecretString,
    },
}

/// A user or project: by id, or by a name in a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identifier {
    /// By id.
    Id(String),
    /// By name.
    Name(String, Domain),
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// Scope of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginScope {
    /// Scope that the login implies.
    Default,
    /// A project.
    Project(Identifier),
    /// A domain.
    Domain(Domain),
    /// The whole system.
    System,
}

impl Login {
    /// Secret of the credential.
    pub(super) fn secret(&self) -> &SecretString {
        match &self.method {
            Method::Password { password: secret, .. } | Method::ApplicationCredential { secret, .. } => secret,
        }
    }

    /// Body of the request.
    pub(super) fn body(&self) -> Value {
        let identity = match &self.method {
            Method::Password { user, password } => {
                let mut user = user.body();
                user["password"] = password.expose_secret().into();
                json!({ "methods": ["password"], "password": { "user": user } })
            }
            Method::ApplicationCredential { id, secret } => {
                let mut credential = match id {
                    Ok(id) => json!({ "id": id }),
                    Err((name, user)) => json!({ "name": name, "user": user.body() }),
                };
                credential["secret"] = secret.expose_secret().into();
                json!({ "methods": ["application_credential"], "application_credential": credential })
            }
        };
        let mut auth = json!({ "identity": identity });
        match &self.scope {
            LoginScope::Default => {}
            LoginScope::Project(project) => auth["scope"] = json!({ "project": project.body() }),
            LoginScope::Domain(domain) => auth["scope"] = json!({ "domain": domain.body() }),
            LoginScope::System => auth["scope"] = json!({ "system": { "all": true } }),
        }
        json!({ "auth": auth })
    }
}

impl Identifier {
    fn body(&self) -> Value {
        match self {
            Self::Id(id) => json!({ "id": id }),
            Self::Name(name, domain) => json!({ "name": name, "domain": domain.body() }),
        }
    }
}

impl Domain {
    fn body(&self) -> Value {
        match self {
            Self::Id(id) => json!({ "id": id }),
            Self::Name(name) => json!({ "name": name }),
        }
    }
}
