//! Token sources of the command line.
//!
//! The first of these sources applies: a file (`--token-file`), `OS_TOKEN`, the cloud in `clouds.yaml`
//! that `OS_CLOUD` names, and the variables of an openrc file (`OS_AUTH_URL` and related variables).
//! For the last two, the client obtains a token from Keystone, but only after the agent refused a request without a
//! token. A user that may use the agent's socket does not need Keystone.

mod clouds;
mod error;
mod values;

use std::path::PathBuf;

use secrecy::SecretString;

use crate::keystone::Keystone;
use crate::sys::secret_file::read_secret;
use error::LOGIN_TIMEOUT;
pub use error::TokenError;
use values::{Source, Values};

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
