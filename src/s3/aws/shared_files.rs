//! The AWS shared files (`~/.aws/config`, `~/.aws/credentials`), and whatever else the SDK reads on the way to
//! credentials.
//!
//! The SDK reads files with blocking calls in its asynchronous functions
//! (<https://github.com/awslabs/aws-sdk-rust/issues/867>). A home directory that does not answer would stop the threads
//! of the runtime, and with them the agent. So these functions run on threads that may hang.

use std::env;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::ProfileFileRegionProvider;

use crate::s3::failure::S3Failure;
use crate::sys::file_read::{READ_TIMEOUT, read_files};

/// Time limit of reading credentials. A profile may name a program that provides them, or a service.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(60);

/// Environment variables that name the shared files, and the files below the home directory that they replace (AWS SDKs
/// and Tools Reference Guide, "Location of the shared config and credentials files").
const FILES: [(&str, &str); 2] = [("AWS_CONFIG_FILE", ".aws/config"), (CREDENTIALS_VARIABLE, CREDENTIALS_FILE)];
const CREDENTIALS_VARIABLE: &str = "AWS_SHARED_CREDENTIALS_FILE";
const CREDENTIALS_FILE: &str = ".aws/credentials";

/// Returns the shared file with credentials. `None` if it is below a home directory that is not known.
pub(super) fn credentials_file() -> Option<PathBuf> {
    let home = || env::var_os("HOME").map(PathBuf::from);
    match env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from) {
        // As the SDK does.
        Some(named) => match named.strip_prefix("~") {
            Ok(below) => Some(home()?.join(below)),
            Err(_) => Some(named),
        },
        None => Some(home()?.join(CREDENTIALS_FILE)),
    }
}

/// Returns whether a shared file may exist. Most hosts have none, and the SDK takes long to find that out. Called on a
/// thread that may hang.
fn may_exist() -> bool {
    let home = env::var_os("HOME");
    let is_absent = |path: PathBuf| File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    FILES.iter().any(|(variable, file)| {
        env::var_os(variable).is_some() || home.as_ref().is_some_and(|home| !is_absent(Path::new(home).join(file)))
    })
}

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
        let region = || runtime.block_on(async { provider.build().region().await.map(|region| region.to_string()) });
        may_exist().then(region).flatten()
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
