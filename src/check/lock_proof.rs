//! `lock_proof`: proves that a bucket that is declared immutable really is.
//!
//! The configuration of a bucket is not a proof, because some services store it and do not enforce it.
//! So the agent locks a canary for a few seconds, and tries to delete it and to weaken its lock with its own
//! credentials. Before the retention ends this must be refused. Afterwards the deletion must succeed
//! ([`steps`]). The canary's own retention overrides a default retention of days. If the service reports
//! another retention than requested, no further canary is written.
//!
//! A proof takes as long as its canary is locked, and no probe waits for that. A probe takes the steps
//! that are possible within half of its deadline, and later probes take the others. Until the first verdict
//! the target is offline. While a verdict is renewed, the last one counts ([`schedule`]).
//!
//! Before a canary is written, leftovers of earlier ones are removed. At most [`LOCKED_MAX`] are locked at a time, and
//! none is written beside more than [`LOCKED_MAX`] of any kind, or beside one that the service locks for longer than
//! requested. So the number of canaries is bounded whatever crashes, and each is found again by its key.

mod act;
mod running;
pub mod schedule;
pub mod steps;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::canary::{CanaryKind, CanaryNames, Swept, Undeleted, sweep};
use super::checked::Checked;
use super::object_canary::LOCKED_MAX;
use crate::model::report::{LockProofState, finding};
use crate::model::{LockProof, LockVerdict, Reason, S3Location};
use crate::s3::{ObjectApi, Retention, within};
use act::act;
pub use running::ProofContext;
use running::Running;
use schedule::{Basis, Due, RETRY_AFTER, Schedule};
use steps::{Next, Proof, Step, StepAnswer};

/// Lock proofs of one bucket.
#[derive(Debug, Default)]
pub struct LockProofs {
    running: Option<Running>,
    schedule: Schedule,
    /// Why the latest attempt ended without a verdict.
    trouble: Option<String>,
    /// When the next step of the proof in progress, or the next proof, is due. `None` until a probe gets that far, so
    /// that a proof never makes the agent probe a bucket more often that does not answer.
    due: Option<Instant>,
    /// Whether the canary of a proof may exist. False once a sweep has found none.
    may_have_leaked: bool,
}

/// Progress in one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// No step is due now, or this probe does not have enough time left for one.
    Waits,
    /// The last steps of the proof had no clear answer, for this reason. The next probe repeats them.
    Unclear(String),
    /// A proof ended with a verdict.
    Found,
}

impl LockProofs {
    /// Canary of the proof in progress.
    #[must_use]
    pub fn in_use(&self) -> Option<Uuid> {
        self.running.as_ref().map(|running| running.key.id)
    }

    /// Whether the canary of a proof may exist, so that a sweep must look for it.
    #[must_use]
    pub fn may_have_leaked(&self) -> bool {
        self.may_have_leaked
    }

    /// When the next step is due. `None` unless the latest probe got to the proof.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Prepares for a probe, which may end before the proof.
    pub fn begin_probe(&mut self) {
        self.due = None;
    }

    /// Takes the steps that are possible now, and starts a proof if one is due.
    pub async fn advance(&mut self, api: &dyn ObjectApi, basis: &Basis, context: ProofContext<'_>) {
        // Taken out during the steps: if this future is dropped, the progress of the proof is unknown and its canary is
        // a leftover.
        let mut running = self.running.take().filter(|running| running.basis.is_equivalent_to(basis));
        let progress = tokio::time::timeout(context.deadline, self.work(api, basis, context, &mut running)).await;
        match progress {
            Ok(Ok(Progress::Waits)) => self.running = running,
            Ok(Ok(Progress::Unclear(trouble))) => {
                if let Some(running) = running {
                    self.continue_later(running, trouble);
                }
            }
            Ok(Ok(Progress::Found)) => {
                // Canaries whose retention ended while this one was locked. A later sweep removes the rest.
                let sweeping = sweep(api, context.names, true, context.clock, None);
                match within(context.deadline, sweeping).await {
                    Ok(swept) => self.may_have_leaked = !swept.is_clean(),
                    Err(failure) => tracing::debug!(%failure, "leftover canaries could not be listed or removed"),
                }
            }
            Ok(Err(trouble)) => self.postpone(trouble),
            Err(_) => {
                let trouble = format!("no answer within {} ms", context.deadline.as_millis());
                match running.filter(Running::is_at_its_end) {
                    Some(running) => self.continue_later(running, trouble),
                    None => self.postpone(trouble),
                }
            }
        }
        let now = Instant::now();
        self.due = match &self.running {
            // The next routine probe repeats an unclear step.
            Some(Running { proof: Proof { step: Step::Await, .. }, key, .. }) => {
                Some(context.clock.wait_until_past(key.until)).filter(|wait| !wait.is_zero()).map(|wait| now + wait)
            }
            Some(running) => (!running.is_at_its_end()).then_some(now),
            None => match self.schedule.due(basis, false, now) {
                Due::Now => None,
                Due::At(at) => Some(at),
            },
        };
    }

    /// Keeps a proof whose last steps are missing.
    fn continue_later(&mut self, running: Running, trouble: String) {
        tracing::debug!(trouble, "the last steps of the lock proof are repeated");
        self.trouble = Some(trouble);
        self.running = Some(running);
    }

    fn postpone(&mut self, trouble: String) {
        tracing::debug!(trouble, "the lock proof ended without a verdict");
        self.trouble = Some(trouble);
        self.schedule.not_before(Instant::now() + RETRY_AFTER);
    }

    async fn work(
        &mut self,
        api: &dyn ObjectApi,
        basis: &Basis,
        context: ProofContext<'_>,
        running: &mut Option<Running>,
    ) -> Result<Progress, String> {
        let began = Instant::now();
        if running.is_none() {
            if self.schedule.due(basis, context.requested, began) != Due::Now {
                return Ok(Progress::Waits);
            }
            *running = self.begin(api, basis, context).await?;
        }
        let Some(current) = running else { return Ok(Progress::Waits) };
        loop {
            if current.proof.step == Step::Await && !context.clock.is_past(current.proof.requested.until) {
                return Ok(Progress::Waits);
            }
            // The next probe continues. A request that the deadline interrupts would end the proof.
            if matches!(current.proof.step, Step::Try(_) | Step::Look(_)) && began.elapsed() > context.deadline / 2 {
                return Ok(Progress::Waits);
            }
            let seen = act(api, context, current).await;
            if let (StepAnswer::Unclear(trouble), true) = (&seen, current.is_at_its_end()) {
                return Ok(Progress::Unclear(trouble.clone()));
            }
            match current.proof.take(seen) {
                Next::Do(_) => {}
                Next::Interrupted(trouble) => return Err(trouble),
                Next::Found(verdict, why) => {
                    self.found(verdict, why, basis);
                    return Ok(Progress::Found);
                }
            }
        }
    }

    fn found(&mut self, verdict: LockVerdict, why: String, basis: &Basis) {
        self.trouble = None;
        let proof = LockProof { verdict, why, proved_at: Timestamp::now(), node: None };
        self.schedule.found(proof, basis.clone(), Instant::now());
    }

    /// Starts a proof, unless leftovers of earlier ones forbid it.
    async fn begin(
        &mut self,
        api: &dyn ObjectApi,
        basis: &Basis,
        context: ProofContext<'_>,
    ) -> Result<Option<Running>, String> {
        if let Some(why) = context.clock.implausible() {
            let why = format!("no canary is locked: {why}");
            // An earlier verdict counts until it expires: the lock has not changed.
            if self.schedule.verdict(basis, Instant::now()).is_some() {
                return Err(why);
            }
            self.found(LockVerdict::Unverifiable, why, basis);
            return Ok(None);
        }
        let swept = match sweep(api, context.names, true, context.clock, None).await {
            Ok(swept) => {
                self.may_have_leaked = !swept.is_clean();
                swept
            }
            Err(failure) if failure.is_refusal() => {
                let why = format!(
                    "canaries of earlier runs cannot be listed or removed ({failure}), so none is written: grant s3:ListBucketVersions and s3:DeleteObjectVersion below {}",
                    context.names.folder()
                );
                self.found(LockVerdict::Unverifiable, why, basis);
                return Ok(None);
            }
            Err(failure) => return Err(failure.to_string()),
        };
        if let Some(why) = obstacle(&swept, context.names) {
            self.found(LockVerdict::Unverifiable, why, basis);
            return Ok(None);
        }
        let locked = swept.locked.len();
        if locked >= LOCKED_MAX {
            let first = swept.locked.iter().map(|key| key.until).min().unwrap_or_default();
            let wait = context.clock.wait_until_past(first);
            self.trouble = Some(format!("{locked} canaries of earlier runs are still locked"));
            self.schedule.not_before(Instant::now() + wait);
            return Ok(None);
        }
        // Commands that crashed may have left canaries without a lock.
        let remaining = locked + swept.unlocked;
        if remaining > LOCKED_MAX {
            self.trouble = Some(format!("{remaining} canaries of this host exist, and the agent removes them later"));
            self.schedule.not_before(Instant::now() + RETRY_AFTER);
            return Ok(None);
        }
        self.schedule.begin(basis, Instant::now());
        self.may_have_leaked = true;
        let mode = basis.mode();
        let until = context.clock.end_of(basis.canary.retention);
        let key = context.names.new_key(CanaryKind::Lock, until);
        let proof = Proof::new(Retention { mode, until });
        Ok(Some(Running { proof, key, version: None, basis: basis.clone() }))
    }

    /// State of the lock.
    #[must_use]
    pub fn state(&self, basis: &Basis) -> LockProofState {
        let verdict = self.schedule.verdict(basis, Instant::now());
        verdict.map_or(LockProofState::Pending, |proof| LockProofState::Found(proof.clone()))
    }

    /// Uses the verdict of another node with the same access key, for the same configuration. Returns whether a verdict
    /// is in force then.
    pub fn adopt(&mut self, proof: LockProof, basis: &Basis) -> bool {
        let now = Instant::now();
        self.schedule.adopt(proof, basis.clone(), now);
        self.schedule.verdict(basis, now).is_some()
    }

    /// Returns the verdict in force that this node found.
    #[must_use]
    pub fn own_verdict(&self, basis: &Basis) -> Option<&LockProof> {
        self.schedule.own_verdict(basis, Instant::now())
    }

    /// State of the lock while the bucket's configuration is unknown.
    #[must_use]
    pub fn latest_state(&self, interval: Duration) -> LockProofState {
        let verdict = self.schedule.latest_verdict(interval, Instant::now());
        verdict.map_or(LockProofState::Pending, |proof| LockProofState::Found(proof.clone()))
    }

    /// Result of the check, from the verdict in force.
    #[must_use]
    pub fn checked(&self, location: &S3Location, basis: &Basis) -> Checked {
        let strict = basis.settings.strict;
        let Some(proof) = self.schedule.verdict(basis, Instant::now()) else {
            let trouble = self.trouble.as_ref().map(|trouble| format!("; the latest attempt: {trouble}"));
            return Checked::failed(finding!(
                Reason::LockProofPending,
                "{location} is declared immutable and its lock is not proved yet: the agent locks a canary for {} s and tries to delete it, so check again after that{}",
                basis.canary.retention.as_secs(),
                trouble.unwrap_or_default()
            ));
        };
        let LockProof { verdict, why, proved_at, node } = proof;
        let finding = |reason: Reason, remedy: &str| finding!(reason, "{location}: {why}; {remedy}");
        let checked = match verdict {
            LockVerdict::Enforced => Checked::passed(()),
            LockVerdict::Bypassable => {
                let finding = finding(
                    Reason::LockBypassable,
                    "these credentials can delete backups: deny them s3:BypassGovernanceRetention, or use COMPLIANCE",
                );
                if strict { Checked::failed(finding) } else { Checked::passed(()).with_warnings(Some(finding)) }
            }
            LockVerdict::NotEnforced => Checked::failed(finding(
                Reason::LockNotEnforced,
                "the service stores the lock but does not enforce it, so these credentials can delete backups: use another service, or declare the target not immutable",
            )),
            LockVerdict::Unverifiable => Checked::failed(finding(
                Reason::LockUnverifiable,
                "whether backups can be deleted is unknown. The agent tries again every 10 minutes, and when a check is requested",
            )),
        };
        let renewal = match (&self.running, &self.trouble) {
            (Some(_), None) => "; being renewed".to_owned(),
            (Some(_), Some(trouble)) => format!("; being renewed, and the last steps are repeated: {trouble}"),
            (None, Some(trouble)) => format!("; renewing it failed: {trouble}"),
            (None, None) => String::new(),
        };
        let by = node.as_ref().map(|node| format!(" by the node {node}")).unwrap_or_default();
        checked.detail(format!("{verdict}, proved{by} at {proved_at:.0}: {why}{renewal}"))
    }
}

/// Returns why no further canary is written beside those that a sweep could not remove.
fn obstacle(swept: &Swept, names: &CanaryNames) -> Option<String> {
    if let Some(key) = &swept.overlong {
        return Some(format!(
            "the service locked an earlier canary for longer than the requested seconds, so no further canary is written: {key}"
        ));
    }
    if let Some(Undeleted { key, failure, .. }) = &swept.undeletable {
        return Some(format!(
            "an earlier canary was not deleted although its retention had ended ({failure}), so no further canary is written: grant s3:DeleteObjectVersion: {}",
            names.text(key)
        ));
    }
    let Undeleted { failure, .. } = swept.refused.as_ref()?;
    Some(format!("an earlier canary cannot be deleted ({failure}): grant s3:DeleteObjectVersion"))
}

#[cfg(test)]
mod tests;
