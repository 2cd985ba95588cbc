//! When a proof is due, and how long a verdict counts: times, without a service.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::settings::{LockProofSettings, S3AccessRule, S3CanarySettings};
use crate::model::{LockProof, LockVerdict};
use crate::s3::{ObjectLock, Versioning};

/// How long it takes before a proof that found nothing is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long it takes before a proof is tried again that could find nothing with these credentials:
/// somebody may have granted them more.
pub const UNVERIFIABLE_RETRY_AFTER: Duration = Duration::from_secs(600);

/// The shortest time from the end of a proof to one that somebody asks for.
pub const ASKED_AFTER: Duration = Duration::from_secs(60);

/// How many proofs of a bucket are begun within [`STARTS_WITHIN`], whatever asks for them.
pub const STARTS_MAX: usize = 12;

/// See [`STARTS_MAX`].
pub const STARTS_WITHIN: Duration = Duration::from_secs(3600);

/// How many intervals a verdict counts while it cannot be renewed.
pub const COUNTS_FOR_INTERVALS: u32 = 2;

/// What a verdict is about: of another configuration it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// Whether the bucket keeps versions.
    pub versioning: Versioning,
    /// Its object-lock configuration.
    pub lock: ObjectLock,
    /// How the proof is done.
    pub settings: LockProofSettings,
    /// How its canary is named and locked.
    pub canary: S3CanarySettings,
    /// By which rule the bucket is reached.
    pub rule: Option<S3AccessRule>,
    /// With whose credentials: others may do more.
    pub access_key_id: String,
}

/// What is to be done about a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is time for one.
    Now,
    /// At this time.
    At(Instant),
}

/// The latest verdict, and the attempts at one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    latest: Option<(LockProof, Instant, Basis)>,
    not_before: Option<Instant>,
    starts: VecDeque<Instant>,
}

impl Schedule {
    /// The verdict that counts now, if there is one.
    #[must_use]
    pub fn verdict(&self, basis: &Basis, now: Instant) -> Option<&LockProof> {
        let (proof, ended, about) = self.latest.as_ref()?;
        let counts = about == basis && now < *ended + basis.settings.interval * COUNTS_FOR_INTERVALS;
        counts.then_some(proof)
    }

    /// When the next proof is due. `asked` is whether somebody asks for one.
    #[must_use]
    pub fn due(&self, basis: &Basis, asked: bool, now: Instant) -> Due {
        let wanted = match &self.latest {
            Some((proof, ended, about)) if about == basis => {
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
        let rested = self.starts.front().filter(|_| full).map(|first| *first + STARTS_WITHIN);
        let at = [self.not_before, rested].into_iter().flatten().fold(wanted, Instant::max);
        if at <= now { Due::Now } else { Due::At(at) }
    }

    /// A proof begins.
    pub fn begin(&mut self, now: Instant) {
        if self.starts.len() >= STARTS_MAX {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }

    /// A proof ended with a verdict.
    pub fn found(&mut self, proof: LockProof, basis: Basis, now: Instant) {
        self.latest = Some((proof, now, basis));
        self.not_before = None;
    }

    /// A proof ended without one, or cannot begin.
    pub fn not_before(&mut self, at: Instant) {
        self.not_before = Some(at);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::LockMode;
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
        let other = Basis { access_key_id: "AKIB".to_owned(), ..basis() };
        assert_eq!(schedule.verdict(&other, start), None);
    }

    #[test]
    fn what_was_interrupted_keeps_the_verdict_and_waits() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.found(proof(LockVerdict::Enforced), basis(), start);
        schedule.begin(start + DAY);
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
                schedule.begin(now);
                begun += 1;
            }
        }
        assert_eq!(begun, STARTS_MAX);
        assert_eq!(schedule.due(&basis(), false, start + STARTS_WITHIN), Due::Now);
    }
}
