//! Tokens: where the command line has one from, when an agent asks for it.
//!
//! The first of these that is there: a file (`--token-file`), `OS_TOKEN`, the cloud of `clouds.yaml`
//! that `OS_CLOUD` names, and the variables of an openrc file (`OS_AUTH_URL` and its companions).
//! For the last two Keystone is asked for a token. Nothing of it is looked at before an agent has
//! refused a request without one, so who is let in by a socket's permissions needs no Keystone.

mod clouds;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::keystone::{Keystone, KeystoneError};
use crate::sys::secret_file::{FileError, read_secret};
use values::{Source, Values};

/// How long Keystone may take to give a token.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is there is not enough, or contradicts itself.
    #[error("no token can be got with {from}: {problem}")]
    Incomplete {
        /// Where it is from.
        from: String,
        /// What is missing or wrong.
        problem: String,
    },
    /// Keystone gives none.
    #[error(transparent)]
    Keystone(#[from] KeystoneError),
    /// Keystone does not answer.
    #[error("Keystone at {url} did not answer within {} s", LOGIN_TIMEOUT.as_secs())]
    TimedOut {
        /// Where it is.
        url: String,
    },
}

/// Gets a token; none when nothing says where from. `variable` reads the environment.
///
/// # Errors
/// [`TokenError`] when what is there does not lead to a token.
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
            let keystone = Keystone::at(&url, ca_bundle.as_deref()).await?;
            match tokio::time::timeout(LOGIN_TIMEOUT, keystone.issue(&login)).await {
                Ok(issued) => Ok(Some(issued?.token)),
                Err(_) => Err(TokenError::TimedOut { url }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
