//! Token sources of the command line.
//!
//! The first of these sources applies: a file (`--token-file`), `OS_TOKEN`, the cloud in `clouds.yaml`
//! that `OS_CLOUD` names, and the variables of an openrc file (`OS_AUTH_URL` and related variables).
//! For the last two, the client obtains a token from Keystone, but only after the agent refused a request without a
//! token. A user that may use the agent's socket does not need Keystone.

mod clouds;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::keystone::{Keystone, KeystoneError};
use crate::sys::secret_file::{FileError, read_secret};
use values::{Source, Values};

/// Deadline of a login to Keystone.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Obtains a token. Returns `None` when no source is configured. `variable` reads the environment.
///
/// # Errors
/// [`TokenError`] when the configured source does not yield a token.
pub async fn token(
    file: Option<&PathBuf>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<SecretString>, TokenError> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(file) = file {
        return Ok(Some(read_secret(file).await?));
    }
    if let Some(token) = variable("OS_TOKEN") {
        return Ok(Some(SecretString::from(token)));
    }
    let values = if let Some(cloud) = variable("OS_CLOUD") {
        clouds::values(&cloud, &variable).await?
    } else if variable("OS_AUTH_URL").is_some() {
        Values::of_environment(&variable)
    } else {
        return Ok(None);
    };
    match values.source()? {
        Source::Token(token) => Ok(Some(token)),
        Source::Login { url, ca_bundle, login } => {
            let keystone = Keystone::new(&url, ca_bundle.as_deref()).await?;
            match tokio::time::timeout(LOGIN_TIMEOUT, keystone.issue(&login)).await {
                Ok(issued) => Ok(Some(issued?.token)),
                Err(_) => Err(TokenError::TimedOut { url }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
