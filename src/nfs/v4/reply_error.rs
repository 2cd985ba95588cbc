//! Errors of a compound's results.

use super::super::xdr::Malformed;

/// Why the results of a compound cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyError {
    /// An operation failed with a status.
    Status(&'static str, u32),
    /// The reply is not valid.
    Malformed(Malformed),
}

impl From<Malformed> for ReplyError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
