//! How a canary is written: what is known of the bucket, the service and the credentials.

use std::time::Duration;

use uuid::Uuid;

use crate::check::canary::{CanaryKind, CanaryNames, ServiceClock};
use crate::model::CanaryLeftover;
use crate::s3::Versioning;

/// Number of canaries of a target on this node at which no further write canary is written. A lock proof may add one,
/// so at most five remain.
pub const LOCKED_MAX: usize = 4;

/// Largest number of locked write canaries of a target on this node. It leaves room for the canary of a lock proof.
pub const LOCKED_BY_WRITING_MAX: usize = LOCKED_MAX - 1;

/// Version ID of an object that was written while versioning was off or suspended (S3 user guide, "Working with
/// objects in a versioning-suspended bucket"). A DELETE without it adds a delete marker there.
pub const NULL_VERSION: &str = "null";

/// How a canary is written.
#[derive(Debug, Clone)]
pub struct CanaryPlan<'a> {
    /// Names of this node's canaries.
    pub names: &'a CanaryNames,
    /// Versioning of the bucket. `None` if it is not known.
    pub versioning: Option<Versioning>,
    /// Retention of the canary. `None` if the bucket does not lock new objects by default.
    pub retention: Option<Duration>,
    /// Whether it is unknown if the bucket locks new objects by default.
    pub is_lock_unknown: bool,
    /// The service's clock.
    pub clock: ServiceClock,
    /// Canary of a lock proof in progress, which stays.
    pub in_use: Option<Uuid>,
    /// Whether the credentials are expected not to be allowed to delete.
    pub append_only: bool,
    /// Whether PUTs have headers of the configuration.
    pub sends_headers: bool,
}

impl<'a> CanaryPlan<'a> {
    /// A plan for a bucket whose configuration is not known.
    #[must_use]
    pub fn new(names: &'a CanaryNames, clock: ServiceClock) -> Self {
        Self {
            names,
            versioning: None,
            retention: None,
            is_lock_unknown: false,
            clock,
            in_use: None,
            append_only: false,
            sends_headers: false,
        }
    }

    /// Whether the bucket has or may have versions.
    #[must_use]
    pub fn may_have_versions(&self) -> bool {
        self.versioning != Some(Versioning::Off)
    }

    /// End of the retention of a canary that is written now, in seconds since 1970. `None` without a retention.
    pub(super) fn retention_end(&self) -> Option<i64> {
        self.retention.map(|retention| self.clock.end_of(retention))
    }

    /// Whether a PUT may add a version. If versioning is suspended, it replaces the null version.
    pub(super) fn may_add_versions(&self) -> bool {
        matches!(self.versioning, None | Some(Versioning::Enabled))
    }

    /// Whether a PUT may add a version to an earlier canary instead of replacing it. In a bucket with versions, the
    /// answer to the PUT of the earlier canary named one.
    pub(super) fn adds_version_to(&self, earlier: &CanaryLeftover) -> bool {
        let has_version = earlier.version.as_ref().is_some_and(|version| version != NULL_VERSION);
        let is_known = self.versioning.is_some() || (self.retention.is_some() && !self.is_lock_unknown);
        let is_unanswered = earlier.written_at.is_none() && earlier.version.is_none();
        self.may_have_versions() && (has_version || is_known || is_unanswered)
    }

    /// A canary that replaces an earlier one without versions. If its PUT is not answered, the next run may replace it
    /// again.
    pub(super) fn replacement_of(&self, earlier: &CanaryLeftover) -> CanaryLeftover {
        let version = self.may_have_versions().then(|| NULL_VERSION.to_owned());
        CanaryLeftover { version, written_at: None, ..earlier.clone() }
    }

    /// A canary that is not written yet. `attempt` counts the attempts of one run.
    pub(super) fn new_canary(&self, until: Option<i64>, is_listed: bool, attempt: u128) -> CanaryLeftover {
        let until = until.unwrap_or_default();
        let new = || self.names.new_key(CanaryKind::Write, until);
        let key = if is_listed { new() } else { self.names.unlisted_key(attempt) };
        CanaryLeftover { key: self.names.text(&key), until, version: None, written_at: None }
    }

    /// Returns the version to address an object with. `named` is the version that the service named.
    #[must_use]
    pub fn version(&self, named: Option<String>) -> Option<String> {
        named.or_else(|| (self.versioning == Some(Versioning::Suspended)).then(|| NULL_VERSION.to_owned()))
    }
}
