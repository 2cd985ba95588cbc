//! States of the lease of a node. Pure functions without etcd and without a clock.
//!
//! | state | event | next state | next action |
//! |---|---|---|---|
//! | none | granted | granted | register at once |
//! | granted, uncertain or held | register: the key belongs to this process | held | renew at the interval |
//! | granted | register: the key belongs to another process | granted | renew and register again, until the key has ended |
//! | held | renewed, and the key exists | held | renew at the interval |
//! | held or granted | etcd says that the lease has ended | none | grant at once |
//! | held or uncertain | renewed, but the key does not exist | granted | register at once |
//! | held | no answer, and the time to live has not passed | held | renew after a backoff |
//! | held | no answer, and the time to live has passed | uncertain | renew after a backoff |
//! | none or granted | no answer | the same | the same, after a backoff |
//! | any | a larger fleet needs a longer time to live | none | grant at once |
//!
//! An error never loses the lease: only an answer of etcd does. The time to live is counted from before the request, so
//! a lease that is held here has not ended in etcd. After it, the node does not know, and makes no claims.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::etcd::{LeaseId, shortest_interval, stretched};

/// Longest time without an answer of a healthy etcd: while it defragments.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// Shortest time to live.
pub(crate) const TTL_MIN: Duration = Duration::from_secs(60);

/// Most and fewest renewals in a time to live. A renewal that fails is repeated after a backoff, so two are enough if
/// the time to live is long.
const RENEWALS_IN_TTL: (u32, u32) = (3, 2);

/// First and longest backoff.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Part of the interval of renewals by which it varies.
const JITTER: f64 = 0.2;

/// Returns the time to live for a fleet of this size.
pub(crate) fn ttl_for(nodes: u64) -> Duration {
    let (most, _) = RENEWALS_IN_TTL;
    stretched(TTL_MIN / most, nodes) * most
}

/// Returns the mean time between two renewals. If etcd is silent when one is due, the next one is still in time.
fn renewal_interval(ttl: Duration) -> Duration {
    let (most, fewest) = RENEWALS_IN_TTL;
    ttl.saturating_sub(SILENCE_MAX).div_f64(1.0 + JITTER).clamp(ttl / most, ttl / fewest)
}

/// Returns the longest delay before the first registration, so that a fleet that starts together is spread.
pub(crate) fn spread_for(nodes: u64) -> Duration {
    shortest_interval(nodes).min(TTL_MIN)
}

/// Returns a random backoff after this number of failures in a row ("full jitter").
pub(crate) fn backoff(failures: u32, random: f64) -> Duration {
    let (first, longest) = BACKOFF;
    let most = first.saturating_mul(1 << failures.clamp(1, 7)).min(longest);
    first + (most - first).mul_f64(random)
}

/// The state of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// There is none.
    None,
    /// etcd granted it, and the key of this node does not end with it.
    Granted(LeaseId),
    /// The key of this node ends with it.
    Held(LeaseId),
    /// It may have ended.
    Uncertain(LeaseId),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseAction {
    /// Request a lease.
    Grant,
    /// Write the key of this node with the lease.
    Register(LeaseId),
    /// Renew the lease.
    Renew(LeaseId),
}

/// Another process with the name of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contender {
    instance: Uuid,
    /// When its key has ended, unless the process renews it.
    ends: Instant,
}

/// The lease of a node, with the next action and its time.
#[derive(Debug)]
pub(crate) struct NodeLease {
    state: LeaseState,
    ttl: Duration,
    /// Until when etcd keeps the lease at least.
    until: Instant,
    next: (Instant, LeaseAction),
    failures: u32,
    contender: Option<Contender>,
}

impl NodeLease {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: LeaseState::None,
            ttl: TTL_MIN,
            until: now,
            next: (now, LeaseAction::Grant),
            failures: 0,
            contender: None,
        }
    }

    /// Returns the state.
    pub(crate) fn state(&self, now: Instant) -> LeaseState {
        match self.state {
            LeaseState::Held(lease) if now >= self.until => LeaseState::Uncertain(lease),
            state => state,
        }
    }

    /// Returns the lease if claims can be made with it.
    pub(crate) fn held(&self, now: Instant) -> Option<LeaseId> {
        match self.state(now) {
            LeaseState::Held(lease) => Some(lease),
            _ => None,
        }
    }

    /// Time to live of the lease.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns what to do next, and when.
    pub(crate) fn next(&self) -> (Instant, LeaseAction) {
        self.next
    }

    /// Whether another process renews the key of this node: its key exists for longer than it would without renewals.
    pub(crate) fn has_duplicate(&self, now: Instant) -> bool {
        self.contender.is_some_and(|contender| now > contender.ends)
    }

    /// etcd granted a lease. The request was sent at `asked`.
    pub(crate) fn granted(&mut self, lease: LeaseId, ttl: Duration, asked: Instant, now: Instant) {
        (self.state, self.ttl, self.until) = (LeaseState::Granted(lease), ttl, asked + ttl);
        self.next = (now, LeaseAction::Register(lease));
    }

    /// The key of this node ends with the lease.
    pub(crate) fn registered(&mut self, now: Instant, random: f64) {
        let (LeaseState::Granted(lease) | LeaseState::Held(lease) | LeaseState::Uncertain(lease)) = self.state else {
            return;
        };
        (self.state, self.failures, self.contender) = (LeaseState::Held(lease), 0, None);
        self.renew_later(lease, now, random);
    }

    /// The key of this node belongs to another process, and ends after `ttl` unless that process renews it.
    pub(crate) fn is_taken(&mut self, instance: Uuid, ttl: Duration, now: Instant, random: f64) {
        let known = self.contender.filter(|contender| contender.instance == instance);
        // The process may have renewed it just before. etcd revokes at most 1,000 leases a second, so it may be late.
        self.contender = known.or(Some(Contender { instance, ends: now + ttl + ttl / 4 }));
        let (LeaseState::Granted(lease) | LeaseState::Held(lease) | LeaseState::Uncertain(lease)) = self.state else {
            return;
        };
        (self.state, self.failures) = (LeaseState::Granted(lease), 0);
        self.renew_later(lease, now, random);
    }

    /// etcd renewed the lease. The request was sent at `asked`. `is_registered`: whether the key of this node exists
    /// and ends with the lease.
    pub(crate) fn renewed(&mut self, ttl: Duration, is_registered: bool, asked: Instant, now: Instant, random: f64) {
        let (LeaseState::Granted(lease) | LeaseState::Held(lease) | LeaseState::Uncertain(lease)) = self.state else {
            return;
        };
        (self.ttl, self.until, self.failures) = (ttl, asked + ttl, 0);
        if is_registered {
            // A transaction whose answer was lost may have made the key.
            (self.state, self.contender) = (LeaseState::Held(lease), None);
            self.renew_later(lease, now, random);
        } else {
            self.state = LeaseState::Granted(lease);
            self.next = (now, LeaseAction::Register(lease));
        }
    }

    /// etcd says that the lease has ended, or it is given up.
    pub(crate) fn ended(&mut self, now: Instant) {
        (self.state, self.next) = (LeaseState::None, (now, LeaseAction::Grant));
    }

    /// The latest action had no answer, or was refused. Says nothing about the lease.
    pub(crate) fn failed(&mut self, now: Instant, random: f64) {
        self.failures = self.failures.saturating_add(1);
        self.state = self.state(now);
        self.next.0 = now + backoff(self.failures, random);
    }

    /// Waits before the next action, without a failure.
    pub(crate) fn postpone(&mut self, now: Instant, random: f64) {
        self.next.0 = now + self.interval(random);
    }

    fn renew_later(&mut self, lease: LeaseId, now: Instant, random: f64) {
        self.next = (now + self.interval(random), LeaseAction::Renew(lease));
    }

    fn interval(&self, random: f64) -> Duration {
        renewal_interval(self.ttl).mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId(7);

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(now: Instant) -> NodeLease {
        let mut lease = NodeLease::new(now);
        lease.granted(LEASE, TTL_MIN, now, now);
        assert_eq!(lease.next(), (now, LeaseAction::Register(LEASE)));
        lease.registered(now, 0.5);
        assert_eq!(
            (lease.state(now), lease.next()),
            (LeaseState::Held(LEASE), (now + second(20), LeaseAction::Renew(LEASE)))
        );
        lease
    }

    #[test]
    fn time_to_live_grows_with_the_fleet() {
        for (nodes, seconds, spread) in
            [(0, 60, 0), (1, 60, 0), (100, 60, 0), (1_000, 120, 4), (10_000, 180, 40), (100_000, 1200, 60)]
        {
            assert_eq!((ttl_for(nodes), spread_for(nodes).as_secs()), (second(seconds), spread), "{nodes}");
            let each_second =
                f64::from(u32::try_from(nodes).expect("small")) / renewal_interval(ttl_for(nodes)).as_secs_f64();
            assert!(each_second <= 250.0, "{nodes}: {each_second}");
        }
        assert!(ttl_for(u64::MAX) > TTL_MIN);
    }

    #[test]
    fn long_leases_are_renewed_twice_and_survive_a_silent_etcd() {
        for (ttl, interval) in [(60, 20), (90, 42), (120, 60), (180, 90), (1200, 600)] {
            let found = renewal_interval(second(ttl));
            assert_eq!(found.as_secs_f64().round(), f64::from(interval), "{ttl}");
            let longest = found.mul_f64(1.0 + JITTER);
            assert!(ttl == 60 || longest + SILENCE_MAX <= second(ttl), "{ttl}");
            // A renewal shows changes of the registry, which arrive within two intervals of comparisons.
            assert!(longest <= second(ttl).mul_f64(0.6001) && second(ttl) / 3 * 2 > longest, "{ttl}");
        }
    }

    #[test]
    fn backoff_is_random_between_one_second_and_a_minute() {
        let bounds = |failures| (backoff(failures, 0.0), backoff(failures, 1.0));
        assert_eq!(bounds(1), (second(1), second(2)));
        assert_eq!(bounds(4), (second(1), second(16)));
        for failures in [6, 7, 100, u32::MAX] {
            assert_eq!(bounds(failures), (second(1), second(60)), "{failures}");
        }
    }

    #[test]
    fn errors_make_a_lease_uncertain_and_never_lost() {
        let start = Instant::now();
        let mut lease = held(start);
        for at in [20, 40, 59] {
            lease.failed(start + second(at), 0.0);
            assert_eq!(lease.held(start + second(at)), Some(LEASE), "{at}");
            assert_eq!(lease.next(), (start + second(at + 1), LeaseAction::Renew(LEASE)));
        }
        assert_eq!(lease.state(start + TTL_MIN), LeaseState::Uncertain(LEASE));
        lease.failed(start + second(600), 0.0);
        assert_eq!(lease.state(start + second(600)), LeaseState::Uncertain(LEASE));
        // etcd kept it: the times to live start again with each election.
        lease.renewed(TTL_MIN, true, start + second(601), start + second(602), 0.5);
        assert_eq!(lease.held(start + second(660)), Some(LEASE));
        assert_eq!(lease.held(start + second(661)), None);
    }

    #[test]
    fn time_to_live_counts_from_before_the_request() {
        let start = Instant::now();
        let mut lease = NodeLease::new(start);
        lease.granted(LEASE, TTL_MIN, start, start + second(5));
        lease.registered(start + second(9), 0.0);
        assert!(lease.held(start + second(59)).is_some() && lease.held(start + second(60)).is_none());
    }

    #[test]
    fn lost_lease_is_replaced_at_once() {
        let start = Instant::now();
        let mut lease = held(start);
        lease.ended(start + second(20));
        assert_eq!(lease.next(), (start + second(20), LeaseAction::Grant));
        assert_eq!(lease.held(start + second(20)), None);
    }

    #[test]
    fn missing_key_is_registered_again_with_the_same_lease() {
        let start = Instant::now();
        let mut lease = held(start);
        let now = start + second(20);
        lease.renewed(TTL_MIN, false, now, now, 0.5);
        assert_eq!((lease.held(now), lease.next()), (None, (now, LeaseAction::Register(LEASE))));
    }

    #[test]
    fn node_id_is_a_duplicate_when_its_key_outlives_the_time_to_live() {
        let start = Instant::now();
        let mut lease = NodeLease::new(start);
        let other = Uuid::from_u128(1);
        lease.granted(LEASE, TTL_MIN, start, start);
        for at in [0, 30, 75] {
            lease.is_taken(other, TTL_MIN, start + second(at), 0.5);
            assert!(!lease.has_duplicate(start + second(at)), "{at}: it may be this host before its restart");
            assert_eq!(lease.held(start + second(at)), None);
        }
        lease.is_taken(other, TTL_MIN, start + second(76), 0.5);
        assert!(lease.has_duplicate(start + second(76)));
        // A third process begins anew.
        lease.is_taken(Uuid::from_u128(2), TTL_MIN, start + second(80), 0.5);
        assert!(!lease.has_duplicate(start + second(80)));
        lease.registered(start + second(90), 0.5);
        assert!(!lease.has_duplicate(start + second(900)));
    }
}
