//! Schedule of lock proofs: when one is due, and how long a verdict counts. Pure: no service, no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::settings::{LockProofSettings, S3AccessRule, S3CanarySettings};
use crate::model::{LockMode, LockProof, LockVerdict};
use crate::s3::{ObjectLock, Versioning};

/// Wait before a proof without a verdict is repeated.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Wait before a proof is repeated that these credentials could not finish. They may have been granted
/// more permissions meanwhile.
pub const UNVERIFIABLE_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Shortest time from the end of a proof to a requested one.
pub const ASKED_AFTER: Duration = Duration::from_secs(60);

/// Largest number of proofs of a bucket that start within [`STARTS_WITHIN`], for whatever reason.
pub const STARTS_MAX: usize = 12;

/// Largest number of them that were requested and not due. Repeated requests must not use up the proofs
/// that are needed.
pub const ASKED_STARTS_MAX: usize = STARTS_MAX / 2;

/// See [`STARTS_MAX`].
pub const STARTS_WITHIN: Duration = Duration::from_secs(3600);

/// Number of intervals for which a verdict counts while it cannot be renewed.
pub const COUNTS_FOR_INTERVALS: u32 = 2;

/// What a verdict is valid for. It says nothing about another configuration. Settings for intervals and
/// for the consequences of a verdict are included and make no difference.
#[derive(Debug, Clone)]
pub struct Basis {
    /// Whether the bucket keeps versions.
    pub versioning: Versioning,
    /// Its object-lock configuration.
    pub lock: ObjectLock,
    /// Settings of the proof.
    pub settings: LockProofSettings,
    /// Settings of its canary.
    pub canary: S3CanarySettings,
    /// Access rule of the bucket.
    pub rule: Option<S3AccessRule>,
    /// Access key. Other credentials may have other permissions.
    pub access_key_id: String,
}

impl Basis {
    /// Mode in which a canary is locked: that of backups, which is the bucket's default if it has one.
    #[must_use]
    pub fn mode(&self) -> LockMode {
        let by_default = self.lock.default_retention.map(|retention| retention.mode);
        by_default.or(self.settings.mode).unwrap_or(LockMode::Governance)
    }

    /// Whether a verdict about `other` counts for this one. It does with other credentials, because rotated
    /// credentials usually have the same permissions.
    #[must_use]
    pub fn is_about_the_same_as(&self, other: &Self) -> bool {
        let of = |basis: &Self| {
            let (mode, prefix, retention) = (basis.mode(), basis.canary.prefix.clone(), basis.canary.retention);
            (basis.versioning, basis.lock.clone(), mode, prefix, retention, basis.rule.clone())
        };
        of(self) == of(other)
    }

    /// Whether a proof of `other` proves this one too.
    #[must_use]
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        self.is_about_the_same_as(other) && self.access_key_id == other.access_key_id
    }
}

/// When the next proof is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// At this time.
    At(Instant),
}

/// Start of a proof.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Instant,
    /// Whether it was requested and not due.
    is_asked: bool,
}

/// The latest verdict, and the attempts to renew it.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    latest: Option<(LockProof, Instant, Basis)>,
    not_before: Option<Instant>,
    starts: VecDeque<Start>,
}

impl Schedule {
    /// Returns the verdict that counts now.
    #[must_use]
    pub fn verdict(&self, basis: &Basis, now: Instant) -> Option<&LockProof> {
        let (_, _, about) = self.latest.as_ref()?;
        if about.is_about_the_same_as(basis) { self.latest_verdict(basis.settings.interval, now) } else { None }
    }

    /// Returns the latest verdict that has not expired, whatever it is valid for.
    #[must_use]
    pub fn latest_verdict(&self, interval: Duration, now: Instant) -> Option<&LockProof> {
        let (proof, ended, _) = self.latest.as_ref()?;
        (now < *ended + interval * COUNTS_FOR_INTERVALS).then_some(proof)
    }

    /// Returns when the next proof is due. `asked`: whether one was requested.
    #[must_use]
    pub fn due(&self, basis: &Basis, asked: bool, now: Instant) -> Due {
        let asked_for = self.starts.iter().filter(|start| start.is_asked && now < start.at + STARTS_WITHIN).count();
        let asked = asked && asked_for < ASKED_STARTS_MAX;
        let wanted = match &self.latest {
            Some((proof, ended, about)) if about.is_as_good_as(basis) => {
                let again = match proof.verdict {
                    _ if asked => ASKED_AFTER,
                    LockVerdict::Unverifiable => UNVERIFIABLE_RETRY_AFTER.min(basis.settings.interval),
                    _ => basis.settings.interval,
                };
                *ended + again
            }
            _ => now,
        };
        let full = self.starts.len() >= STARTS_MAX;
        let rested = self.starts.front().filter(|_| full).map(|first| first.at + STARTS_WITHIN);
        let at = [self.not_before, rested].into_iter().flatten().fold(wanted, Instant::max);
        if at <= now { Due::Now } else { Due::At(at) }
    }

    /// Records the start of a proof.
    pub fn begin(&mut self, basis: &Basis, now: Instant) {
        let is_asked = self.due(basis, false, now) != Due::Now;
        if self.starts.len() >= STARTS_MAX {
            self.starts.pop_front();
        }
        self.starts.push_back(Start { at: now, is_asked });
    }

    /// Records the verdict of a proof.
    pub fn found(&mut self, proof: LockProof, basis: Basis, now: Instant) {
        self.latest = Some((proof, now, basis));
        self.not_before = None;
    }

    /// Records a proof that ended without a verdict or could not start.
    pub fn not_before(&mut self, at: Instant) {
        self.not_before = Some(at);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::s3::{DefaultRetention, RetentionLength};
    use jiff::Timestamp;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    pub fn basis() -> Basis {
        let settings = LockProofSettings {
            enabled: true,
            interval: DAY,
            mode: None,
            strict: false,
            min_retention: Duration::ZERO,
        };
        let canary = S3CanarySettings {
            enabled: true,
            interval: Duration::from_secs(300),
            prefix: "x/".to_owned(),
            retention: Duration::from_secs(10),
        };
        let lock = ObjectLock { enabled: true, default_retention: None };
        Basis { versioning: Versioning::Enabled, lock, settings, canary, rule: None, access_key_id: "AKIA".to_owned() }
    }

    fn proof(verdict: LockVerdict) -> LockProof {
        LockProof { verdict, why: "seen".to_owned(), proved_at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_verdict_is_renewed_at_its_interval_sooner_when_it_says_nothing_and_when_asked() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(&basis(), false, start), Due::Now);
        for (verdict, asked, after) in [
            (LockVerdict::Enforced, false, DAY),
            (LockVerdict::Bypassable, false, DAY),
            (LockVerdict::NotEnforced, false, DAY),
            (LockVerdict::Unverifiable, false, UNVERIFIABLE_RETRY_AFTER),
            (LockVerdict::Enforced, true, ASKED_AFTER),
            (LockVerdict::Unverifiable, true, ASKED_AFTER),
        ] {
            schedule.found(proof(verdict), basis(), start);
            assert_eq!(schedule.due(&basis(), asked, start), Due::At(start + after), "{verdict} {asked}");
            assert_eq!(schedule.due(&basis(), asked, start + after), Due::Now, "{verdict} {asked}");
        }
    }

    #[test]
    fn a_verdict_counts_for_its_configuration_and_for_two_intervals() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.verdict(&basis(), start), None);
        schedule.found(proof(LockVerdict::Enforced), basis(), start);
        assert!(schedule.verdict(&basis(), start + DAY * 2 - Duration::from_secs(1)).is_some());
        assert_eq!(schedule.verdict(&basis(), start + DAY * 2), None);
        let retention = DefaultRetention { mode: LockMode::Governance, length: RetentionLength::Days(1) };
        let mut other = basis();
        other.lock.default_retention = Some(retention);
        assert_eq!(schedule.verdict(&other, start), None);
        assert_eq!(schedule.due(&other, false, start), Due::Now);
    }

    #[test]
    fn what_says_how_often_or_how_strictly_is_no_other_configuration() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.found(proof(LockVerdict::Enforced), basis(), start);
        let mut other = basis();
        (other.settings.strict, other.settings.min_retention) = (true, DAY);
        (other.settings.interval, other.canary.interval) = (DAY / 2, DAY);
        other.canary.enabled = false;
        assert!(schedule.verdict(&other, start + DAY - Duration::from_secs(1)).is_some());
        assert_eq!(schedule.verdict(&other, start + DAY), None, "two of the intervals as they are now");
        assert_eq!(schedule.due(&other, false, start), Due::At(start + DAY / 2));
    }

    #[test]
    fn with_other_credentials_the_verdict_counts_and_is_renewed_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.found(proof(LockVerdict::Enforced), basis(), start);
        let other = Basis { access_key_id: "AKIB".to_owned(), ..basis() };
        assert!(schedule.verdict(&other, start + DAY * 2 - Duration::from_secs(1)).is_some());
        assert_eq!(schedule.verdict(&other, start + DAY * 2), None);
        assert_eq!(schedule.due(&other, false, start), Due::Now);
        schedule.found(proof(LockVerdict::Enforced), other.clone(), start);
        assert_eq!(schedule.due(&other, false, start), Due::At(start + DAY));
    }

    #[test]
    fn a_canary_is_locked_as_backups_are_and_otherwise_as_was_told() {
        let (governance, compliance) = (LockMode::Governance, LockMode::Compliance);
        for (by_default, configured, expected) in [
            (None, None, governance),
            (None, Some(compliance), compliance),
            (Some(governance), Some(compliance), governance),
            (Some(compliance), Some(governance), compliance),
            (Some(compliance), None, compliance),
        ] {
            let mut basis = basis();
            basis.settings.mode = configured;
            basis.lock.default_retention =
                by_default.map(|mode| DefaultRetention { mode, length: RetentionLength::Days(1) });
            assert_eq!(basis.mode(), expected, "{by_default:?} {configured:?}");
        }
    }

    #[test]
    fn who_asks_and_asks_again_leaves_room_for_what_is_due() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let mut begun = 0;
        for at in 0..STARTS_WITHIN.as_secs() {
            let now = start + Duration::from_secs(at);
            if schedule.due(&basis(), at > 0, now) == Due::Now {
                schedule.begin(&basis(), now);
                schedule.found(proof(LockVerdict::Enforced), basis(), now);
                begun += 1;
            }
        }
        assert_eq!(begun, 1 + ASKED_STARTS_MAX);
        let mut other = basis();
        other.lock.default_retention =
            Some(DefaultRetention { mode: LockMode::Governance, length: RetentionLength::Days(1) });
        assert_eq!(schedule.due(&other, false, start + STARTS_WITHIN - Duration::from_secs(1)), Due::Now);
    }

    #[test]
    fn what_was_interrupted_keeps_the_verdict_and_waits() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.found(proof(LockVerdict::Enforced), basis(), start);
        schedule.begin(&basis(), start + DAY);
        schedule.not_before(start + DAY + RETRY_AFTER);
        assert!(schedule.verdict(&basis(), start + DAY).is_some());
        assert_eq!(schedule.due(&basis(), true, start + DAY), Due::At(start + DAY + RETRY_AFTER));
    }

    #[test]
    fn no_cause_begins_more_proofs_than_the_limit() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let second = Duration::from_secs(1);
        let mut begun = 0;
        for at in 0..STARTS_WITHIN.as_secs() {
            let now = start + second * u32::try_from(at).expect("small");
            if schedule.due(&basis(), true, now) == Due::Now {
                schedule.begin(&basis(), now);
                begun += 1;
            }
        }
        assert_eq!(begun, STARTS_MAX);
        assert_eq!(schedule.due(&basis(), false, start + STARTS_WITHIN), Due::Now);
    }
}
