//! Error while obtaining a token.

use std::time::Duration;

use crate::keystone::KeystoneError;
use crate::sys::secret_file::FileError;

/// Deadline of a login to Keystone.
pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Error while obtaining a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The token file or the clouds file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The login values are incomplete or contradict each other.
    #[error("cannot obtain a token with {from}: {problem}")]
    Incomplete {
        /// Source of the values.
        from: String,
        /// Missing or invalid value.
        problem: String,
    },
    /// Keystone refused the login.
    #[error(transparent)]
    Keystone(#[from] KeystoneError),
    /// Keystone did not answer within the deadline.
    #[error("Keystone at {url} did not answer within {} s", LOGIN_TIMEOUT.as_secs())]
    TimedOut {
        /// URL of Keystone.
        url: String,
    },
}
