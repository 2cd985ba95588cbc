//! Schedule of lock proofs: when one is due, and how long a verdict counts. Pure functions without a service or clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::model::settings::{LockProofSettings, S3AccessRule, S3CanarySettings};
use crate::model::{LockMode, LockProof, LockVerdict};
use crate::s3::{ObjectLock, Versioning};

/// Time before a proof without a verdict is repeated.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Time before a proof that these credentials could not finish is repeated. They may have more permissions by then.
pub const UNVERIFIABLE_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Shortest time from the end of a proof to a requested one.
pub const REQUESTED_AFTER: Duration = Duration::from_secs(60);

/// Largest number of proofs of a bucket that start within [`STARTS_WITHIN`], whatever started them.
pub const STARTS_MAX: usize = 12;

/// Largest number of requested proofs, which were not due, within [`STARTS_WITHIN`]. Repeated requests must not use up
/// the proofs that are due.
pub const REQUESTED_STARTS_MAX: usize = STARTS_MAX / 2;

/// See [`STARTS_MAX`].
pub const STARTS_WITHIN: Duration = Duration::from_secs(3600);

/// Number of intervals for which a verdict counts while it cannot be renewed.
pub const COUNTS_FOR_INTERVALS: u32 = 2;

/// Configuration for which a verdict is valid. It says nothing about another configuration. Settings for intervals and
/// for the consequences of a verdict are included, but do not affect the validity.
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
    /// Returns the mode in which canaries are locked. It is the mode of backups: the bucket's default if it has one.
    #[must_use]
    pub fn mode(&self) -> LockMode {
        let by_default = self.lock.default_retention.map(|retention| retention.mode);
        by_default.or(self.settings.mode).unwrap_or(LockMode::Governance)
    }

    /// Whether a verdict about `other` counts for this basis. Different credentials do not matter, because rotated
    /// credentials usually have the same permissions.
    #[must_use]
    pub fn has_same_subject_as(&self, other: &Self) -> bool {
        let of = |basis: &Self| {
            let (mode, prefix, retention) = (basis.mode(), basis.canary.prefix.clone(), basis.canary.retention);
            (basis.versioning, basis.lock.clone(), mode, prefix, retention, basis.rule.clone())
        };
        of(self) == of(other)
    }

    /// Whether a proof for `other` is also a proof for this basis.
    #[must_use]
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        self.has_same_subject_as(other) && self.access_key_id == other.access_key_id
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
    is_requested: bool,
}

/// The latest verdict, and the attempts to renew it.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    latest: Option<(LockProof, Instant, Basis)>,
    /// The latest verdict of another node, and when it ended.
    of_other: Option<(LockProof, Instant)>,
    not_before: Option<Instant>,
    starts: VecDeque<Start>,
}

impl Schedule {
    /// Returns the verdict that counts now.
    #[must_use]
    pub fn verdict(&self, basis: &Basis, now: Instant) -> Option<&LockProof> {
        let (_, _, about) = self.latest.as_ref()?;
        if about.has_same_subject_as(basis) { self.latest_verdict(basis.settings.interval, now) } else { None }
    }

    /// Returns the latest verdict that has not expired, for whatever basis.
    #[must_use]
    pub fn latest_verdict(&self, interval: Duration, now: Instant) -> Option<&LockProof> {
        let (proof, ended, _) = self.latest.as_ref()?;
        (now < *ended + interval * COUNTS_FOR_INTERVALS).then_some(proof)
    }

    /// Returns when the next proof is due. `requested`: whether a client requested one.
    #[must_use]
    pub fn due(&self, basis: &Basis, requested: bool, now: Instant) -> Due {
        let is_counted = |start: &&Start| start.is_requested && now < start.at + STARTS_WITHIN;
        let requested = requested && self.starts.iter().filter(is_counted).count() < REQUESTED_STARTS_MAX;
        let wanted = match &self.latest {
            Some((proof, ended, about)) if about.is_equivalent_to(basis) => {
                let again = match proof.verdict {
                    _ if requested => REQUESTED_AFTER,
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
        let is_requested = self.due(basis, false, now) != Due::Now;
        if self.starts.len() >= STARTS_MAX {
            self.starts.pop_front();
        }
        self.starts.push_back(Start { at: now, is_requested });
    }

    /// Records the verdict of a proof.
    pub fn found(&mut self, proof: LockProof, basis: Basis, now: Instant) {
        self.latest = Some((proof, now, basis));
        self.not_before = None;
    }

    /// Records the verdict of another node for the same basis, unless this node found it or a newer one. The clocks of
    /// the nodes may differ, and the clock of this node may have been set. So verdicts are compared by the monotonic
    /// times at which they ended. The age of a verdict of another node is measured once, when it is first seen.
    pub fn adopt(&mut self, proof: LockProof, basis: Basis, now: Instant) {
        let seen = self.of_other.as_ref().filter(|(seen, _)| *seen == proof).map(|(_, ended)| *ended);
        let age = || Timestamp::now().duration_since(proof.proved_at).max(SignedDuration::ZERO).unsigned_abs();
        let Some(ended) = seen.or_else(|| now.checked_sub(age())) else { return };
        self.of_other = Some((proof.clone(), ended));
        let is_kept = |(own, own_ended, about): &(LockProof, Instant, Basis)| {
            // A node that lost its claim gets its own verdict back.
            let is_same = own.proved_at == proof.proved_at;
            own.node.is_none() && (is_same || *own_ended >= ended) && about.has_same_subject_as(&basis)
        };
        if !self.latest.as_ref().is_some_and(is_kept) {
            self.latest = Some((proof, ended, basis));
        }
    }

    /// Returns the latest verdict that this node found.
    #[must_use]
    pub fn own_verdict(&self, basis: &Basis, now: Instant) -> Option<&LockProof> {
        self.verdict(basis, now).filter(|proof| proof.node.is_none())
    }

    /// Records a proof that ended without a verdict or could not start.
    pub fn not_before(&mut self, at: Instant) {
        self.not_before = Some(at);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::settings::AgentSettings;
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
        let lock = ObjectLock { enabled: Some(true), default_retention: None };
        Basis { versioning: Versioning::Enabled, lock, settings, canary, rule: None, access_key_id: "AKIA".to_owned() }
    }

    fn proof(verdict: LockVerdict) -> LockProof {
        LockProof { verdict, why: "seen".to_owned(), proved_at: Timestamp::UNIX_EPOCH, node: None }
    }

    #[test]
    fn proof_is_due_at_its_interval_or_sooner_on_request_or_if_unverifiable() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(&basis(), false, start), Due::Now);
        for (verdict, requested, after) in [
            (LockVerdict::Enforced, false, DAY),
            (LockVerdict::Bypassable, false, DAY),
            (LockVerdict::NotEnforced, false, DAY),
            (LockVerdict::Unverifiable, false, UNVERIFIABLE_RETRY_AFTER),
            (LockVerdict::Enforced, true, REQUESTED_AFTER),
            (LockVerdict::Unverifiable, true, REQUESTED_AFTER),
        ] {
            schedule.found(proof(verdict), basis(), start);
            assert_eq!(schedule.due(&basis(), requested, start), Due::At(start + after), "{verdict} {requested}");
            assert_eq!(schedule.due(&basis(), requested, start + after), Due::Now, "{verdict} {requested}");
        }
    }

    #[test]
    fn verdict_counts_for_its_configuration_and_two_intervals() {
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
    fn verdict_counts_when_only_intervals_and_strictness_change() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.found(proof(LockVerdict::Enforced), basis(), start);
        let mut other = basis();
        (other.settings.strict, other.settings.min_retention) = (true, DAY);
        (other.settings.interval, other.canary.interval) = (DAY / 2, DAY);
        other.canary.enabled = false;
        assert!(schedule.verdict(&other, start + DAY - Duration::from_secs(1)).is_some());
        assert_eq!(schedule.verdict(&other, start + DAY), None, "two of the current intervals");
        assert_eq!(schedule.due(&other, false, start), Due::At(start + DAY / 2));
    }

    #[test]
    fn verdict_counts_and_is_renewed_at_once_with_other_credentials() {
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
    fn canary_is_locked_in_the_mode_of_backups_or_else_as_configured() {
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
    fn repeated_requests_leave_room_for_a_proof_that_is_due() {
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
        assert_eq!(begun, 1 + REQUESTED_STARTS_MAX);
        let mut other = basis();
        other.lock.default_retention =
            Some(DefaultRetention { mode: LockMode::Governance, length: RetentionLength::Days(1) });
        assert_eq!(schedule.due(&other, false, start + STARTS_WITHIN - Duration::from_secs(1)), Due::Now);
    }

    #[test]
    fn interrupted_proof_keeps_the_verdict_and_waits() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.found(proof(LockVerdict::Enforced), basis(), start);
        schedule.begin(&basis(), start + DAY);
        schedule.not_before(start + DAY + RETRY_AFTER);
        assert!(schedule.verdict(&basis(), start + DAY).is_some());
        assert_eq!(schedule.due(&basis(), true, start + DAY), Due::At(start + DAY + RETRY_AFTER));
    }

    /// The proof of a node, or of this one, that ended at a time.
    fn proof_of(node: Option<&str>, proved_at: Timestamp) -> LockProof {
        LockProof { proved_at, node: node.map(str::to_owned), ..proof(LockVerdict::Enforced) }
    }

    #[test]
    fn verdict_of_another_node_counts_as_long_as_an_own_one() {
        let (now, basis) = (Instant::now() + DAY * 3, basis());
        let found = |age: Duration, node| proof_of(node, Timestamp::now() - age);
        let mut schedule = Schedule::default();
        schedule.adopt(found(DAY / 2, Some("b")), basis.clone(), now);
        assert_eq!(schedule.verdict(&basis, now).and_then(|proof| proof.node.clone()).as_deref(), Some("b"));
        assert_eq!(schedule.own_verdict(&basis, now), None);
        assert!(schedule.verdict(&basis, now + DAY).is_some() && schedule.verdict(&basis, now + DAY * 2).is_none());
        // The clock of the former holder was ahead.
        let ahead = proof_of(Some("c"), Timestamp::now() + DAY * 30);
        schedule.adopt(ahead.clone(), basis.clone(), now);
        schedule.adopt(ahead, basis.clone(), now + DAY);
        assert!(schedule.verdict(&basis, now + DAY * 2).is_none(), "it is not younger than it is known here");
        schedule.adopt(found(DAY, Some("b")), basis.clone(), now);
        assert_eq!(schedule.verdict(&basis, now).and_then(|proof| proof.node.clone()).as_deref(), Some("b"));
        schedule.found(found(Duration::ZERO, None), basis.clone(), now);
        schedule.adopt(found(DAY, Some("c")), basis.clone(), now);
        assert!(schedule.own_verdict(&basis, now).is_some());
    }

    #[test]
    fn verdict_that_comes_back_to_its_node_stays_its_own() {
        let (now, basis) = (Instant::now() + DAY, basis());
        for clock_was_ahead in [Duration::ZERO, DAY * 30] {
            let proved_at = Timestamp::now() + clock_was_ahead;
            let mut schedule = Schedule::default();
            schedule.found(proof_of(None, proved_at), basis.clone(), now - DAY);
            schedule.adopt(proof_of(Some("this"), proved_at), basis.clone(), now);
            assert!(schedule.own_verdict(&basis, now).is_some());
            assert_eq!(schedule.verdict(&basis, now + DAY * 2), None, "it counts for longer");
        }
    }

    #[test]
    fn verdict_found_while_the_clock_was_ahead_does_not_outlast_one_of_another_node() {
        let (now, basis) = (Instant::now() + DAY * 3, basis());
        let node = |schedule: &Schedule, at| schedule.verdict(&basis, at).map(|proof| proof.node.clone());
        let mut schedule = Schedule::default();
        schedule.found(proof_of(None, Timestamp::now() + DAY * 30), basis.clone(), now - DAY);
        schedule.adopt(proof_of(Some("b"), Timestamp::now()), basis.clone(), now);
        assert_eq!(node(&schedule, now), Some(Some("b".to_owned())));
        assert!(node(&schedule, now + DAY).is_some(), "two intervals of its own verdict have passed");

        // The clock of the other node is ahead. Its proof is not newer at each probe.
        let ahead = proof_of(Some("c"), Timestamp::now() + DAY * 30);
        schedule.adopt(ahead.clone(), basis.clone(), now);
        schedule.found(proof_of(None, Timestamp::now()), basis.clone(), now + DAY / 2);
        schedule.adopt(ahead, basis.clone(), now + DAY);
        assert_eq!(node(&schedule, now + DAY), Some(None));
    }

    #[test]
    fn verdict_of_another_node_counts_after_the_access_rule_of_this_node_has_changed() {
        let (now, former) = (Instant::now(), basis());
        let changed = Basis { rule: AgentSettings::quiet().s3_access.pop(), ..basis() };
        assert!(!changed.has_same_subject_as(&former) && changed.access_key_id == former.access_key_id);
        let of_other = proof_of(Some("b"), Timestamp::now());
        let [mut using, mut finding] = [Schedule::default(), Schedule::default()];
        using.adopt(of_other.clone(), former.clone(), now);
        finding.found(proof_of(None, Timestamp::now()), former, now + DAY);
        for mut schedule in [using, finding] {
            schedule.adopt(of_other.clone(), changed.clone(), now + DAY);
            assert!(schedule.verdict(&changed, now + DAY).is_some());
        }
    }

    #[test]
    fn proofs_never_exceed_the_limit() {
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
