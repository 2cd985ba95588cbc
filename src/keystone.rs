//! Keystone: gets tokens, and validates the tokens of clients.
//!
//! [`Keystone`] makes the few calls of the Identity API v3 that the agent and its command line need. [`Session`] has
//! the agent's own token and renews it. [`Validator`] validates the tokens of clients with it. Nothing is sent before
//! it is needed, so an unreachable Keystone does not delay the start. Callers bound the wait, and this module bounds
//! the answers. Tokens and secrets are [`SecretString`](secrecy::SecretString)s, which no log shows.
//!
//! The meaning of a refusal depends on its status (Identity API v3, "Validate and show information for token"). 404 is
//! about the validated token, and 401 about the agent's own token. 403 means that the agent may not validate. A 404
//! counts only with Keystone's fault body. Otherwise a different web server at this address would make every token
//! invalid.

mod access_rules;
mod bounded;
mod error;
mod http;
mod login;
mod login_backoff;
mod session;
mod token;
mod validator;

pub use self::http::Keystone;
pub use access_rules::AccessRule;
pub use error::KeystoneError;
pub use login::{Domain, Identifier, Login, LoginScope, Method};
pub use session::{OwnToken, Session};
pub use token::{CatalogEndpoint, IssuedToken, KEY_MANAGER, Project, TokenFacts};
pub use validator::Validator;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
