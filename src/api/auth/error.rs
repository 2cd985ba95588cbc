//! Errors of the configured authentication.

use std::path::PathBuf;

use super::credential::TOKEN_MAX_BYTES;
use crate::keystone::KeystoneError;
use crate::sys::secret_file::FileError;

/// Shortest shared secret that is accepted, in bytes.
pub(super) const SECRET_MIN_BYTES: usize = 16;

/// Why requests cannot be authenticated as configured.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file of the secret cannot be used.
    #[error("{key}: {source}")]
    File {
        /// Configuration key of the file.
        key: &'static str,
        /// Cause.
        source: FileError,
    },
    /// The file contains no usable secret.
    #[error(
        "{key}: {path} contains no usable secret, expected {SECRET_MIN_BYTES} to {TOKEN_MAX_BYTES} printable characters without blanks, as `openssl rand -hex 32` prints",
        path = path.display()
    )]
    Secret {
        /// Configuration key of the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Keystone cannot be used.
    #[error("[api.keystone]: {0}")]
    Keystone(#[from] KeystoneError),
}
