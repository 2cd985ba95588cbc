//! Limits the length of a token's strings, which are kept as long as the token is cached.

use serde::{Deserialize, Deserializer};

/// Longest id or name that is accepted, in bytes. Keystone's columns have 64 characters for ids and names
/// of projects, and 255 for ids of users of other identity providers.
const NAME_MAX_BYTES: usize = 255;

/// Deserializes a string of at most [`NAME_MAX_BYTES`].
pub(super) fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_too_long = text.len() > NAME_MAX_BYTES;
    if is_too_long { Err(serde::de::Error::custom("an id or a name is too long")) } else { Ok(text) }
}
