//! What follows from what was seen: the lock proof as a table, without a service or a clock.
//!
//! ```text
//! Put → Inspect → Delete → Look ─┬→ Bypass → Look ─┬→ Await → Control → Look → enforced
//!                                │   (governance)  │   └ the retention ends
//!                                └→ not_enforced   └→ bypassable
//! ```
//!
//! Each DELETE is followed by a look at the version: what counts is whether it is there, not what was
//! answered. The DELETE after the end is the control: where it is refused too, the refusals before it
//! were of a missing permission, and prove nothing.

use crate::check::canary::CLOCK_UNCERTAINTY_SECONDS;
use crate::model::{LockMode, LockVerdict};
use crate::s3::Retention;

/// What is to be done next with the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// PUT it with a retention.
    Put,
    /// HEAD it: is the retention the one that was asked for?
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

/// What the service did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It stored the canary.
    Written {
        /// Whether it told a version.
        has_version: bool,
    },
    /// The version is there, with this retention.
    There(Option<Retention>),
    /// The version is there, locked as it was asked to be, and by the storage's own clock for so many
    /// seconds: more than it may be.
    TooLong(i64),
    /// Likewise, and fewer than a DELETE needs to come before its end.
    TooShort(i64),
    /// The version is not there.
    Gone,
    /// It accepted the DELETE, and its clock showed this when it had.
    Deleted {
        /// Seconds since 1970.
        at: i64,
    },
    /// It will not do it; its words.
    Refused(String),
    /// It gave no answer that means anything; why.
    Unclear(String),
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Do(Step),
    /// It is found, with what was seen.
    Found(LockVerdict, String),
    /// Nothing was found, for this reason; another proof may find it.
    Interrupted(String),
}

/// A proof under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What is to be done now.
    pub step: Step,
    /// The retention that is asked for.
    pub asked: Retention,
    /// What the service told instead of it, if it did.
    told_instead: Option<Option<Retention>>,
    /// Whether the latest DELETE was accepted.
    accepted: bool,
}

impl Proof {
    /// A proof with a canary that is locked like this.
    #[must_use]
    pub fn new(asked: Retention) -> Self {
        Self { step: Step::Put, asked, told_instead: None, accepted: false }
    }

    /// Takes what was seen at the current step. Unless it goes on, the proof is over.
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

            // Perhaps it was accepted after the end, and legally.
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
                    "deleting the canary was refused after its retention had ended too ({why}), so the refusals before it may be of a missing permission: grant s3:DeleteObjectVersion"
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

    /// Only what is locked as it was asked for ends when it was said to.
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
