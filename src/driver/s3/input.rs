//! What one probe of a bucket works with: its settings, and then its client.

use std::time::Duration;

use super::bucket_watch::CANARY_INTERVAL;
use crate::check::canary::{CanaryNames, ServiceClock};
use crate::driver::driver_trait::Depth;
use crate::model::S3Location;
use crate::model::settings::{AgentSettings, S3AccessRule};

/// Input of one probe.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) location: &'a S3Location,
    pub(super) settings: &'a AgentSettings,
    /// First access rule whose pattern matches the bucket.
    pub(super) rule: Option<&'a S3AccessRule>,
    pub(super) depth: Depth,
    /// Whether another node of the fleet watches the bucket, so that this one asks more rarely.
    pub(super) is_watched: bool,
}

impl<'a> Input<'a> {
    pub(super) fn new(location: &'a S3Location, settings: &'a AgentSettings, depth: Depth) -> Self {
        Self { location, settings, rule: rule_for(location, settings), depth, is_watched: false }
    }

    /// Time between two canaries.
    pub(super) fn canary_interval(&self) -> Duration {
        self.settings.s3_canary.interval.max(self.interval_min())
    }

    /// Time for which the configuration of the bucket is kept.
    pub(super) fn configuration_interval(&self) -> Duration {
        self.settings.probe.s3_facts_interval.max(self.interval_min())
    }

    fn interval_min(&self) -> Duration {
        if self.is_watched { CANARY_INTERVAL } else { Duration::ZERO }
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.rule.is_some_and(|rule| rule.read_only)
    }

    /// Returns why nothing is written to the bucket: `section` of the configuration is not `enabled`, or the access
    /// rule is read-only. `None` if the bucket is written to.
    pub(super) fn writes_nothing(&self, enabled: bool, section: &str) -> Option<String> {
        if !enabled {
            return Some(format!("turned off in {section}"));
        }
        self.is_read_only().then(|| "read_only in [[s3.credentials]]".to_owned())
    }
}

/// Returns the first access rule whose pattern matches a bucket.
pub(super) fn rule_for<'a>(location: &S3Location, settings: &'a AgentSettings) -> Option<&'a S3AccessRule> {
    let export = location.to_string();
    settings.s3_access.iter().find(|rule| rule.location.matches(&export))
}

/// Access to the objects of a bucket that was reached, for one probe.
pub(super) struct BucketSession<A> {
    pub(super) api: A,
    pub(super) access_key_id: String,
    /// Names of this node's canaries.
    pub(super) names: CanaryNames,
    /// The service's clock.
    pub(super) clock: ServiceClock,
}
