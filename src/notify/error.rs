//! Errors of the receivers' files.

use super::signature::SecretsError;
use crate::sys::secret_file::FileError;
use crate::tls::TlsError;

/// Why a receiver cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotifyError {
    /// The file of the secrets of a webhook cannot be used.
    #[error("[[notify.webhook]] secret_file: {0}")]
    Secrets(#[from] SecretsError),
    /// The certificate authorities of a webhook cannot be used.
    #[error("[[notify.webhook]] ca_bundle: {0}")]
    Tls(#[from] TlsError),
    /// The program of a command cannot be used.
    #[error("[[notify.command]] argv: {0}")]
    Program(FileError),
}
