//! S3: reachable, then the bucket, its object lock, its versioning, how much it holds, that it can be
//! written to, and of an immutable target that what is locked cannot be deleted.
//!
//! Object lock goes before versioning, which comes with it: of a bucket that has neither, the verdict
//! names the lock, since enabling versioning would not give it one.
//!
//! Everything but what needs a canary is asked of the service at every probe; only connections are kept. Nothing
//! is put up on this host; what is taken down with a target is a canary that a probe was interrupted over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Depth, DetachError, Driver, Host, Probe};
use crate::check::bucket::bucket;
use crate::check::canary::{CanaryKey, CanaryNames, ServiceClock, Swept, Writer, sweep};
use crate::check::capacity::bucket_capacity;
use crate::check::lock_proof::schedule::Basis;
use crate::check::lock_proof::{LockProver, ProofContext, ids};
use crate::check::object_canary::{CanaryPlan, object_canary};
use crate::check::object_lock::object_lock;
use crate::check::tcp_reachable::tcp_connect;
use crate::check::versioning::versioning;
use crate::check::{CheckLog, Checked};
use crate::model::report::{BucketFacts, Finding, LockProofState};
use crate::model::settings::{AgentSettings, S3AccessRule, S3CanarySettings};
use crate::model::{CheckName, LockProof, LockVerdict, Outcome, Reason, S3Location};
use crate::s3::aws::{AwsBucket, BucketConnector};
use crate::s3::{BucketUsage, ObjectLock, S3Failure, Versioning, within};

/// What tells this host from others of the same name (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// Verifies one bucket.
pub struct S3Driver {
    location: S3Location,
    immutable: bool,
    connector: BucketConnector,
    host: Arc<Host>,
    /// This run of this driver: no canary of another is in use.
    instance: Uuid,
    canary: Option<CanaryRecord>,
    /// A canary that is still locked, and when it is to be removed.
    locked: Option<(CanaryKey, Instant)>,
    prover: LockProver,
    /// Whether a canary may be there of which nobody knows that it is gone or will be: one of an earlier
    /// run too, until it was looked for.
    may_have_left: bool,
    /// The service's clock, as it was at the latest probe that learnt it.
    clock: ServiceClock,
    /// When the proof that is under way has more to do.
    proof_due: Option<Instant>,
}

/// The last canary that came back.
struct CanaryRecord {
    at: Instant,
    written_at: Timestamp,
    settings: S3CanarySettings,
    /// For how long it was locked.
    retention: Option<Duration>,
}

/// What a probe learnt of a bucket before it writes to it.
struct Learnt {
    clock: ServiceClock,
    lock: Option<ObjectLock>,
    versions: Option<Versioning>,
}

impl Learnt {
    /// Whether the bucket has or had versions, as far as it is known.
    fn is_versioned(&self) -> bool {
        self.versions != Some(Versioning::Off)
    }

    /// Whether what is written without a retention is locked all the same, if that is known.
    fn locks_by_default(&self) -> Option<bool> {
        self.lock.as_ref().map(|lock| lock.enabled && lock.default_retention.is_some())
    }
}

impl S3Driver {
    /// A driver of a bucket; `immutable` as the target was declared.
    #[must_use]
    pub fn new(location: S3Location, immutable: bool, host: &Arc<Host>) -> Self {
        let connector = BucketConnector::new(location.clone());
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
        }
    }

    async fn run(&mut self, settings: &AgentSettings, depth: Depth, log: &mut CheckLog) -> Probe {
        const AFTER_REACHABLE: &[CheckName] = &[
            CheckName::Bucket,
            CheckName::ObjectLock,
            CheckName::Versioning,
            CheckName::Capacity,
            CheckName::WriteCanary,
            CheckName::LockProof,
        ];
        let after_reachable =
            if self.immutable { AFTER_REACHABLE } else { &AFTER_REACHABLE[..AFTER_REACHABLE.len() - 1] };
        self.proof_due = None;
        let (deadline, immutable) = (settings.probe.deadline, self.immutable);
        let rule = rule_for(settings, &self.location);
        let min_retention = settings.lock_proof.min_retention;
        let mut probe = Probe { bucket: self.proved_before(settings, rule), ..Probe::default() };

        let (host, port) = self.connector.service_address(rule).await;
        if log.run(CheckName::Reachable, tcp_connect(&host, port, deadline)).await.is_none() {
            log.skip_after_failure(after_reachable);
            return probe;
        }

        let (location, connector) = (&self.location, &mut self.connector);
        let mut api = None;
        let usage: Option<BucketUsage> = log
            .run(CheckName::Bucket, async {
                let connected = tokio::time::timeout(deadline, connector.connect(rule)).await.unwrap_or_else(|_| {
                    let why = format!("they did not come within {} ms", deadline.as_millis());
                    Err(S3Failure::NoCredentials(why))
                });
                match connected {
                    Ok(connected) => bucket(&*api.insert(connected), location, deadline).await,
                    Err(failure) => Checked::failed(failure.finding(location)),
                }
            })
            .await;
        let (Some(usage), Some(api)) = (usage, api) else {
            log.skip_after_failure(&after_reachable[1..]);
            return probe;
        };

        let lock =
            log.run(CheckName::ObjectLock, object_lock(&api, location, immutable, min_retention, deadline)).await;
        let versions = log.run(CheckName::Versioning, versioning(&api, location, immutable, deadline)).await;
        let percent = settings.probe.nearly_full_percent;
        probe.capacity = log.run(CheckName::Capacity, async { bucket_capacity(&usage, percent) }).await;
        let clock = ServiceClock::new(usage.clock_ahead_seconds.or_else(|| api.clock_ahead_seconds()));
        self.clock = clock;
        let learnt = Learnt { clock, lock, versions };
        self.canary_if_due(&api, settings, rule, &learnt, depth, log).await;
        let lock_proof = self.prove(&api, settings, rule, &learnt, depth, log).await;
        probe.bucket = Some(BucketFacts {
            versioning: learnt.versions.map(|found| found == Versioning::Enabled),
            object_lock: learnt.lock.as_ref().map(|found| found.enabled),
            default_retention: learnt.lock.and_then(|found| found.default_retention).map(|found| found.to_string()),
            object_count: usage.object_count,
            lock_proof,
        });
        probe
    }

    /// What is known of a bucket before it answers: that its lock was proved stays so for its time.
    fn proved_before(&self, settings: &AgentSettings, rule: Option<&S3AccessRule>) -> Option<BucketFacts> {
        let is_proved = self.immutable && settings.lock_proof.enabled && rule.is_none_or(|rule| !rule.read_only);
        let lock_proof = self.prover.latest_state(settings.lock_proof.interval);
        let is_known = is_proved && lock_proof != LockProofState::Pending;
        is_known.then(|| BucketFacts { lock_proof, ..BucketFacts::default() })
    }

    async fn canary_if_due(
        &mut self,
        api: &AwsBucket,
        settings: &AgentSettings,
        rule: Option<&S3AccessRule>,
        learnt: &Learnt,
        depth: Depth,
        log: &mut CheckLog,
    ) {
        let canary = &settings.s3_canary;
        let not_written = match rule {
            _ if !canary.enabled => Some("turned off in [s3.canary]"),
            Some(rule) if rule.read_only => Some("read_only in [[s3.credentials]]"),
            _ => None,
        };
        if let Some(why) = not_written {
            log.skip(CheckName::WriteCanary, format!("{why}: writing is not verified"));
            return;
        }
        // What is put without a retention where there is a default one stays for days.
        let Some(locks_by_default) = learnt.locks_by_default() else {
            if log.has_failure() {
                log.skip_after_failure(&[CheckName::WriteCanary]);
            } else {
                let untold = lock_untold(&self.location);
                log.run(CheckName::WriteCanary, async { Checked::<()>::skipped(untold) }).await;
            }
            return;
        };
        let names = self.names(canary).await;
        let retention = locks_by_default.then_some(canary.retention);
        // One that failed left no record, so it is tried again at each probe until it passes.
        let still_good = self
            .canary
            .as_ref()
            .filter(|_| depth == Depth::Routine)
            .filter(|last| last.retention == retention && last.settings == *canary)
            .filter(|last| last.at.elapsed() < canary.interval);
        if let Some(last) = still_good {
            let mut detail = format!(
                "written at {:.0}; the next one is due {} s after that",
                last.written_at,
                canary.interval.as_secs()
            );
            if self.locked.is_some_and(|(_, removable)| removable <= Instant::now()) {
                let in_use = ids(&[self.prover.in_use()]);
                let sweeping = sweep(api, &names, learnt.is_versioned(), learnt.clock, &in_use);
                match within(settings.probe.deadline, sweeping).await {
                    Ok(_) => self.locked = None,
                    Err(failure) => {
                        detail = format!("{detail}; it is still there, since removing it failed: {failure}")
                    }
                }
            }
            log.skip(CheckName::WriteCanary, detail);
            return;
        }
        (self.canary, self.locked) = (None, None);
        let in_use = ids(&[self.prover.in_use()]);
        let plan = CanaryPlan {
            names: &names,
            versioned: learnt.is_versioned(),
            retention,
            clock: learnt.clock,
            in_use: &in_use,
        };
        self.may_have_left = true;
        let mut is_clean = false;
        let writing = async {
            let checked = object_canary(api, &self.location, &plan, settings.probe.deadline).await;
            is_clean = checked.outcome() == Outcome::Passed && checked.finding().is_none();
            checked
        };
        let written = log.run(CheckName::WriteCanary, writing).await;
        self.may_have_left = !is_clean;
        if let Some(locked) = written {
            let (at, written_at, settings) = (Instant::now(), Timestamp::now(), canary.clone());
            self.locked = locked.map(|key| (key, at + learnt.clock.wait_until_past(key.until)));
            self.canary = Some(CanaryRecord { at, written_at, settings, retention });
        }
    }

    /// Goes on with the proof of an immutable target's lock, and gives what is known of it.
    async fn prove(
        &mut self,
        api: &AwsBucket,
        settings: &AgentSettings,
        rule: Option<&S3AccessRule>,
        learnt: &Learnt,
        depth: Depth,
        log: &mut CheckLog,
    ) -> LockProofState {
        if !self.immutable {
            return LockProofState::NotAsked;
        }
        let not_proved = match rule {
            _ if !settings.lock_proof.enabled => Some("turned off in [s3.lock_proof]"),
            Some(rule) if rule.read_only => Some("read_only in [[s3.credentials]]"),
            _ => None,
        };
        if let Some(why) = not_proved {
            return unproved(&self.location, why, learnt, log).await;
        }
        let (Some(versioning), Some(lock)) = (learnt.versions, &learnt.lock) else {
            log.skip_after_failure(&[CheckName::LockProof]);
            return self.prover.latest_state(settings.lock_proof.interval);
        };
        let basis = Basis {
            versioning,
            lock: lock.clone(),
            settings: settings.lock_proof.clone(),
            canary: settings.s3_canary.clone(),
            rule: rule.cloned(),
            access_key_id: api.access_key_id().to_owned(),
        };
        if log.has_failure() {
            log.skip_after_failure(&[CheckName::LockProof]);
            return if lock.enabled { self.prover.state(&basis) } else { LockProofState::NotAsked };
        }
        let names = self.names(&settings.s3_canary).await;
        let context = ProofContext {
            names: &names,
            clock: learnt.clock,
            asked: depth == Depth::Full,
            deadline: settings.probe.deadline,
        };
        let (prover, location) = (&mut self.prover, &self.location);
        let mut due = None;
        let proving = async {
            due = prover.advance(api, &basis, context).await;
            prover.checked(location, &basis)
        };
        let had_left = std::mem::replace(&mut self.may_have_left, true);
        log.run(CheckName::LockProof, proving).await;
        let state = self.prover.state(&basis);
        let is_stuck = matches!(&state, LockProofState::Found(proof) if proof.verdict == LockVerdict::Unverifiable);
        self.may_have_left = had_left || is_stuck || self.prover.is_unsure();
        self.proof_due = due.map(|wait| Instant::now() + wait);
        state
    }

    /// Removes what there is of canaries, without knowing how far an interrupted probe got.
    async fn remove_canaries(&mut self, settings: &AgentSettings) -> Result<Swept, S3Failure> {
        let names = self.names(&settings.s3_canary).await;
        let api = self.connector.connect(rule_for(settings, &self.location)).await?;
        // Of a bucket that never had versions the one version of an object is called so, too.
        sweep(&api, &names, true, self.clock, &[]).await
    }

    async fn names(&self, settings: &S3CanarySettings) -> CanaryNames {
        let machine = tokio::fs::read_to_string(Path::new(MACHINE_ID)).await.unwrap_or_default();
        let node = format!("{} {}", self.host.hostname, machine.trim());
        CanaryNames::new(&settings.prefix, &node, &self.location.to_string(), self.host.writer, self.instance)
    }
}

fn lock_untold(location: &S3Location) -> Finding {
    Finding::new(
        Reason::AccessDenied,
        format!(
            "{location}: whether it locks new objects by default is not told, and a canary could be locked for as long, so none is put and writing is not verified: grant the credentials s3:GetBucketObjectLockConfiguration on it"
        ),
    )
}

/// What is known of the lock of an immutable target of which it is not proved, for this reason.
async fn unproved(location: &S3Location, why: &str, learnt: &Learnt, log: &mut CheckLog) -> LockProofState {
    if learnt.lock.as_ref().is_some_and(|lock| !lock.enabled) {
        log.skip_after_failure(&[CheckName::LockProof]);
        return LockProofState::NotAsked;
    }
    let why = format!("{why}: that the lock is enforced is not verified");
    if log.has_failure() {
        log.skip_after_failure(&[CheckName::LockProof]);
    } else {
        let finding = Finding::new(Reason::LockUnverifiable, format!("{location} is declared immutable, but {why}"));
        log.run(CheckName::LockProof, async { Checked::passed(()).warning(Some(finding)) }).await;
    }
    LockProofState::Found(LockProof { verdict: LockVerdict::Unverifiable, why, proved_at: Timestamp::now() })
}

/// What a last sweep could not remove.
fn left_behind(location: &S3Location, swept: &Swept) -> Option<String> {
    let nobody = "stays there, since nobody is left to remove it";
    if let Some(key) = &swept.overlong {
        return Some(format!("a canary in {location} is locked for longer than it asked to be and {nobody}: {key}"));
    }
    if let Some((key, failure)) = &swept.undeletable {
        return Some(format!("a canary in {location} was not deleted ({failure}) and {nobody}: {key}"));
    }
    if let Some(failure) = &swept.refused {
        return Some(format!("a canary in {location} was not deleted ({failure}) and {nobody}"));
    }
    let until = swept.locked.iter().map(|key| key.until).max()?;
    Some(format!("a canary in {location} is locked until second {until} and {nobody}"))
}

/// The first rule whose pattern matches the bucket.
fn rule_for<'settings>(settings: &'settings AgentSettings, location: &S3Location) -> Option<&'settings S3AccessRule> {
    let export = location.to_string();
    settings.s3_access.iter().find(|rule| rule.location.matches(&export))
}

#[async_trait]
impl Driver for S3Driver {
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe {
        let mut log = CheckLog::new(settings.probe.slow_after);
        let probe = self.run(settings, depth, &mut log).await;
        Probe { checks: log.into_results(), ..probe }
    }

    fn next_due(&self) -> Option<Duration> {
        // The agent's next probe is soon enough to remove what is not locked any more; a command's is not.
        // It does not wait for more than what it began, either.
        let (canary, proof) = match self.host.writer {
            Writer::Agent => (None, self.proof_due),
            Writer::Command => {
                (self.locked.map(|(_, at)| at), self.proof_due.filter(|_| self.prover.in_use().is_some()))
            }
        };
        let at = canary.into_iter().chain(proof).min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError> {
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
