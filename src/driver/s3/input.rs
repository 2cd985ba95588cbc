//! What one probe of a bucket works with: its settings, and then its client.

use std::time::Duration;

use crate::check::canary::{CanaryNames, ServiceClock};
use crate::driver::driver_trait::Depth;
use crate::model::S3Location;
use crate::model::report::Finding;
use crate::model::settings::{AgentSettings, S3AccessRule};

/// Shortest time between two canaries of a node, and between two reads of the configuration, while another node watches
/// the bucket. Both together take 6 requests. So without warnings, all requests of a fleet stay below 1.2 times those of
/// one node and a HEAD of each node in 15 minutes.
pub(super) const CANARY_INTERVAL: Duration = Duration::from_hours(24);

/// How many times as long the intervals are while the other nodes cannot be heard.
pub(super) const TENTH: u32 = 10;

/// How often this node writes to a bucket and reads its configuration, beside the other nodes of its fleet. Ordered from
/// the most frequent to the rarest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// At the intervals of the settings.
    Full,
    /// At a tenth of this rate, because the other nodes cannot be heard and may do the same.
    Tenth,
    /// Each [`CANARY_INTERVAL`], because another node watches the bucket.
    Rare,
}

impl Pace {
    /// Returns the interval for one of the settings.
    fn stretched(self, interval: Duration) -> Duration {
        match self {
            Self::Full => interval,
            Self::Tenth => interval.saturating_mul(TENTH).min(interval.max(CANARY_INTERVAL)),
            Self::Rare => interval.max(CANARY_INTERVAL),
        }
    }
}

/// Input of one probe.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) location: &'a S3Location,
    pub(super) settings: &'a AgentSettings,
    /// First access rule whose pattern matches the bucket.
    pub(super) rule: Option<&'a S3AccessRule>,
    pub(super) depth: Depth,
    pub(super) pace: Pace,
}

impl<'a> Input<'a> {
    pub(super) fn new(location: &'a S3Location, settings: &'a AgentSettings, depth: Depth) -> Self {
        Self { location, settings, rule: rule_for(location, settings), depth, pace: Pace::Full }
    }

    /// Time between a canary with these warnings and the next one. While another node watches the bucket, a canary with
    /// a warning is repeated sooner, so that the warning does not stay for a day after its cause has ended.
    pub(super) fn canary_interval(&self, warnings: &[Finding]) -> Duration {
        let pace = if warnings.is_empty() { self.pace } else { self.pace.min(Pace::Tenth) };
        pace.stretched(self.settings.s3_canary.interval)
    }

    /// Time for which the configuration of the bucket is kept.
    pub(super) fn configuration_interval(&self) -> Duration {
        self.pace.stretched(self.settings.probe.s3_facts_interval)
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
