//! The lock proof as a table of states, without a service or a clock.
//!
//! ```text
//! Put → Inspect → Delete → Look ─┬→ Bypass → Look ─┬→ Await → Control → Look → enforced
//!                                │   (governance)  │   └ the retention ends
//!                                └→ not_enforced   └→ bypassable
//! ```
//!
//! Each DELETE is followed by a HEAD of the version. Whether the version still exists counts, not the
//! answer to the DELETE. The DELETE after the end of the retention is the control. If it is refused too,
//! the earlier refusals may be due to a missing permission and prove nothing.

use crate::check::canary::CLOCK_UNCERTAINTY_SECONDS;
use crate::model::{LockMode, LockVerdict};
use crate::s3::Retention;

/// Next step of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// PUT it with a retention.
    Put,
    /// HEAD it, to compare its retention with the requested one.
    Inspect,
    /// DELETE that version, which must be refused.
    Delete,
    /// HEAD it after that.
    LookAfterDelete,
    /// DELETE that version with the bypass of governance.
    Bypass,
    /// HEAD it after that.
    LookAfterBypass,
    /// Wait for the end of the retention.
    Await,
    /// DELETE that version, which must succeed.
    Control,
    /// HEAD it after that.
    LookAfterControl,
}

/// What the service did at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It stored the canary.
    Written {
        /// Whether the answer named a version.
        has_version: bool,
    },
    /// The version exists, with this retention.
    There(Option<Retention>),
    /// The version exists with the requested retention. By the storage's own clock it is locked for this
    /// many seconds, which is too long.
    TooLong(i64),
    /// Likewise, and for too few seconds to send a DELETE before the end.
    TooShort(i64),
    /// The version does not exist.
    Gone,
    /// It accepted the DELETE, at this time of its clock.
    Deleted {
        /// Seconds since 1970.
        at: i64,
    },
    /// It refused, with this message.
    Refused(String),
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
    pub asked: Retention,
    /// The retention that the service reported instead, if it differs.
    told_instead: Option<Option<Retention>>,
    /// Whether the latest DELETE was accepted.
    accepted: bool,
}

impl Proof {
    /// Starts a proof whose canary is locked with this retention.
    #[must_use]
    pub fn new(asked: Retention) -> Self {
        Self { step: Step::Put, asked, told_instead: None, accepted: false }
    }

    /// Applies what the service did at the current step. Unless the result is to continue, the proof is over.
    pub fn take(&mut self, seen: Seen) -> Next {
        let next = self.next(seen);
        if let Next::Do(step) = next {
            self.step = step;
        }
        next
    }

    fn next(&mut self, seen: Seen) -> Next {
        use LockVerdict::{Bypassable, Enforced, NotEnforced, Unverifiable};
        let mode = self.asked.mode;
        let found = |verdict, why: String| Next::Found(verdict, why);
        match (self.step, seen) {
            (_, Seen::Unclear(why)) => Next::Interrupted(why),

            (Step::Put, Seen::Written { has_version: true }) => Next::Do(Step::Inspect),
            (Step::Put, Seen::Written { has_version: false }) => {
                found(Unverifiable, "the service gave the canary no version, so that none can be deleted".to_owned())
            }
            (Step::Put, Seen::Refused(why)) => found(
                Unverifiable,
                format!("putting a canary with a retention was refused ({why}): grant s3:PutObject and s3:PutObjectRetention"),
            ),

            (Step::Inspect, Seen::There(told)) => {
                self.told_instead = (told != Some(self.asked)).then_some(told);
                Next::Do(Step::Delete)
            }
            (Step::Inspect, Seen::TooLong(left)) => found(
                Unverifiable,
                format!(
                    "the clock of the storage is behind the one that the service tells: it keeps a canary for {left} s, longer than [s3.canary] retention, and no further one is written until that is over: correct the service's clocks (NTP)"
                ),
            ),
            (Step::Inspect, Seen::TooShort(left)) => Next::Interrupted(format!(
                "by the clock of the storage {left} s were left of a canary's retention when it was stored: correct the service's clocks (NTP), or raise [s3.canary] retention"
            )),
            (Step::Inspect, Seen::Refused(why)) => found(
                Unverifiable,
                format!("the canary's retention may not be read ({why}): grant s3:GetObject and s3:GetObjectRetention"),
            ),

            // It may have been accepted after the end of the retention, which is correct.
            (Step::Delete | Step::Bypass, Seen::Deleted { at })
                if at.saturating_add(CLOCK_UNCERTAINTY_SECONDS) >= self.asked.until => Next::Interrupted(
                "a DELETE that was sent before the end of the canary's retention was answered about when that ended: raise [s3.canary] retention"
                    .to_owned(),
            ),
            (Step::Delete, Seen::Deleted { .. }) => self.look(Step::LookAfterDelete, true),
            (Step::Delete, Seen::Refused(_)) => self.look(Step::LookAfterDelete, false),
            (Step::Bypass, Seen::Deleted { .. }) => self.look(Step::LookAfterBypass, true),
            (Step::Bypass, Seen::Refused(_)) => self.look(Step::LookAfterBypass, false),

            (Step::LookAfterDelete, Seen::Gone) if self.accepted => {
                found(NotEnforced, format!("a canary locked in {mode} mode was deleted before its retention ended"))
            }
            (Step::LookAfterDelete, Seen::There(_)) if self.accepted => found(
                Unverifiable,
                "the service accepted the DELETE of a locked version, and the version is still there".to_owned(),
            ),
            (Step::LookAfterDelete, Seen::There(_)) if mode == LockMode::Governance => Next::Do(Step::Bypass),
            (Step::LookAfterDelete, Seen::There(_)) => self.wait_or_stop(),

            (Step::LookAfterBypass, Seen::Gone) if self.accepted => found(
                Bypassable,
                "a canary locked in GOVERNANCE mode was deleted before its retention ended, by asking for the bypass"
                    .to_owned(),
            ),
            (Step::LookAfterBypass, Seen::There(_)) => self.wait_or_stop(),

            (Step::Await, _) => Next::Do(Step::Control),
            (Step::Control, Seen::Deleted { .. }) => self.look(Step::LookAfterControl, true),
            (Step::Control, Seen::Refused(why)) => found(
                Unverifiable,
                format!(
                    "deleting the canary was refused although its retention had ended ({why}), so the refusals before it may be of a missing permission: grant s3:DeleteObjectVersion"
                ),
            ),
            (Step::LookAfterControl, Seen::Gone) => found(
                Enforced,
                format!("a canary locked in {mode} mode was kept until its retention ended, and deleted after it"),
            ),
            (Step::LookAfterControl, Seen::There(_)) => found(
                Unverifiable,
                "the service accepted the DELETE of a version that is not locked any more, and it is still there"
                    .to_owned(),
            ),

            (step, Seen::Gone) => Next::Interrupted(format!("the canary vanished (at {step:?}): somebody else removed it")),
            (step, Seen::Refused(why)) => Next::Interrupted(format!("the canary cannot be looked at (at {step:?}): {why}")),
            (step, seen) => Next::Interrupted(format!("{seen:?} does not answer {step:?}: this is a defect of the agent")),
        }
    }

    fn look(&mut self, step: Step, accepted: bool) -> Next {
        self.accepted = accepted;
        Next::Do(step)
    }

    /// Only a retention as requested ends when it should.
    fn wait_or_stop(&self) -> Next {
        match self.told_instead {
            None => Next::Do(Step::Await),
            Some(None) => Next::Found(
                LockVerdict::Unverifiable,
                "the service does not tell the canary's retention, so nobody knows when it ends: grant s3:GetObjectRetention"
                    .to_owned(),
            ),
            Some(Some(told)) => Next::Found(
                LockVerdict::Unverifiable,
                format!(
                    "the service locked a canary in {} mode until second {} instead of in {} mode until second {}, as it was asked to: it stays until then, and no further one is written",
                    told.mode, told.until, self.asked.mode, self.asked.until
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
