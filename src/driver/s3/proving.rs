//! Lock proof of an immutable target: the steps that one probe makes.

use std::time::Instant;

use jiff::Timestamp;

use super::S3Driver;
use super::facts::Learnt;
use super::writing::not_written;
use crate::check::lock_proof::ProofContext;
use crate::check::lock_proof::schedule::Basis;
use crate::check::{CheckLog, Checked};
use crate::driver::Depth;
use crate::model::report::{BucketFacts, Finding, LockProofState};
use crate::model::settings::{AgentSettings, S3AccessRule};
use crate::model::{CheckName, LockProof, LockVerdict, Reason, S3Location};
use crate::s3::aws::AwsBucket;

impl S3Driver {
    /// Returns the facts that hold before the bucket answers: an earlier proof counts until it expires.
    pub(super) fn proved_before(&self, settings: &AgentSettings, rule: Option<&S3AccessRule>) -> Option<BucketFacts> {
        let is_proved = self.immutable && not_written(settings.lock_proof.enabled, "", rule).is_none();
        let lock_proof = self.prover.latest_state(settings.lock_proof.interval);
        let is_known = is_proved && lock_proof != LockProofState::Pending;
        is_known.then(|| BucketFacts { lock_proof, ..BucketFacts::default() })
    }

    /// Continues the lock proof of an immutable target, and returns its state.
    pub(super) async fn prove(
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
        if let Some(why) = not_written(settings.lock_proof.enabled, "turned off in [s3.lock_proof]", rule) {
            return unproved(&self.location, why, learnt, log).await;
        }
        let (Some(versioning), Some(lock)) = (learnt.versions, &learnt.lock) else {
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
}

/// Returns the state of a lock that is not proved, for the reason `why`, and records the check.
async fn unproved(location: &S3Location, why: &str, learnt: &Learnt, log: &mut CheckLog) -> LockProofState {
    if learnt.lock.as_ref().is_some_and(|lock| !lock.enabled) {
        return LockProofState::NotAsked;
    }
    let why = format!("{why}: that the lock is enforced is not verified");
    if !log.has_failure() {
        let finding = Finding::new(Reason::LockUnverifiable, format!("{location} is declared immutable, but {why}"));
        log.run(CheckName::LockProof, async { Checked::passed(()).with_warnings(Some(finding)) }).await;
    }
    LockProofState::Found(LockProof { verdict: LockVerdict::Unverifiable, why, proved_at: Timestamp::now() })
}
