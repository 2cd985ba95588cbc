//! S3 targets: reachable → bucket → object lock → versioning → capacity → write canary, and for an
//! immutable target → lock proof.
//!
//! Object lock is checked before versioning, because it includes versioning. If a bucket has neither,
//! the verdict names the lock: enabling versioning alone would not add one.
//!
//! Every probe asks whether the bucket exists and how much it contains, in one request. Its
//! configuration is read less often ([`facts`]). Canaries and lock proofs have intervals of their own
//! ([`writing`], [`proving`]). So a routine probe of a healthy bucket is one request. An S3 target is
//! not attached to the host. Detaching it removes canaries that an interrupted probe left behind.

mod facts;
pub mod listing;
mod proving;
mod writing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Depth, DetachError, Driver, Host, Probe};
use crate::check::bucket::bucket;
use crate::check::canary::{CanaryKey, ProcessRole, ServiceClock};
use crate::check::capacity::bucket_capacity;
use crate::check::lock_proof::LockProver;
use crate::check::tcp_reachable::tcp_connect;
use crate::check::{CheckLog, Checked, object_lock, versioning};
use crate::model::report::{BucketFacts, Finding, KindFacts, RequestCount};
use crate::model::settings::{AgentSettings, S3AccessRule};
use crate::model::{Capacity, CheckName, Reason, S3Location, UsageListing};
use crate::s3::aws::{AwsBucket, BucketConnector};
use crate::s3::{BucketUsage, ObjectLock, S3Failure, Versioning};
use facts::{KeptFacts, Learnt};
use listing::Listing;
use writing::{CanaryRecord, left_behind};

/// The checks of a target that is not declared immutable, in the order of the report.
const PLAN: &[CheckName] = &[
    CheckName::Reachable,
    CheckName::Bucket,
    CheckName::ObjectLock,
    CheckName::Versioning,
    CheckName::Capacity,
    CheckName::WriteCanary,
];

/// The checks of a target that is declared immutable, in the order of the report.
const IMMUTABLE_PLAN: &[CheckName] = &[
    CheckName::Reachable,
    CheckName::Bucket,
    CheckName::ObjectLock,
    CheckName::Versioning,
    CheckName::Capacity,
    CheckName::WriteCanary,
    CheckName::LockProof,
];

/// Driver of one bucket.
pub struct S3Driver {
    location: S3Location,
    immutable: bool,
    connector: BucketConnector,
    host: Arc<Host>,
    /// Id of this instance of the driver. Its canaries carry it, so that no other instance removes them.
    instance: Uuid,
    canary: Option<CanaryRecord>,
    /// A canary that is still locked, and when it can be removed.
    locked: Option<(CanaryKey, Instant)>,
    prover: LockProver,
    /// Whether a canary may have been leaked, also by an earlier process. False once a sweep has looked
    /// for canaries and found none.
    may_have_left: bool,
    /// The service's clock, from the latest probe that read it.
    clock: ServiceClock,
    /// When the lock proof in progress has its next step.
    proof_due: Option<Instant>,
    /// The bucket's configuration as it was last read.
    facts: Option<KeptFacts>,
    /// Whether the latest probe finished without a failure.
    was_healthy: bool,
    /// Listing that counts the bucket's content, for services that do not report it.
    listing: Listing,
}

/// What one probe of a bucket found beside its checks.
struct S3Findings {
    capacity: Option<Capacity>,
    bucket: BucketFacts,
}

impl S3Driver {
    /// Creates the driver of a bucket. `immutable` is what the target declares.
    #[must_use]
    pub fn new(location: S3Location, immutable: bool, host: &Arc<Host>) -> Self {
        let connector = BucketConnector::new(location.clone(), &host.buckets);
        let (host, instance) = (host.clone(), Uuid::new_v4());
        Self {
            location,
            immutable,
            connector,
            host,
            instance,
            canary: None,
            locked: None,
            prover: LockProver::default(),
            may_have_left: true,
            clock: ServiceClock::default(),
            proof_due: None,
            facts: None,
            was_healthy: false,
            listing: Listing::default(),
        }
    }

    async fn run(
        &mut self,
        settings: &AgentSettings,
        depth: Depth,
        was_healthy: bool,
        log: &mut CheckLog,
    ) -> S3Findings {
        self.proof_due = None;
        if !settings.s3_listing.enabled {
            self.listing.stop();
        }
        let deadline = settings.probe.deadline;
        let rule = rule_for(settings, &self.location);
        let bucket_facts = self.proved_before(settings, rule).unwrap_or_default();
        let mut probe = S3Findings { capacity: None, bucket: bucket_facts };

        let (host, port) = self.connector.service_address(rule).await;
        let proxy = self.connector.proxy_to(&host, port);
        let reaching = async {
            match &proxy {
                Ok(None) => tcp_connect(&host, port, deadline).await,
                Ok(Some((proxy, port))) => tcp_connect(proxy, *port, deadline).await.detail(format!(
                    "{proxy} port {port} is the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names for {host}"
                )),
                Err(failure) => Checked::failed(failure.finding(&self.location)),
            }
        };
        if log.run(CheckName::Reachable, reaching).await.is_none() {
            return probe;
        }

        let (location, connector) = (&self.location, &mut self.connector);
        let prefix = &settings.s3_canary.prefix;
        let mut api = None;
        let usage: Option<BucketUsage> = log
            .run(CheckName::Bucket, async {
                let connected = tokio::time::timeout(deadline, connector.connect(rule)).await.unwrap_or_else(|_| {
                    let why = format!("they did not come within {} ms", deadline.as_millis());
                    Err(S3Failure::NoCredentials(why))
                });
                match connected {
                    Ok(connected) => {
                        let api = &*api.insert(connected);
                        bucket(api, location, prefix, deadline).await.with_warnings(secret_exposed(api))
                    }
                    Err(failure) => Checked::failed(failure.finding(location)),
                }
            })
            .await;
        let (Some(usage), Some(api)) = (usage, api) else {
            return probe;
        };

        let is_fresh = depth == Depth::Full || self.canary_is_due(&settings.s3_canary, rule, depth);
        let kept = self.facts.take().filter(|_| !is_fresh && was_healthy);
        let kept = kept.filter(|kept| kept.is_good_for(rule, api.access_key_id(), settings.probe.s3_facts_interval));
        let (lock, versions, read_at) = self.configuration(&api, settings, rule, kept, log).await;
        let percent = settings.probe.nearly_full_percent;
        let listing = self.listing(&api, settings, rule, &usage);
        let capacity = async { bucket_capacity(&usage, listing.as_ref(), percent) };
        probe.capacity = log.run(CheckName::Capacity, capacity).await;
        let counted = listing.as_ref().and_then(|listing| listing.whole).map(|count| count.tally.versions);
        let clock = ServiceClock::new(usage.clock_ahead_seconds.or_else(|| api.clock_ahead_seconds()));
        self.clock = clock;
        let learnt = Learnt { clock, lock, versions };
        self.canary_if_due(&api, settings, rule, &learnt, depth, log).await;
        let lock_proof = self.prove(&api, settings, rule, &learnt, depth, log).await;
        probe.bucket = BucketFacts {
            versioning: learnt.versions.map(|found| found == Versioning::Enabled),
            object_lock: learnt.lock.as_ref().map(|found| found.enabled),
            default_retention: learnt.lock.and_then(|found| found.default_retention).map(|found| found.to_string()),
            configuration_read_at: Some(read_at),
            object_count: usage.object_count.or(counted),
            usage_listing: listing,
            lock_proof,
            requests: None,
        };
        self.was_healthy = !log.has_failure();
        probe
    }

    /// Returns what a listing has counted so far, and starts a run if one is due. `None` if listings are
    /// disabled, the service reports its use, or this is a one-shot command, which would not wait for it.
    fn listing(
        &mut self,
        api: &AwsBucket,
        settings: &AgentSettings,
        rule: Option<&S3AccessRule>,
        usage: &BucketUsage,
    ) -> Option<UsageListing> {
        if !settings.s3_listing.enabled || self.host.role == ProcessRole::OneShot {
            return None;
        }
        if usage.used_bytes.is_some() {
            self.listing.rest();
            return None;
        }
        let (deadline, pages) = (settings.probe.deadline, &self.host.listing_pages);
        let api = Arc::new(api.for_background());
        Some(self.listing.advance(api, &self.location, rule, &settings.s3_listing, deadline, pages))
    }

    /// Checks object lock and versioning, as kept from an earlier read or as read now. Also returns when they were
    /// read.
    async fn configuration(
        &mut self,
        api: &AwsBucket,
        settings: &AgentSettings,
        rule: Option<&S3AccessRule>,
        kept: Option<KeptFacts>,
        log: &mut CheckLog,
    ) -> (Option<ObjectLock>, Option<Versioning>, Timestamp) {
        let (location, immutable) = (&self.location, self.immutable);
        let (deadline, min_retention) = (settings.probe.deadline, settings.lock_proof.min_retention);
        if let Some(KeptFacts { lock, versions, read_at, .. }) = &kept {
            let (versions, read_at) = (*versions, *read_at);
            let lock = object_lock::judged(lock.clone(), location, immutable, min_retention).read_at(read_at);
            let lock = log.run(CheckName::ObjectLock, async { lock }).await;
            let versions = versioning::judged(versions, location, immutable).read_at(read_at);
            let versions = log.run(CheckName::Versioning, async { versions }).await;
            self.facts = kept;
            return (lock, versions, read_at);
        }
        let read_at = Timestamp::now();
        let asking = object_lock::object_lock(api, location, immutable, min_retention, deadline);
        let lock = log.run(CheckName::ObjectLock, asking).await;
        let asking = versioning::versioning(api, location, immutable, deadline);
        let versions = log.run(CheckName::Versioning, asking).await;
        self.facts = lock
            .as_ref()
            .zip(versions)
            .map(|(lock, versions)| KeptFacts::new(lock.clone(), versions, read_at, rule, api.access_key_id()));
        (lock, versions, read_at)
    }
}

/// Returns a warning if other users of this host can read or change the credentials.
fn secret_exposed(api: &AwsBucket) -> Option<Finding> {
    let path = api.exposed_secret()?.display();
    Some(Finding::new(
        Reason::SecretExposed,
        format!(
            "{path} holds the secret of the credentials, and others on this host may read or change it: chmod 0600 {path}"
        ),
    ))
}

/// Returns the first access rule whose pattern matches the bucket.
fn rule_for<'settings>(settings: &'settings AgentSettings, location: &S3Location) -> Option<&'settings S3AccessRule> {
    let export = location.to_string();
    settings.s3_access.iter().find(|rule| rule.location.matches(&export))
}

#[async_trait]
impl Driver for S3Driver {
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe {
        let plan = if self.immutable { IMMUTABLE_PLAN } else { PLAN };
        let mut log = CheckLog::new(plan, settings.probe.slow_after);
        let before = self.connector.requests().total();
        let was_healthy = std::mem::take(&mut self.was_healthy);
        let S3Findings { capacity, bucket } = self.run(settings, depth, was_healthy, &mut log).await;
        let requests = self.connector.requests();
        let requests = RequestCount { this_probe: requests.total() - before, last_hour: requests.last_hour() };
        let facts = KindFacts::S3(BucketFacts { requests: Some(requests), ..bucket });
        Probe { checks: log.finish(), capacity, facts: Some(facts) }
    }

    fn interval(&self, settings: &AgentSettings) -> Duration {
        settings.probe.s3_interval
    }

    fn next_due(&self) -> Option<Duration> {
        // The daemon's next probe is soon enough to remove a canary whose lock has ended. A one-shot command
        // has no next probe, so it waits for the canaries and the proof that it started itself.
        let (canary, proof) = match self.host.role {
            ProcessRole::Daemon => (None, self.proof_due),
            ProcessRole::OneShot => {
                (self.locked.map(|(_, at)| at), self.proof_due.filter(|_| self.prover.in_use().is_some()))
            }
        };
        let at = canary.into_iter().chain(proof).min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError> {
        self.listing.stop();
        let locked = self.locked.map(|(key, _)| key).into_iter().chain(self.prover.in_use());
        let locked = locked.max_by_key(|key| key.until);
        let is_read_only = rule_for(settings, &self.location).is_some_and(|rule| rule.read_only);
        if locked.is_none() && (is_read_only || !self.may_have_left) {
            return Ok(None);
        }
        let removing = tokio::time::timeout(settings.probe.deadline, self.remove_canaries(settings)).await;
        Ok(match removing.unwrap_or(Err(S3Failure::TimedOut(settings.probe.deadline))) {
            Ok(swept) => left_behind(&self.location, &swept),
            Err(failure) => Some(format!(
                "{}: a canary may stay there, since it was not removed ({failure}): look below {}",
                self.location, settings.s3_canary.prefix
            )),
        })
    }
}
