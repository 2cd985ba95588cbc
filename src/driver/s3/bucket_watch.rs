//! Buckets that one node of a fleet watches for all.
//!
//! The node that holds the claim of the fact `bucket` asks the bucket at each interval, and shares whether it is
//! available. While it is, the other nodes verify only their own path at each interval, with a connection and a TLS
//! handshake. They ask the bucket itself at `[fleet] bucket_check_interval`, and write a canary each
//! [`CANARY_INTERVAL`](super::input::CANARY_INTERVAL). A report repeats what the node found itself and says when. So no
//! node reports a bucket as available that it did not reach with its own credentials. Only sizes are those of the other
//! node, if it has read them later.
//!
//! | event | what this node does |
//! |---|---|
//! | the other node finds the bucket unavailable, or with another configuration | asks it at each interval, from now on |
//! | its own path, credentials or certificate authority fails or changes | the same, until a probe passes |
//! | the fact is older than two intervals and a look at it, or etcd has not answered for three times to live | asks and writes at a tenth of the rate, because the other nodes may do the same |
//! | its settings change, or a check is requested | asks once |
//!
//! The fact of another node never decides: it only makes this node ask, or lets it ask more rarely.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::fleet_facts::Watcher;
use super::input::{Pace, TENTH};
use crate::check::CheckLog;
use crate::check::capacity::bucket_capacity;
use crate::driver::shared_facts::SharedFact;
use crate::model::report::BucketFacts;
use crate::model::settings::ProbeSettings;
use crate::model::{Capacity, CheckName, CheckResult, Outcome, random_fraction};
use crate::s3::BucketUsage;
use crate::s3::aws::ClientIdentity;

/// Largest random delay of a question, as a part of its interval, so that nodes do not ask together. No question is
/// early, so the number in an hour does not grow.
const LATER_BY: f64 = 0.2;

/// Time between the probes of two nodes after news about a bucket, on average.
const PROBE_SPACING: Duration = Duration::from_millis(20);

/// What a node found when it last asked a bucket that is available.
pub(super) struct AskedBucket {
    /// Access key with which it asked.
    pub(super) access_key_id: String,
    /// Client with which it asked.
    pub(super) identity: ClientIdentity,
    /// Configuration of the bucket, as the nodes share it.
    pub(super) configuration: String,
    /// Results of the checks.
    pub(super) checks: Vec<CheckResult>,
    /// Its capacity.
    pub(super) capacity: Option<Capacity>,
    /// Facts of the report.
    pub(super) facts: BucketFacts,
}

/// Why a node need not ask a bucket at each interval.
pub(super) enum Rest {
    /// Another node watches it.
    Watched(Watcher),
    /// The other nodes cannot be heard, and may ask as this one does.
    OutOfTouch,
}

impl Rest {
    /// Time between two questions.
    fn interval(&self, settings: &ProbeSettings) -> Duration {
        match self {
            Self::Watched(_) => settings.bucket_check_interval,
            Self::OutOfTouch => (settings.s3_interval * TENTH).min(settings.bucket_check_interval),
        }
    }
}

/// What one node knows of a bucket that another node may watch.
#[derive(Default)]
pub(super) struct BucketWatch {
    latest: Option<Latest>,
    /// Why this node need not ask at each interval, at the latest probe.
    rest: Option<Rest>,
    /// Access key of the latest probe that passed.
    access_key_id: Option<String>,
}

struct Latest {
    asked: AskedBucket,
    at: Instant,
    asked_at: Timestamp,
    /// Part of the interval by which the next question is later.
    later: f64,
}

impl BucketWatch {
    /// Keeps what a probe found that has asked the bucket. `may_rest` is whether nothing is in progress.
    pub(super) fn keep(&mut self, asked: AskedBucket, may_rest: bool) {
        self.access_key_id = Some(asked.access_key_id.clone());
        let later = LATER_BY * random_fraction();
        let latest = Latest { asked, at: Instant::now(), asked_at: Timestamp::now(), later };
        self.latest = may_rest.then_some(latest);
    }

    /// Makes the next probe ask the bucket.
    pub(super) fn forget(&mut self) {
        self.latest = None;
        self.rest = None;
    }

    /// Access key of the latest probe that passed.
    pub(super) fn access_key_id(&self) -> Option<&str> {
        self.access_key_id.as_deref()
    }

    /// What this node found when it last asked, if the next probe need not ask.
    pub(super) fn latest(&self) -> Option<&AskedBucket> {
        self.latest.as_ref().map(|latest| &latest.asked)
    }

    /// Sets why this node need not ask at each interval. `None` if it has to.
    pub(super) fn set_rest(&mut self, rest: Option<Rest>) {
        self.rest = rest;
    }

    /// How often this node writes to the bucket and reads its configuration.
    pub(super) fn pace(&self) -> Pace {
        match self.rest {
            None => Pace::Full,
            Some(Rest::OutOfTouch) => Pace::Tenth,
            Some(Rest::Watched(_)) => Pace::Rare,
        }
    }

    /// The node that watches the bucket.
    pub(super) fn watcher(&self) -> Option<&Watcher> {
        match &self.rest {
            Some(Rest::Watched(watcher)) => Some(watcher),
            Some(Rest::OutOfTouch) | None => None,
        }
    }

    /// Whether this node asks the bucket in this probe.
    pub(super) fn is_due(&self, settings: &ProbeSettings) -> bool {
        let (Some(rest), Some(latest)) = (&self.rest, &self.latest) else { return true };
        latest.at.elapsed() >= rest.interval(settings).mul_f64(1.0 + latest.later)
    }

    /// Records in the log what this node found when it last asked, and the sizes that the node that watches the bucket
    /// has read since then. `canary_interval` is the time to the next canary.
    pub(super) async fn repeat(
        &self,
        settings: &ProbeSettings,
        canary_interval: Duration,
        log: &mut CheckLog,
    ) -> (Option<Capacity>, BucketFacts) {
        let (Some(Latest { asked, asked_at, .. }), Some(rest)) = (&self.latest, &self.rest) else {
            return (None, BucketFacts::default());
        };
        let why = match rest {
            Rest::Watched(Watcher { fact, .. }) => format!(
                "the node {} asks every {} s, and found it available at {:.0}",
                fact.node,
                settings.s3_interval.as_secs(),
                fact.observed_at
            ),
            Rest::OutOfTouch => format!(
                "there is no recent news from the other nodes, so this one asks every {} s",
                rest.interval(settings).as_secs()
            ),
        };
        let (mut capacity, mut facts) = (asked.capacity, asked.facts.clone());
        for result in &asked.checks {
            if let (CheckName::Capacity, Some((fact, usage))) = (result.check, self.newer_usage()) {
                let checked = bucket_capacity(usage, None, settings.nearly_full_percent);
                let checked = checked.read_by(&fact.node, fact.observed_at);
                capacity = log.run(CheckName::Capacity, async { checked }).await;
                facts.object_count = usage.object_count;
                continue;
            }
            let before = result.detail.as_ref().map(|detail| format!("{detail}, ")).unwrap_or_default();
            let (outcome, detail) = match result.check {
                CheckName::Reachable | CheckName::InUse => continue,
                CheckName::Bucket => (Outcome::Skipped, Some(format!("asked by this node at {asked_at:.0}; {why}"))),
                CheckName::WriteCanary if result.outcome == Outcome::Passed => (
                    Outcome::Skipped,
                    Some(format!(
                        "written at {asked_at:.0}; the next one is due {} s after that",
                        canary_interval.as_secs()
                    )),
                ),
                CheckName::Capacity => (result.outcome, Some(format!("{before}as read at {asked_at:.0}"))),
                _ => (result.outcome, result.detail.clone()),
            };
            let mut repeated = CheckResult::new(result.check, outcome, result.findings().to_vec(), Duration::ZERO);
            repeated.detail = detail;
            log.repeat(repeated);
        }
        let (at, node) = (Some(*asked_at), self.watcher().map(|watcher| watcher.fact.node.clone()));
        (capacity, BucketFacts { asked_at: at, watched_by: node, ..facts })
    }

    /// Returns the fact of the node that watches the bucket and the usage in it, if that node has asked later.
    fn newer_usage(&self) -> Option<(&SharedFact, &BucketUsage)> {
        let (Watcher { fact, usage, .. }, latest) = (self.watcher()?, self.latest.as_ref()?);
        Some((fact, usage.as_ref()?)).filter(|_| fact.observed_at > latest.asked_at)
    }
}

/// Returns a random wait after news about a bucket. Many nodes get the news together, so the wait is up to
/// [`PROBE_SPACING`] for each node, and at most `interval`.
pub(super) fn wait_after_news(nodes: u64, interval: Duration) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    PROBE_SPACING.saturating_mul(nodes).min(interval).mul_f64(random_fraction())
}

#[cfg(test)]
mod tests;
