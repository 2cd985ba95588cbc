//! The AWS shared files (`~/.aws/config`, `~/.aws/credentials`), and whatever else the SDK reads on the way to
//! credentials.
//!
//! The SDK reads files with blocking calls in its asynchronous functions
//! (<https://github.com/awslabs/aws-sdk-rust/issues/867>). A home directory that does not answer would stop the threads
//! of the runtime, and with them the agent. So these functions run on threads that may hang.

use std::path::Path;
use std::time::Duration;

use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::ProfileFileRegionProvider;

use crate::s3::failure::S3Failure;
use crate::sys::file_read::{READ_TIMEOUT, read_files};

/// Time limit of reading credentials. A profile may name a program that provides them, or a service.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the region of a profile, or of the default profile. `None` if the files name none.
///
/// # Errors
/// [`S3Failure::NoCredentials`] when the files are not read in time.
pub(super) async fn region(profile: Option<&str>) -> Result<Option<String>, S3Failure> {
    let provider = ProfileFileRegionProvider::builder();
    let provider = match profile {
        Some(name) => provider.profile_name(name),
        None => provider,
    };
    let runtime = tokio::runtime::Handle::current();
    let reading = read_files(Path::new("regions in the AWS shared files"), READ_TIMEOUT, move || {
        runtime.block_on(async { provider.build().region().await.map(|region| region.to_string()) })
    });
    reading.await.ok_or_else(|| {
        S3Failure::NoCredentials(format!(
            "the AWS shared files (~/.aws/config, ~/.aws/credentials), which may name the region, were not read within {} s, because their storage does not answer: set region in [[s3.credentials]] to do without them",
            READ_TIMEOUT.as_secs()
        ))
    })
}

/// Waits for an SDK function that reads credentials and perhaps files. `source` identifies the source of the
/// credentials. The caller sets a deadline.
///
/// # Errors
/// [`S3Failure::NoCredentials`] when the source has not answered after a minute.
pub(super) async fn credentials<T: Send + 'static>(
    source: &str,
    reading: impl Future<Output = T> + Send + 'static,
) -> Result<T, S3Failure> {
    let runtime = tokio::runtime::Handle::current();
    let reading = read_files(Path::new(source), CREDENTIALS_TIMEOUT, move || runtime.block_on(reading));
    reading.await.ok_or_else(|| {
        S3Failure::NoCredentials(format!("{source} did not answer within {} s", CREDENTIALS_TIMEOUT.as_secs()))
    })
}
