//! OpenStack's key manager (Barbican): the credentials of buckets, as the secrets of targets contain them.
//!
//! A target's `secret_ref` is the URL of a secret. The agent never connects to that URL. It compares it with the
//! address of the configured key manager. There it requests the payload of the secret with that id, with the token of
//! its own Keystone user ([`reader`]). Redirects are not followed.
//!
//! Secrets are cached ([`cache`]). Targets with the same secret share one entry and one pending request. A secret that
//! was read stays in use while the key manager cannot answer. It is read again at an interval, at a requested check,
//! and after the service refused its credentials. Values are in memory only. A key manager that is unreachable or
//! failing is asked less and less often ([`backoff`]).

mod backoff;
mod cache;
mod error;
mod freshness;
mod href;
mod reader;

pub use cache::{FoundSecret, KeyManager, SECRETS_MAX};
pub use error::KeyManagerError;
pub use freshness::Freshness;
pub use reader::PAYLOAD_MAX_BYTES;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
