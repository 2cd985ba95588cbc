//! Logins: who asks for a token, how that is proved, and what the token shall be for.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// A login (Identity API v3, "Password authentication" and "Authenticating with an application
/// credential").
#[derive(Debug, Clone)]
pub struct Login {
    /// Who, and the proof.
    pub method: Method,
    /// What for.
    pub scope: Scope,
}

/// Who asks, and the proof of it.
#[derive(Debug, Clone)]
pub enum Method {
    /// A user with a password.
    Password {
        /// The user.
        user: Identifier,
        /// The password.
        password: SecretString,
    },
    /// An application credential, which has its own project.
    ApplicationCredential {
        /// Its id; or its name, which is unique for its user only.
        id: Result<String, (String, Identifier)>,
        /// Its secret.
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

/// What a token shall be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// What the login has by itself.
    Default,
    /// A project.
    Project(Identifier),
    /// A domain.
    Domain(Domain),
    /// The whole system.
    System,
}

impl Login {
    /// What proves it.
    pub(super) fn secret(&self) -> &SecretString {
        match &self.method {
            Method::Password { password: secret, .. } | Method::ApplicationCredential { secret, .. } => secret,
        }
    }

    /// The body of the request.
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
            Scope::Default => {}
            Scope::Project(project) => auth["scope"] = json!({ "project": project.body() }),
            Scope::Domain(domain) => auth["scope"] = json!({ "domain": domain.body() }),
            Scope::System => auth["scope"] = json!({ "system": { "all": true } }),
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
