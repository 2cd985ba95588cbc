//! Credentials, from where the configuration says they are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::config::Region;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::errors::innermost;
use crate::model::settings::S3CredentialSource;
use crate::s3::S3Failure;

/// Temporary credentials are got anew when this little of their life is left.
pub const CREDENTIALS_RENEWED_BEFORE_END: Duration = Duration::from_secs(300);

/// Credentials without an end may have been replaced where they come from, so they are read again.
pub(super) fn outlives_a_probe(credentials: &Credentials) -> bool {
    credentials.expiry().is_some_and(|end| end > SystemTime::now() + CREDENTIALS_RENEWED_BEFORE_END)
}

/// Loads them.
///
/// # Errors
/// [`S3Failure::NoCredentials`].
pub(super) async fn load(
    source: &S3CredentialSource,
    region: &Region,
    http_client: &SharedHttpClient,
) -> Result<Credentials, S3Failure> {
    let settings =
        || ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(http_client.clone());
    let none =
        |what: &str, error: &dyn std::error::Error| S3Failure::NoCredentials(format!("{what}: {}", innermost(error)));
    match source {
        S3CredentialSource::DefaultChain => DefaultCredentialsChain::builder()
            .configure(settings())
            .region(region.clone())
            .build()
            .await
            .provide_credentials()
            .await
            .map_err(|error| {
                none("the AWS default chain (environment, shared files, instance metadata) has none", &error)
            }),
        S3CredentialSource::Profile(name) => ProfileFileCredentialsProvider::builder()
            .profile_name(name)
            .configure(&settings())
            .build()
            .provide_credentials()
            .await
            .map_err(|error| none(&format!("profile {name:?} of the AWS shared files gives none"), &error)),
        S3CredentialSource::Files { access_key_id, secret_access_key } => {
            let key = read_value(access_key_id).await?;
            let secret = read_value(secret_access_key).await?;
            Ok(Credentials::new(key, secret, None, None, "files"))
        }
    }
}

/// What others than the owner of a secret's file should not be able to do.
const OTHERS_MAY_READ_OR_WRITE: u32 = 0o066;

/// The first file with a secret of this source that others on this host may read or change.
pub(super) async fn exposed(source: &S3CredentialSource) -> Option<PathBuf> {
    let path = match source {
        S3CredentialSource::Files { secret_access_key, .. } => secret_access_key.clone(),
        // The environment comes before the shared file.
        S3CredentialSource::DefaultChain if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() => return None,
        S3CredentialSource::DefaultChain | S3CredentialSource::Profile(_) => {
            match std::env::var_os("AWS_SHARED_CREDENTIALS_FILE") {
                Some(path) => path.into(),
                None => Path::new(&std::env::var_os("HOME")?).join(".aws/credentials"),
            }
        }
    };
    let file = tokio::fs::File::open(&path).await.ok()?;
    let mode = file.metadata().await.ok()?.permissions().mode();
    (mode & OTHERS_MAY_READ_OR_WRITE != 0).then_some(path)
}

async fn read_value(path: &Path) -> Result<String, S3Failure> {
    let shown = path.display();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| S3Failure::NoCredentials(format!("{shown} cannot be read: {error}")))?;
    let value = text.trim();
    if value.is_empty() || value.contains(char::is_whitespace) {
        return Err(S3Failure::NoCredentials(format!("{shown} does not hold exactly one value")));
    }
    Ok(value.to_owned())
}
