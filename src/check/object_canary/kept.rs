//! A canary that remains.

use crate::model::CanaryLeftover;
use crate::s3::S3Failure;

/// An earlier canary that these credentials may not delete.
pub(super) struct Kept {
    pub(super) leftover: CanaryLeftover,
    pub(super) denied: S3Failure,
    /// Whether one more canary may remain beside it.
    pub(super) leaves_room: bool,
}

impl Kept {
    /// Returns when it was written, as part of a sentence.
    pub(super) fn since(&self) -> String {
        self.leftover.written_at.map(|at| format!(" at {at:.0}")).unwrap_or_default()
    }
}
