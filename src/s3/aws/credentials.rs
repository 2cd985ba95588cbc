//! Reads credentials from their configured source.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::config::Region;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use secrecy::ExposeSecret;

use super::shared_files;
use crate::model::cause::innermost_cause;
use crate::model::settings::S3CredentialSource;
use crate::model::{BucketSecret, END_ANNOUNCED_BEFORE};
use crate::s3::failure::S3Failure;
use crate::sys::secret_file::{read_secret_with_id, read_with_exposure};

/// Time before their expiry at which temporary credentials are renewed.
pub const CREDENTIALS_RENEWED_BEFORE_END: Duration = Duration::from_secs(300);

/// Source of a client's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ClientSource {
    /// Source in the configuration.
    Configured(S3CredentialSource),
    /// Secret of the key manager.
    Secret(Arc<BucketSecret>),
}

/// Longest lifetime of the temporary credentials that AWS issues (`GetSessionToken`). Their sources renew them at the
/// end of their life, so only credentials with a longer life are asked for long before.
const SHORT_LIFE_MAX: Duration = Duration::from_secs(36 * 3600);

/// Time between two questions whether the source has replaced long-lived credentials that end soon.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Returns whether credentials need not be read again. Credentials that never expire are read at every probe,
/// because they may have been replaced.
pub(super) fn outlives_a_probe(credentials: &Credentials) -> bool {
    credentials.expiry().is_some_and(|end| end > SystemTime::now() + CREDENTIALS_RENEWED_BEFORE_END)
}

/// Whether the source of credentials renews them, as far as it is known.
#[derive(Debug, Clone)]
pub(super) struct Renewal {
    is_long_lived: bool,
    asked_at: Option<SystemTime>,
    /// Whether the source was asked for other credentials when they were due, and provided the same ones.
    is_repeated: Arc<AtomicBool>,
}

impl Renewal {
    /// Returns what is known after the first read of credentials that expire at `end`.
    pub(super) fn at_first_read(end: Option<SystemTime>, now: SystemTime) -> Self {
        let is_long_lived = end.is_some_and(|end| end > now + SHORT_LIFE_MAX);
        Self { is_long_lived, asked_at: None, is_repeated: Arc::default() }
    }

    /// Whether both are about the same read of the same credentials, in the same client.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.is_repeated, &other.is_repeated)
    }

    /// Returns whether the source should be asked now for credentials after those that expire at `end`. Counts as
    /// asked.
    pub(super) fn ask(&mut self, end: Option<SystemTime>, now: SystemTime) -> bool {
        let is_asked = self.asked_at.is_some_and(|asked| asked <= now && now < asked + ASKED_AGAIN_AFTER);
        let is_due = self.is_long_lived && !is_asked && end.is_some_and(|end| end <= now + END_ANNOUNCED_BEFORE);
        if is_due {
            self.asked_at = Some(now);
        }
        is_due
    }

    /// Records that the source provided the same credentials again.
    pub(super) fn repeated(&self) {
        self.is_repeated.store(true, Ordering::Relaxed);
    }

    /// Returns whether the source provided the same credentials when other ones were due.
    pub(super) fn is_overdue(&self) -> bool {
        self.is_repeated.load(Ordering::Relaxed)
    }
}

/// Loads credentials. Also returns the file with their secret, if other users may read or change it.
///
/// # Errors
/// [`S3Failure::NoCredentials`].
pub(super) async fn load(
    source: &ClientSource,
    region: &Region,
    http_client: &SharedHttpClient,
) -> Result<(Credentials, Option<PathBuf>), S3Failure> {
    let source = match source {
        ClientSource::Configured(source) => source,
        ClientSource::Secret(secret) => {
            let secret_key = secret.secret_key().expose_secret();
            return Ok((Credentials::new(secret.access_key(), secret_key, None, None, "key manager"), None));
        }
    };
    let settings =
        || ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(http_client.clone());
    let none = |what: &str, error: &dyn std::error::Error| {
        S3Failure::NoCredentials(format!("{what}: {}", innermost_cause(error)))
    };
    let credentials = match source {
        S3CredentialSource::DefaultChain => {
            let builder = DefaultCredentialsChain::builder().configure(settings()).region(region.clone());
            // Boxed, because this future of the SDK is large, and would be stored twice: as an argument and as a local.
            let reading = Box::pin(async move { builder.build().await.provide_credentials().await });
            shared_files::credentials("the AWS default chain of credentials", reading).await?.map_err(|error| {
                none("the AWS default chain (environment, shared files, instance metadata) found none", &error)
            })
        }
        S3CredentialSource::Profile(name) => {
            let builder = ProfileFileCredentialsProvider::builder().profile_name(name).configure(&settings());
            let reading = Box::pin(async move { builder.build().provide_credentials().await });
            shared_files::credentials(&format!("profile {name:?} of the AWS shared files"), reading)
                .await?
                .map_err(|error| none(&format!("profile {name:?} of the AWS shared files provides none"), &error))
        }
        S3CredentialSource::Files { access_key_id, secret_access_key } => {
            let read = read_secret_with_id(secret_access_key, access_key_id).await;
            let read = read.map_err(|error| S3Failure::NoCredentials(error.to_string()))?;
            let (key, secret) = (value(access_key_id, read.id)?, value(secret_access_key, read.secret)?);
            let credentials = Credentials::new(key, secret, None, None, "files");
            return Ok((credentials, read.is_exposed.then(|| secret_access_key.clone())));
        }
    }?;
    // The environment has precedence over the shared file.
    let is_in_environment =
        *source == S3CredentialSource::DefaultChain && std::env::var_os("AWS_ACCESS_KEY_ID").is_some();
    let exposed = if is_in_environment { None } else { exposed_shared_file().await };
    Ok((credentials, exposed))
}

/// Returns the AWS shared credentials file if other users of this host may read or change it.
async fn exposed_shared_file() -> Option<PathBuf> {
    let path = shared_files::credentials_file()?;
    let (_, is_exposed) = read_with_exposure(&path).await.ok()?;
    is_exposed.then_some(path)
}

fn value(path: &Path, bytes: Vec<u8>) -> Result<String, S3Failure> {
    let text = String::from_utf8(bytes).unwrap_or_default();
    let value = text.trim();
    if value.is_empty() || value.contains(char::is_whitespace) {
        return Err(S3Failure::NoCredentials(format!("{} does not contain exactly one value", path.display())));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_asked_daily_for_successors_of_long_lived_credentials() {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = SystemTime::UNIX_EPOCH + 365 * 24 * HOUR;
        let asks = |days: u32, hours: &[u32]| -> Vec<bool> {
            let end = Some(now + days * 24 * HOUR);
            let mut renewal = Renewal::at_first_read(end, now);
            hours.iter().map(|hours| renewal.ask(end, now + *hours * HOUR)).collect()
        };
        assert_eq!(asks(13, &[0, 1, 23, 24, 25, 48]), [true, false, false, true, false, true]);
        assert_eq!(asks(15, &[0, 23, 24, 25]), [false, false, true, false]);
        assert_eq!(asks(1, &[0, 1, 23]), [false; 3], "credentials that AWS issues for hours");
        let mut endless = Renewal::at_first_read(None, now);
        assert!(!endless.ask(None, now));
        // The clock was set back.
        let end = Some(now + 13 * 24 * HOUR);
        let mut renewal = Renewal::at_first_read(end, now);
        assert!(renewal.ask(end, now) && renewal.ask(end, now - HOUR));
    }
}
