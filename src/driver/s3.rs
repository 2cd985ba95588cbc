//! S3 targets: reachable → bucket → object lock → versioning → capacity → write canary, and for an
//! immutable target → lock proof.
//!
//! Object lock is checked before versioning, because it includes versioning. If a bucket has neither,
//! the verdict names the lock: enabling versioning alone would not add one.
//!
//! The work has two halves. [`NodeChecks`] verifies the path from this node: the bucket is reached and
//! written to. [`TargetFacts`] finds facts about the bucket itself: its configuration, usage and lock. A
//! probe combines them. The checks of this node read only the plain data that the other half returns, so
//! they could also use facts that another node found.
//!
//! In a fleet, one node watches a bucket for all, and the others ask it more rarely ([`bucket_watch`]).
//!
//! A bucket may be mounted at the mount path, by a FUSE program of the backup software. Then the mount is checked last
//! (`in_use`), so that it affects no other check.
//!
//! Every probe sends one request that asks whether the bucket exists and how much it contains. Canaries,
//! configuration and lock proofs have their own intervals. So a routine probe of a healthy bucket is one
//! request. An S3 target is not attached to the host. Detaching it removes canaries that an interrupted
//! probe left behind.

mod bucket_watch;
mod canaries;
pub mod certificate;
mod configuration;
mod fleet_facts;
mod input;
pub mod listing;
mod node_checks;
mod secret_credentials;
mod target_facts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::driver_trait::{Depth, DetachError, Driver, Probe};
use super::host::Host;
use crate::check::CheckLog;
use crate::check::bucket::{FoundBucket, not_passed};
use crate::check::canary::{ProcessRole, ServiceClock};
use crate::model::report::{BucketFacts, KindFacts, RequestCount, Scope};
use crate::model::settings::AgentSettings;
use crate::model::{Capacity, CheckName, MountName, Reason, S3Location, S3Target, TargetId};
use crate::s3::{BucketUsage, DefaultRetention, Versioning};
use bucket_watch::{AskedBucket, BucketWatch, Rest, wait_after_news};
use fleet_facts::WatchState;
use input::{BucketSession, Input, rule_for};
use node_checks::{NodeChecks, PathState};
use target_facts::TargetFacts;

/// The checks of every target.
const PLAN: [CheckName; 6] = [
    CheckName::Reachable,
    CheckName::Bucket,
    CheckName::ObjectLock,
    CheckName::Versioning,
    CheckName::Capacity,
    CheckName::WriteCanary,
];

/// Returns the checks of a target, in the order of the report. `is_mounted` says whether another program has mounted it.
fn plan(immutable: bool, is_mounted: bool) -> Vec<CheckName> {
    let further = [immutable.then_some(CheckName::LockProof), is_mounted.then_some(CheckName::InUse)];
    PLAN.into_iter().chain(further.into_iter().flatten()).collect()
}

/// Driver of one bucket.
pub struct S3Driver {
    location: S3Location,
    immutable: bool,
    name: MountName,
    role: ProcessRole,
    node: NodeChecks,
    facts: TargetFacts,
    watch: BucketWatch,
    /// Whether the latest probe finished without a failure.
    was_healthy: bool,
}

/// Returns the host to which this node connects for a bucket, as [`node_checks::contacted_host`].
///
/// # Errors
/// Why there is none.
pub(super) async fn contacted_host(location: &S3Location, settings: &AgentSettings) -> Result<String, String> {
    node_checks::contacted_host(location, rule_for(location, settings)).await
}

impl S3Driver {
    /// Creates the driver of a bucket. `name` is the directory at which another program may mount it.
    #[must_use]
    pub fn new(target: TargetId, spec: S3Target, name: MountName, host: &Arc<Host>) -> Self {
        let S3Target { location, immutable, secret_ref } = spec;
        let node = NodeChecks::new(target, &location, secret_ref, host);
        let facts = TargetFacts::new(target, immutable, host);
        let watch = BucketWatch::default();
        Self { location, immutable, name, role: host.role, node, facts, watch, was_healthy: false }
    }

    async fn run(
        &mut self,
        settings: &AgentSettings,
        depth: Depth,
        log: &mut CheckLog,
    ) -> (Option<Capacity>, BucketFacts) {
        let was_healthy = std::mem::take(&mut self.was_healthy);
        let is_changed = self.look_at_watcher(settings, depth);
        match self.verify_path(settings, log).await {
            Some(repeated) => repeated,
            None => self.ask(settings, depth, depth == Depth::Full || !was_healthy || is_changed, log).await,
        }
    }

    /// Finds out which node watches the bucket. Returns whether that node found it other than this one did.
    fn look_at_watcher(&mut self, settings: &AgentSettings, depth: Depth) -> bool {
        self.watch.set_rest(None);
        let Some(asked) = self.watch.latest().filter(|_| depth == Depth::Routine) else { return false };
        let rest = match self.facts.fleet.watched(&asked.access_key_id, &asked.configuration, settings) {
            WatchState::Changed => return true,
            WatchState::Unwatched => None,
            WatchState::OutOfTouch => Some(Rest::OutOfTouch),
            WatchState::Available(watcher) => Some(Rest::Watched(watcher)),
        };
        self.watch.set_rest(rest);
        false
    }

    /// Verifies the path without a request, if this node need not ask the bucket now.
    async fn verify_path(
        &mut self,
        settings: &AgentSettings,
        log: &mut CheckLog,
    ) -> Option<(Option<Capacity>, BucketFacts)> {
        let Self { location, node, facts, watch, was_healthy, .. } = self;
        let input = Input { pace: watch.pace(), ..Input::new(location, settings, Depth::Routine) };
        let is_now = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        let must_continue = is_now(node.canaries.removable_at()) || is_now(facts.proof_due());
        if must_continue || watch.is_due(&settings.probe) {
            return None;
        }
        let identity = watch.latest()?.identity.clone();
        match node.verify_path(input, &identity, log.of(Scope::Node)).await {
            PathState::Open => {
                facts.fleet.renew(settings);
                *was_healthy = true;
                Some(watch.repeat(&settings.probe, node.canaries.interval(input), log.of(Scope::Target)).await)
            }
            PathState::Broken => {
                watch.forget();
                Some((None, BucketFacts { lock_proof: facts.lock_before_answer(input), ..BucketFacts::default() }))
            }
            PathState::Unclear => {
                log.drop_from(CheckName::Reachable);
                None
            }
        }
    }

    /// Asks the bucket. `must_read` is whether its configuration is read.
    async fn ask(
        &mut self,
        settings: &AgentSettings,
        depth: Depth,
        must_read: bool,
        log: &mut CheckLog,
    ) -> (Option<Capacity>, BucketFacts) {
        let Self { location, immutable, node, facts, watch, was_healthy, .. } = self;
        let input = Input { pace: watch.pace(), ..Input::new(location, settings, depth) };
        facts.begin_probe(input);
        // An immutable target needs more than writing.
        let canary_decides = !*immutable && node.canaries.writes(input);
        let Some((api, FoundBucket { usage, unless_written })) =
            node.reach(input, canary_decides, log.of(Scope::Node)).await
        else {
            if let Some(access_key_id) = watch.access_key_id() {
                facts.fleet.share_bucket(access_key_id, log.failure_reason(), "", &BucketUsage::default());
            }
            watch.forget();
            return (None, BucketFacts { lock_proof: facts.lock_before_answer(input), ..BucketFacts::default() });
        };
        // A canary in a bucket with an unknown default retention would be locked for days.
        let must_read = must_read || node.canaries.is_due(input);
        let found = facts.read(&api, input, &usage, must_read, log.of(Scope::Target)).await;
        let clock_ahead_seconds = usage.clock_ahead_seconds.or_else(|| api.clock_ahead_seconds());
        let credentials_expire_at = api.credentials_expire_at();
        let session = BucketSession {
            access_key_id: api.access_key_id().to_owned(),
            names: node.names(input),
            clock: ServiceClock::new(clock_ahead_seconds),
            api,
        };
        let configuration = found.configuration;
        let in_use = facts.canary_in_use();
        let is_only_evidence = unless_written.is_some();
        let of_node = log.of(Scope::Node);
        let is_verified =
            node.canaries.write_if_due(&session, input, &configuration, in_use, is_only_evidence, of_node).await;
        if let Some(refused) = unless_written.filter(|_| !is_verified)
            && (!log.has_failure()
                || [Reason::AccessDenied, refused.reason()].iter().any(|it| log.just_failed_with(*it)))
        {
            log.drop_from(CheckName::Bucket);
            log.run(CheckName::Bucket, async { not_passed::<()>(&refused, location) }).await;
            node.credentials_refused(input);
        }
        let lock_proof = facts.prove(&session, input, &configuration, log.of(Scope::Target)).await;
        *was_healthy = !log.has_failure();
        let counted = found.usage_listing.as_ref().and_then(|listing| listing.whole).map(|count| count.tally.versions);
        let retention = configuration.lock.as_ref().and_then(|lock| lock.default_retention);
        let bucket = BucketFacts {
            versioning: configuration.versioning.map(|versioning| versioning == Versioning::Enabled),
            object_lock: configuration.lock.as_ref().and_then(|lock| lock.enabled),
            default_retention: retention.map(|retention| retention.to_string()),
            default_retention_length: retention.map(DefaultRetention::duration),
            configuration_read_at: Some(configuration.read_at),
            object_count: usage.object_count.or(counted),
            usage_listing: found.usage_listing,
            lock_proof,
            requests: None,
            clock_ahead_seconds,
            credentials_expire_at,
            certificate_end: node.certificate.end().cloned(),
            asked_at: Some(Timestamp::now()),
            watched_by: watch.watcher().map(|watcher| watcher.fact.node.clone()),
            in_use: None,
        };
        let asked = AskedBucket {
            access_key_id: session.access_key_id,
            identity: session.api.identity(),
            configuration: configuration.digest(),
            checks: log.results().to_vec(),
            capacity: found.capacity,
            facts: bucket.clone(),
        };
        let is_available = *was_healthy && !is_only_evidence;
        if is_available {
            // This node takes part in the choice of the node that watches the bucket.
            facts.fleet.watched(&asked.access_key_id, &asked.configuration, settings);
        }
        facts.fleet.share_bucket(&asked.access_key_id, log.failure_reason(), &asked.configuration, &usage);
        if is_available {
            watch.keep(asked, !facts.is_in_progress());
        } else {
            watch.forget();
        }
        (found.capacity, bucket)
    }
}

#[async_trait]
impl Driver for S3Driver {
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe {
        let is_mounted = self.node.is_mounted(&self.name, settings);
        let mut log = CheckLog::new(plan(self.immutable, is_mounted), settings.probe.slow_after);
        let before = self.node.requests().of_probes();
        let (capacity, bucket) = self.run(settings, depth, &mut log).await;
        let in_use = match is_mounted {
            true => self.node.verify_mount(&self.name, settings, log.of(Scope::Node)).await,
            false => None,
        };
        let requests = self.node.requests();
        let requests = RequestCount {
            this_probe: requests.of_probes() - before,
            last_hour: requests.last_hour(),
            total: requests.total(),
        };
        let facts = KindFacts::S3(Box::new(BucketFacts { requests: Some(requests), in_use, ..bucket }));
        Probe { checks: log.finish(), capacity, facts: Some(facts) }
    }

    fn interval(&self, settings: &AgentSettings) -> Duration {
        settings.probe.s3_interval
    }

    fn canary_interval(&self, settings: &AgentSettings) -> Option<Duration> {
        let input = Input { pace: self.watch.pace(), ..Input::new(&self.location, settings, Depth::Routine) };
        (settings.s3_canary.enabled && !input.is_read_only()).then(|| input.canary_interval(&[]))
    }

    fn settings_changed(&mut self) {
        self.watch.forget();
    }

    async fn outdated(&mut self, settings: &AgentSettings) {
        let (Some(watcher), Some(access_key_id)) = (self.watch.watcher(), self.watch.access_key_id()) else {
            return std::future::pending().await;
        };
        let nodes = self.facts.fleet.news(access_key_id, watcher).await;
        tokio::time::sleep(wait_after_news(nodes, settings.probe.s3_interval)).await;
    }

    fn next_due(&self) -> Option<Duration> {
        let proof = self.facts.proof_due();
        let at = match self.role {
            // The next routine probe is soon enough to remove a canary whose lock has ended.
            ProcessRole::Daemon => proof,
            // A command has no next probe, so it waits for the canaries and the proof that it started.
            ProcessRole::OneShot => {
                let proof = proof.filter(|_| self.facts.canary_in_use().is_some());
                self.node.canaries.removable_at().into_iter().chain(proof).min()
            }
        };
        Some(at?.saturating_duration_since(Instant::now()))
    }

    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError> {
        self.facts.stop_listing();
        let input = Input::new(&self.location, settings, Depth::Routine);
        let is_locked = self.node.canaries.removable_at().is_some() || self.facts.canary_in_use().is_some();
        let may_have_leaked = self.node.canaries.may_have_leaked() || self.facts.may_have_leaked();
        if is_locked || (may_have_leaked && !input.is_read_only()) {
            return Ok(self.node.remove_canaries(input).await);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
