//! The lock proof as a table of states, without a service or a clock.
//!
//! ```text
//! Put → Inspect → Try → Look ─┬→ the next attempt, or Await → Control → Look → enforced
//!                             ├→ not_enforced                 └ the retention ends
//!                             └→ bypassable
//! ```
//!
//! An attempt tries to delete the version or to weaken its lock before the retention ends. All attempts must fail. Each
//! is followed by a HEAD of the version, because the state of the version counts and not only the answer to the
//! attempt. The DELETE after the end of the retention is the control. If it is refused too, the earlier refusals may be
//! due to a missing permission and prove nothing. The other attempts need no control, because the PUT needs the same
//! permission.

use crate::check::canary::{CLOCK_UNCERTAINTY_SECONDS, utc};
use crate::model::{LockMode, LockVerdict};
use crate::s3::Retention;

/// Remedy when a service refuses the retention of a canary as too short.
pub const LONGER_RETENTION: &str =
    "if the service or a policy demands a longer retention, set min_canary_retention in [s3.lock_proof]";

/// Next step of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// PUT the canary with a retention.
    Put,
    /// HEAD it, to compare its retention with the requested one.
    Inspect,
    /// Attempt to end its lock early, which must be refused.
    Try(Attempt),
    /// HEAD it after the attempt.
    Look(Attempt),
    /// Wait for the end of the retention.
    Await,
    /// DELETE that version, which must succeed.
    Control,
    /// HEAD it after that.
    LookAfterControl,
}

impl Step {
    /// Whether the request of this step sets or removes a retention.
    #[must_use]
    pub fn sets_retention(self) -> bool {
        match self {
            Self::Put => true,
            Self::Try(attempt) => attempt.action != Action::Delete,
            _ => false,
        }
    }
}

/// Attempt to end a lock early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// What the agent requests.
    pub action: Action,
    /// Whether the request asks for the bypass of governance.
    pub bypass: bool,
}

/// What an attempt requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// DELETE the version.
    Delete,
    /// Set a retention that ends earlier.
    Shorten,
    /// Set no retention.
    Remove,
    /// Change the mode from COMPLIANCE to GOVERNANCE.
    ChangeMode,
}

const fn plain(action: Action) -> Attempt {
    Attempt { action, bypass: false }
}

const fn with_bypass(action: Action) -> Attempt {
    Attempt { action, bypass: true }
}

/// The attempts on a canary that is locked in COMPLIANCE mode, in their order.
const COMPLIANCE_ATTEMPTS: &[Attempt] =
    &[plain(Action::Delete), plain(Action::Shorten), plain(Action::Remove), plain(Action::ChangeMode)];

/// The attempts on a canary that is locked in GOVERNANCE mode, in their order. A change of the mode to COMPLIANCE
/// would not weaken the lock.
const GOVERNANCE_ATTEMPTS: &[Attempt] = &[
    plain(Action::Delete),
    plain(Action::Shorten),
    plain(Action::Remove),
    with_bypass(Action::Delete),
    with_bypass(Action::Shorten),
    with_bypass(Action::Remove),
];

/// Answer of the service to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepAnswer {
    /// It stored the canary.
    Written {
        /// Whether the answer named a version.
        has_version: bool,
    },
    /// The version exists, with this retention.
    Found(Option<Retention>),
    /// The version exists with the requested retention. By the storage's own clock it is locked for this
    /// many seconds, which is too long.
    TooLong(i64),
    /// Like [`Self::TooLong`], but for too few seconds to send a DELETE before the end.
    TooShort(i64),
    /// The version does not exist.
    NotFound,
    /// It accepted the DELETE or the change, at this time of its clock.
    Accepted {
        /// Seconds since 1970.
        at: i64,
    },
    /// It refused, with this message.
    Refused(String),
    /// It will never accept the request, but not because of a lock, with this message.
    NotAccepted(String),
    /// It gave no clear answer, for this reason.
    Unclear(String),
}

/// Result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The proof continues.
    Do(Step),
    /// The proof ends with a verdict and its explanation.
    Found(LockVerdict, String),
    /// The proof ends without a verdict, for this reason. Another proof may succeed.
    Interrupted(String),
}

/// A proof in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The current step.
    pub step: Step,
    /// The requested retention.
    pub requested: Retention,
    /// The retention that the service reported instead, if it differs.
    reported_instead: Option<Option<Retention>>,
    /// Whether the latest attempt or DELETE was accepted.
    accepted: bool,
}

impl Proof {
    /// Starts a proof whose canary is locked with this retention.
    #[must_use]
    pub fn new(requested: Retention) -> Self {
        Self { step: Step::Put, requested, reported_instead: None, accepted: false }
    }

    /// Applies what the service did at the current step. Unless the result is [`Next::Do`], the proof is over.
    pub fn take(&mut self, seen: StepAnswer) -> Next {
        let next = self.next(seen);
        if let Next::Do(step) = next {
            self.step = step;
        }
        next
    }

    fn next(&mut self, seen: StepAnswer) -> Next {
        use LockVerdict::{Enforced, Unverifiable};
        let mode = self.requested.mode;
        let found = |verdict, why: String| Next::Found(verdict, why);
        match (self.step, seen) {
            (_, StepAnswer::Unclear(why)) => Next::Interrupted(why),

            (Step::Put, StepAnswer::Written { has_version: true }) => Next::Do(Step::Inspect),
            (Step::Put, StepAnswer::Written { has_version: false }) => {
                found(Unverifiable, "the service gave the canary no version, so none can be deleted".to_owned())
            }
            (Step::Put, StepAnswer::Refused(why) | StepAnswer::NotAccepted(why)) => found(
                Unverifiable,
                format!("putting a canary with a retention was refused ({why}): grant s3:PutObject and s3:PutObjectRetention, or, {LONGER_RETENTION}"),
            ),
            (step, StepAnswer::NotAccepted(why)) => found(
                Unverifiable,
                format!("the service refused a request of the proof (at {step:?}), but not because of a lock: {why}"),
            ),

            (Step::Inspect, StepAnswer::Found(reported)) => {
                self.reported_instead = (reported != Some(self.requested)).then_some(reported);
                Next::Do(Step::Try(plain(Action::Delete)))
            }
            (Step::Inspect, StepAnswer::TooLong(left)) => found(
                Unverifiable,
                format!(
                    "the clock of the storage is behind the one that the service reports, so it locks a canary for {left} s, longer than [s3.canary] retention, and no further canary is written until that has ended: correct the service's clocks (NTP)"
                ),
            ),
            (Step::Inspect, StepAnswer::TooShort(left)) => Next::Interrupted(format!(
                "by the clock of the storage, {left} s of a canary's retention remained when it was stored: correct the service's clocks (NTP), or raise [s3.canary] retention"
            )),
            (Step::Inspect, StepAnswer::Refused(why)) => found(
                Unverifiable,
                format!("reading the canary's retention was refused ({why}): grant s3:GetObject and s3:GetObjectRetention"),
            ),

            // The service may have accepted it after the end of the retention, which is correct.
            (Step::Try(_), StepAnswer::Accepted { at })
                if at.saturating_add(CLOCK_UNCERTAINTY_SECONDS) >= self.requested.until => Next::Interrupted(
                "an attempt to end the lock of a canary early was answered about when its retention ended: raise [s3.canary] retention"
                    .to_owned(),
            ),
            (Step::Try(attempt), StepAnswer::Accepted { .. }) => self.look(Step::Look(attempt), true),
            (Step::Try(attempt), StepAnswer::Refused(_)) => self.look(Step::Look(attempt), false),

            (Step::Look(attempt @ Attempt { action: Action::Delete, .. }), StepAnswer::NotFound) if self.accepted => {
                self.broken_by(attempt)
            }
            (Step::Look(attempt), StepAnswer::Found(reported))
                if attempt.action != Action::Delete && self.is_weaker(reported) => self.broken_by(attempt),
            (Step::Look(Attempt { action: Action::Delete, bypass: false }), StepAnswer::Found(_)) if self.accepted => found(
                Unverifiable,
                "the service accepted the DELETE of a locked version, and the version is still there".to_owned(),
            ),
            (Step::Look(attempt), StepAnswer::Found(_)) => match self.attempt_after(attempt) {
                Some(next) => Next::Do(Step::Try(next)),
                None => self.wait_or_stop(),
            },

            (Step::Await, _) => Next::Do(Step::Control),
            (Step::Control, StepAnswer::Accepted { .. }) => self.look(Step::LookAfterControl, true),
            (Step::Control, StepAnswer::Refused(why)) => found(
                Unverifiable,
                format!(
                    "deleting the canary was refused although its retention had ended ({why}), so the refusals before it may be due to a missing permission: grant s3:DeleteObjectVersion"
                ),
            ),
            (Step::LookAfterControl, StepAnswer::NotFound) => found(
                Enforced,
                format!("a canary locked in {mode} mode was kept until its retention ended, and deleted after it"),
            ),
            (Step::LookAfterControl, StepAnswer::Found(_)) => found(
                Unverifiable,
                "the service accepted the DELETE of a version that is no longer locked, and the version is still there"
                    .to_owned(),
            ),

            (step, StepAnswer::NotFound) => Next::Interrupted(format!("the canary vanished (at {step:?}): another program removed it")),
            (step, StepAnswer::Refused(why)) => Next::Interrupted(format!("the service refused to report the canary (at {step:?}): {why}")),
            (step, seen) => Next::Interrupted(format!("{seen:?} is not an answer to {step:?}, which is a defect of the agent")),
        }
    }

    fn look(&mut self, step: Step, accepted: bool) -> Next {
        self.accepted = accepted;
        Next::Do(step)
    }

    /// Returns the next attempt. If the reported retention is not the requested one, a change could not be recognized,
    /// so the attempts that change it are left out.
    fn attempt_after(&self, attempt: Attempt) -> Option<Attempt> {
        let attempts = match self.requested.mode {
            LockMode::Governance => GOVERNANCE_ATTEMPTS,
            LockMode::Compliance => COMPLIANCE_ATTEMPTS,
        };
        let later = attempts.iter().skip_while(|known| **known != attempt).skip(1);
        later.copied().find(|next| self.reported_instead.is_none() || next.action == Action::Delete)
    }

    /// Whether a retention protects the canary less than the requested one.
    fn is_weaker(&self, reported: Option<Retention>) -> bool {
        reported.is_none_or(|reported| {
            reported.until < self.requested.until
                || (self.requested.mode, reported.mode) == (LockMode::Compliance, LockMode::Governance)
        })
    }

    /// Verdict when an attempt succeeded, even if the service reported a refusal.
    fn broken_by(&self, attempt: Attempt) -> Next {
        let done = match attempt.action {
            Action::Delete => "was deleted before its retention ended",
            Action::Shorten => "got a shorter retention",
            Action::Remove => "lost its retention before it ended",
            Action::ChangeMode => "was changed to GOVERNANCE mode",
        };
        let (verdict, how) = match attempt.bypass {
            false => (LockVerdict::NotEnforced, ""),
            true => (LockVerdict::Bypassable, ", with the bypass of GOVERNANCE"),
        };
        Next::Found(verdict, format!("a canary locked in {} mode {done}{how}", self.requested.mode))
    }

    /// Waits for the end of the retention if it is the requested one. Any other retention does not end when it should.
    fn wait_or_stop(&self) -> Next {
        match self.reported_instead {
            None => Next::Do(Step::Await),
            Some(None) => Next::Found(
                LockVerdict::Unverifiable,
                "the service does not report the canary's retention, so its end is unknown: grant s3:GetObjectRetention"
                    .to_owned(),
            ),
            Some(Some(reported)) => Next::Found(
                LockVerdict::Unverifiable,
                format!(
                    "the service locked a canary in {} mode until {} instead of in {} mode until {}, so it remains until then and no further canary is written",
                    reported.mode,
                    utc(reported.until),
                    self.requested.mode,
                    utc(self.requested.until)
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
