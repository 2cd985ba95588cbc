//! Facts about a bucket itself: its configuration, its usage, and the proof of its lock.
//!
//! Every node that reaches the bucket finds the same facts. A client goes in, and plain data comes out with the
//! results of the checks. This half keeps its own state and knows nothing of the checks of this node.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use super::configuration::{Configuration, KeptConfiguration};
use super::fleet_facts::{FactSource, SharedBucketFacts};
use super::input::{BucketSession, Input};
use super::listing::BackgroundListing;
use crate::check::canary::ProcessRole;
use crate::check::capacity::bucket_capacity;
use crate::check::lock_proof::schedule::Basis;
use crate::check::lock_proof::{LockProofs, ProofContext};
use crate::check::{CheckLog, Checked, object_lock, versioning};
use crate::driver::driver_trait::Depth;
use crate::driver::host::Host;
use crate::model::report::{LockProofState, finding};
use crate::model::{Capacity, CheckName, LockProof, LockVerdict, Reason, S3Location, TargetId, UsageListing};
use crate::s3::aws::AwsBucket;
use crate::s3::{BucketUsage, ObjectApi};

/// Section of the configuration that turns lock proofs off.
const SECTION: &str = "[s3.lock_proof]";

/// Finds the facts about one bucket.
pub(super) struct TargetFacts {
    immutable: bool,
    host: Arc<Host>,
    configuration: Option<KeptConfiguration>,
    /// Listing that counts the bucket's content, for services that do not report it.
    listing: BackgroundListing,
    proofs: LockProofs,
    pub(super) fleet: SharedBucketFacts,
    /// Whether the latest probe waited for a fact of another node.
    waits: bool,
}

/// Facts that one probe found.
pub(super) struct FoundFacts {
    pub(super) configuration: Configuration,
    pub(super) capacity: Option<Capacity>,
    pub(super) usage_listing: Option<UsageListing>,
}

impl TargetFacts {
    pub(super) fn new(target: TargetId, immutable: bool, host: &Arc<Host>) -> Self {
        Self {
            immutable,
            host: host.clone(),
            configuration: None,
            listing: BackgroundListing::default(),
            proofs: LockProofs::default(),
            fleet: SharedBucketFacts::new(target, host.facts.clone()),
            waits: false,
        }
    }

    /// Prepares for a probe, which may end before the bucket answers.
    pub(super) fn begin_probe(&mut self, input: Input<'_>) {
        self.proofs.begin_probe();
        self.waits = false;
        if !input.settings.s3_listing.enabled {
            self.listing.stop();
        }
    }

    /// Returns the state of the lock proof while the bucket has not answered, or has not told its configuration: an
    /// earlier proof counts until it expires.
    pub(super) fn lock_before_answer(&self, input: Input<'_>) -> LockProofState {
        let settings = &input.settings.lock_proof;
        match self.proofs.latest_state(settings.interval) {
            state @ LockProofState::Found(_)
                if self.immutable && input.writes_nothing(settings.enabled, SECTION).is_none() =>
            {
                state
            }
            _ => LockProofState::NotAsked,
        }
    }

    /// When the lock proof has its next step.
    pub(super) fn proof_due(&self) -> Option<Instant> {
        self.proofs.due()
    }

    /// Whether the latest probe left something in progress, so that the next one must continue it.
    pub(super) fn is_in_progress(&self) -> bool {
        self.waits || self.proofs.in_use().is_some() || self.listing.so_far().under_way.is_some()
    }

    /// Canary of the lock proof in progress.
    pub(super) fn canary_in_use(&self) -> Option<Uuid> {
        self.proofs.in_use()
    }

    /// Whether a lock proof may have leaked its canary.
    pub(super) fn may_have_leaked(&self) -> bool {
        self.proofs.may_have_leaked()
    }

    /// Ends the listing in progress.
    pub(super) fn stop_listing(&mut self) {
        self.listing.stop();
    }

    /// Checks object lock, versioning and capacity. Reads the configuration if `must_read` is set, or if the
    /// cached configuration is outdated.
    pub(super) async fn read(
        &mut self,
        api: &AwsBucket,
        input: Input<'_>,
        usage: &BucketUsage,
        must_read: bool,
        log: &mut CheckLog,
    ) -> FoundFacts {
        let rule = input.rule;
        self.fleet.set_temporary(api.credentials_expire_at().is_some());
        let (key, interval) = (api.access_key_id(), input.configuration_interval());
        let kept = self.configuration.take().filter(|kept| !must_read && kept.is_usable(rule, key, interval));
        let configuration = match kept {
            Some(kept) => {
                let configuration = self.recheck(&kept, input, log).await;
                self.configuration = Some(kept);
                configuration
            }
            None => {
                let configuration = self.check(api, input, log).await;
                self.configuration = KeptConfiguration::new(&configuration, rule, key);
                configuration
            }
        };
        let usage_listing = self.list(api, input, usage);
        let checked = bucket_capacity(usage, usage_listing.as_ref(), input.settings.probe.nearly_full_percent);
        let capacity = log.run(CheckName::Capacity, async { checked }).await;
        FoundFacts { configuration, capacity, usage_listing }
    }

    /// Reads object lock and versioning, and checks them.
    async fn check(&self, api: &AwsBucket, input: Input<'_>, log: &mut CheckLog) -> Configuration {
        let Input { location, settings, .. } = input;
        let (deadline, min_retention) = (settings.probe.deadline, settings.lock_proof.min_retention);
        let read_at = Timestamp::now();
        let reading = object_lock::object_lock(api, location, self.immutable, min_retention, deadline);
        let (lock, lock_unknown) = match log.run(CheckName::ObjectLock, reading).await {
            Some(Ok(lock)) => (Some(lock), None),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        let reading = versioning::versioning(api, location, self.immutable, deadline);
        let versioning = log.run(CheckName::Versioning, reading).await;
        Configuration { lock, lock_unknown, versioning, read_at }
    }

    /// Checks object lock and versioning as they were read before. The settings may have changed.
    async fn recheck(&self, kept: &KeptConfiguration, input: Input<'_>, log: &mut CheckLog) -> Configuration {
        let Input { location, settings, .. } = input;
        let (read_at, min_retention) = (kept.read_at, settings.lock_proof.min_retention);
        let lock = object_lock::assess(kept.lock.clone(), location, self.immutable, min_retention).read_at(read_at);
        let lock = log.run(CheckName::ObjectLock, async { lock }).await;
        let versioning = versioning::assess(kept.versioning, location, self.immutable).read_at(read_at);
        let versioning = log.run(CheckName::Versioning, async { versioning }).await;
        Configuration { lock, lock_unknown: None, versioning, read_at }
    }

    /// Returns the count of the listing so far, and starts a run if one is due. `None` if listings are disabled, if the
    /// service reports its usage, or for a one-shot command, which would not wait for the listing.
    fn list(&mut self, api: &AwsBucket, input: Input<'_>, usage: &BucketUsage) -> Option<UsageListing> {
        let Input { location, settings, rule, .. } = input;
        if !settings.s3_listing.enabled || self.host.role == ProcessRole::OneShot {
            return None;
        }
        if usage.used_bytes.is_some() {
            self.listing.rest();
            return None;
        }
        match self.fleet.usage_listing(api.access_key_id(), settings) {
            FactSource::Find => {}
            FactSource::Wait => {
                self.waits = true;
                return Some(self.listing.so_far()).filter(|listing| listing.whole.is_some());
            }
            FactSource::Use(listing) => {
                self.listing.rest();
                return Some(listing);
            }
        }
        let (deadline, pages, key) = (settings.probe.deadline, &self.host.listing_pages, api.access_key_id());
        let background = Arc::new(api.for_background());
        let listing = self.listing.advance(background, location, rule, &settings.s3_listing, deadline, pages);
        if let Some(count) = &listing.whole {
            self.fleet.share_count(key, count);
        }
        Some(listing)
    }

    /// Continues the lock proof of an immutable target, and returns its state.
    pub(super) async fn prove<A: ObjectApi>(
        &mut self,
        session: &BucketSession<A>,
        input: Input<'_>,
        configuration: &Configuration,
        log: &mut CheckLog,
    ) -> LockProofState {
        let Input { location, settings, rule, depth, .. } = input;
        if !self.immutable {
            return LockProofState::NotAsked;
        }
        if let Some(why) = input.writes_nothing(settings.lock_proof.enabled, SECTION) {
            return unproved(location, &why, configuration, log).await;
        }
        if configuration.cannot_lock() {
            return LockProofState::NotAsked;
        }
        let (Some(versioning), Some(lock)) = (configuration.versioning, &configuration.lock) else {
            return self.lock_before_answer(input);
        };
        let basis = Basis {
            versioning,
            lock: lock.clone(),
            settings: settings.lock_proof.clone(),
            canary: settings.s3_canary.clone(),
            rule: rule.cloned(),
            access_key_id: session.access_key_id.clone(),
        };
        if log.has_failure() {
            return self.proofs.state(&basis);
        }
        let context = ProofContext {
            names: &session.names,
            clock: session.clock,
            requested: depth == Depth::Full,
            deadline: settings.probe.deadline,
        };
        let (proofs, fleet) = (&mut self.proofs, &self.fleet);
        let source = fleet.lock_proof(&basis, settings);
        let is_found_elsewhere = match source {
            FactSource::Find => false,
            FactSource::Wait => {
                self.waits = true;
                true
            }
            // After a change of this node's clock, the verdict may have expired here and not for the others.
            FactSource::Use(proof) => proofs.adopt(proof, &basis),
        };
        // A requested proof is one with the path from this node. A proof that has begun is completed.
        let advances = !is_found_elsewhere || depth == Depth::Full || proofs.in_use().is_some();
        let proving = async {
            if advances {
                proofs.advance(&session.api, &basis, context).await;
            }
            proofs.checked(location, &basis)
        };
        log.run(CheckName::LockProof, proving).await;
        if let Some(proof) = proofs.own_verdict(&basis) {
            fleet.share_lock_proof(&basis, proof);
        }
        proofs.state(&basis)
    }
}

/// Returns the state of a lock that is not proved, for the reason `why`, and records the check.
async fn unproved(
    location: &S3Location,
    why: &str,
    configuration: &Configuration,
    log: &mut CheckLog,
) -> LockProofState {
    if configuration.cannot_lock() {
        return LockProofState::NotAsked;
    }
    let why = format!("{why}: whether the lock is enforced is not verified");
    if !log.has_failure() {
        let finding = finding!(Reason::LockUnverifiable, "{location} is declared immutable, but {why}");
        log.run(CheckName::LockProof, async { Checked::passed(()).with_warnings(Some(finding)) }).await;
    }
    let proved_at = Timestamp::now();
    LockProofState::Found(LockProof { verdict: LockVerdict::Unverifiable, why, proved_at, node: None })
}
