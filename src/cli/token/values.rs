//! Login values, by the names that openrc files and `clouds.yaml` share. `OS_USERNAME` is `username`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use super::error::TokenError;
use crate::keystone::{Domain, Identifier, Login, LoginScope, Method};

/// Default domain, as in the clients of OpenStack.
const DEFAULT_DOMAIN: &str = "default";

/// Names of the values that the client uses.
const KEYS: &[&str] = &[
    "auth_url",
    "token",
    "username",
    "user_id",
    "password",
    "user_domain_id",
    "user_domain_name",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "project_id",
    "project_name",
    "project_domain_id",
    "project_domain_name",
    "domain_id",
    "domain_name",
    "system_scope",
    "default_domain",
    "default_domain_id",
    "default_domain_name",
    "cacert",
    "insecure",
];

/// Older names with their current names.
const RENAMED: &[(&str, &str)] = &[("tenant_id", "project_id"), ("tenant_name", "project_name")];

/// Login values by name, with their source for error messages.
pub(super) struct Values {
    pub(super) from: String,
    pub(super) by_name: BTreeMap<String, String>,
}

/// Token source that the values describe.
#[derive(Debug)]
pub(super) enum Source {
    Token(SecretString),
    Login { url: String, ca_bundle: Option<PathBuf>, login: Login },
}

impl Values {
    pub(super) fn of_environment(variable: &impl Fn(&str) -> Option<String>) -> Self {
        let named = |name: &str| variable(&format!("OS_{}", name.to_ascii_uppercase()));
        let renamed = RENAMED.iter().filter_map(|(old, name)| Some(((*name).to_owned(), named(old)?)));
        let current = KEYS.iter().filter_map(|name| Some(((*name).to_owned(), named(name)?)));
        // Current names override older names.
        Self { from: "the OS_ variables".to_owned(), by_name: renamed.chain(current).collect() }
    }

    /// Replaces older names by their current names.
    pub(super) fn with_current_names(mut self) -> Self {
        for (old, name) in RENAMED {
            if let Some(value) = self.by_name.remove(*old) {
                self.by_name.entry((*name).to_owned()).or_insert(value);
            }
        }
        self
    }

    /// Returns the token source that the values describe.
    ///
    /// # Errors
    /// [`TokenError::Incomplete`] with the missing or invalid value.
    pub(super) fn source(&self) -> Result<Source, TokenError> {
        if let Some(token) = self.get("token") {
            return Ok(Source::Token(token.into()));
        }
        if self.get("insecure").is_some_and(|value| !["0", "false", "no"].contains(&value.to_lowercase().as_str())) {
            return Err(self.incomplete(
                "certificate verification cannot be disabled. Give the certificate authority with cacert",
            ));
        }
        let login = Login { method: self.method()?, scope: self.scope() };
        Ok(Source::Login { url: self.url()?, ca_bundle: self.get("cacert").map(PathBuf::from), login })
    }

    fn url(&self) -> Result<String, TokenError> {
        let url = self.get("auth_url").ok_or_else(|| self.missing("auth_url"))?.trim_end_matches('/');
        if url.ends_with("/v2.0") {
            return Err(self
                .incomplete(&format!("auth_url {url:?} is for version 2.0 of the Identity API, expected version 3")));
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(self.incomplete(&format!("auth_url {url:?} is not a URL, expected http:// or https://")));
        }
        Ok(url.strip_suffix("/v3").unwrap_or(url).trim_end_matches('/').to_owned())
    }

    fn method(&self) -> Result<Method, TokenError> {
        let secret = self.get("application_credential_secret");
        if let Some(id) = self.get("application_credential_id") {
            let secret = secret.ok_or_else(|| self.missing("application_credential_secret"))?.into();
            return Ok(Method::ApplicationCredential { id: Ok(id.to_owned()), secret });
        }
        if let Some(name) = self.get("application_credential_name") {
            let secret = secret.ok_or_else(|| self.missing("application_credential_secret"))?.into();
            return Ok(Method::ApplicationCredential { id: Err((name.to_owned(), self.user()?)), secret });
        }
        let user = self.user()?;
        let password = self.get("password").ok_or_else(|| self.missing("password"))?.into();
        Ok(Method::Password { user, password })
    }

    fn user(&self) -> Result<Identifier, TokenError> {
        self.named("user_id", "username", "user_domain").ok_or_else(|| self.missing("username"))
    }

    fn scope(&self) -> LoginScope {
        // An application credential implies its project. Keystone refuses a scope with it.
        if self.by_name.keys().any(|name| name.starts_with("application_credential_")) {
            return LoginScope::Default;
        }
        if self.get("system_scope").is_some() {
            return LoginScope::System;
        }
        if let Some(project) = self.named("project_id", "project_name", "project_domain") {
            return LoginScope::Project(project);
        }
        match (self.get("domain_id"), self.get("domain_name")) {
            (Some(id), _) => LoginScope::Domain(Domain::Id(id.to_owned())),
            (None, Some(name)) => LoginScope::Domain(Domain::Name(name.to_owned())),
            (None, None) => LoginScope::Default,
        }
    }

    fn named(&self, id: &str, name: &str, domain: &str) -> Option<Identifier> {
        if let Some(id) = self.get(id) {
            return Some(Identifier::Id(id.to_owned()));
        }
        let name = self.get(name)?;
        let by_id = [&format!("{domain}_id"), "default_domain_id", "default_domain"].map(|key| self.get(key));
        let by_name = [&format!("{domain}_name"), "default_domain_name"].map(|key| self.get(key));
        let domain = match (by_id, by_name) {
            ([Some(id), ..], _) => Domain::Id(id.to_owned()),
            (_, [Some(name), _]) => Domain::Name(name.to_owned()),
            ([_, Some(id), _] | [_, _, Some(id)], _) => Domain::Id(id.to_owned()),
            (_, [_, Some(name)]) => Domain::Name(name.to_owned()),
            _ => Domain::Id(DEFAULT_DOMAIN.to_owned()),
        };
        Some(Identifier::Name(name.to_owned(), domain))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn missing(&self, name: &str) -> TokenError {
        self.incomplete(&format!("{name} is missing"))
    }

    fn incomplete(&self, problem: &str) -> TokenError {
        TokenError::Incomplete { from: self.from.clone(), problem: problem.to_owned() }
    }
}
