//! Facts of targets that one node finds for all nodes of a fleet.
//!
//! The drivers and the fleet meet at the [`FactBoard`], in memory. A driver asks whether it finds a fact itself or uses
//! one that another node found ([`Turn`]), and posts what it found. The fleet exchanges both with the other nodes. So
//! no probe waits for the fleet, and a process without a fleet has no board.
//!
//! | this node | a fact for the same access key and configuration | turn |
//! |---|---|---|
//! | holds the claim | any | find |
//! | does not hold it | recent | use |
//! | does not hold it | none, or too old | wait, at most [`WAIT_MAX`], and then find |
//! | has no connection to the fleet, or a target that the fleet does not have | none, or too old | find |
//!
//! Nodes with another access key or configuration have another [`FactKey`], and so a holder of their own.
//!
//! A driver does not wait for the state of a bucket. Until another node watches the bucket, it asks the bucket itself,
//! and more rarely if the other nodes cannot be heard.
//!
//! Nodes that lose the connection together would all find a fact at the moment when it gets too old. So each begins at
//! a random time in the second half of its age limit.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::{TargetId, random_fraction};

/// Longest wait for a fact that another node finds.
pub const WAIT_MAX: Duration = Duration::from_secs(120);

/// A kind of fact that nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKind {
    /// The proof of an object lock.
    LockProof,
    /// The usage of a bucket that was counted by a listing.
    UsageListing,
    /// Whether a bucket is available, according to the node that watches it.
    Bucket,
}

impl FactKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::LockProof, Self::UsageListing, Self::Bucket];

    /// Returns its name in keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LockProof => "lock_proof",
            Self::UsageListing => "usage_listing",
            Self::Bucket => "bucket",
        }
    }
}

/// Which fact: nodes that have the same key share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey {
    /// The target.
    pub target: TargetId,
    /// The kind of fact.
    pub kind: FactKind,
    /// What must be equal on all nodes: a digest of the access key and of the configuration for which it is valid.
    pub subject: String,
}

/// A fact that a node found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFact {
    /// Name of the node. Empty while only this one knows the fact.
    pub node: String,
    /// When it was found, by the clock of that node.
    pub observed_at: Timestamp,
    /// The value, as JSON.
    pub value: String,
}

/// Whether this node finds the facts of a target for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FactRole {
    /// Another node does, or it is not decided yet.
    #[default]
    Other,
    /// This node does.
    Holder,
    /// There is no connection to the other nodes.
    Alone,
    /// The registry that the nodes share does not have the target.
    Unregistered,
}

impl FactRole {
    /// Whether no other node will tell this one of a fact.
    const fn has_no_other(self) -> bool {
        matches!(self, Self::Alone | Self::Unregistered)
    }
}

/// How a driver gets a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It finds the fact.
    Find,
    /// It uses this fact of another node.
    Use(SharedFact),
    /// It waits until another node has found the fact.
    Wait,
}

/// What a driver needs to know.
#[derive(Debug, Clone, Copy)]
pub struct FactQuestion<'a> {
    /// The fact.
    pub key: &'a FactKey,
    /// Largest age of a fact of another node.
    pub age_max: Duration,
    /// Time for which the driver needs the fact, unless it asks again.
    pub wanted_for: Duration,
}

/// Number of targets by how their drivers get a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactCount {
    /// Number of targets for which this node finds the fact for all nodes.
    pub held: u64,
    /// Number of targets for which it uses the fact of another node.
    pub used: u64,
    /// Age of the oldest fact of another node that is used.
    pub oldest: Option<Duration>,
}

#[derive(Debug)]
struct Entry {
    /// Part of the age limit at which a node without a connection finds the fact itself.
    age_part_alone: f64,
    /// Whether the driver uses the fact of another node.
    is_used: bool,
    wanted_until: Instant,
    waiting_since: Option<Instant>,
    role: FactRole,
    received: Option<(SharedFact, Instant)>,
    found: Option<SharedFact>,
}

/// Size of the fleet, as far as it sets the pace of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FleetPace {
    /// Number of nodes.
    pub nodes: u64,
    /// Longest time between two looks at the facts of the other nodes.
    pub look_interval: Duration,
}

/// Where drivers and the fleet exchange facts.
#[derive(Debug, Default)]
pub struct FactBoard {
    entries: Mutex<HashMap<FactKey, Entry>>,
    pace: Mutex<FleetPace>,
    /// Wakes the fleet.
    changed: Notify,
    /// Wakes drivers that use a fact.
    news: Notify,
}

impl FactBoard {
    fn entries(&self) -> MutexGuard<'_, HashMap<FactKey, Entry>> {
        // Each change is complete when the lock is released.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how the driver of a target, which was just reached, gets a fact.
    pub fn turn(&self, question: FactQuestion<'_>) -> Turn {
        let (now, clock) = (Instant::now(), Timestamp::now());
        let FactQuestion { key, age_max, wanted_for } = question;
        let mut entries = self.entries();
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            self.changed.notify_one();
            Entry {
                age_part_alone: 0.5 + 0.5 * random_fraction(),
                is_used: false,
                wanted_until: now,
                waiting_since: None,
                role: FactRole::Other,
                received: None,
                found: None,
            }
        });
        entry.is_used = false;
        entry.wanted_until = now + wanted_for;
        if entry.role == FactRole::Holder {
            entry.waiting_since = None;
            return Turn::Find;
        }
        if let Some((fact, received)) = &entry.received {
            let part = if entry.role.has_no_other() { entry.age_part_alone } else { 1.0 };
            let age_max = age_max.mul_f64(part);
            if age(fact, *received, clock) < age_max {
                (entry.waiting_since, entry.is_used) = (None, true);
                return Turn::Use(fact.clone());
            }
        }
        if key.kind == FactKind::Bucket {
            return Turn::Find;
        }
        let waiting_since = *entry.waiting_since.get_or_insert(now);
        if entry.role.has_no_other() || now.saturating_duration_since(waiting_since) > WAIT_MAX {
            Turn::Find
        } else {
            Turn::Wait
        }
    }

    /// Notes that this node does not need the facts of a target any more, so that another node finds them.
    pub fn withdraw(&self, target: TargetId) {
        let now = Instant::now();
        for (_, entry) in self.entries().iter_mut().filter(|(key, _)| key.target == target) {
            (entry.wanted_until, entry.waiting_since) = (now, None);
        }
        self.changed.notify_one();
    }

    /// Posts a fact that this node found. It is shared if this node holds the claim and the other nodes do not know it.
    pub fn post(&self, key: &FactKey, fact: SharedFact) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key).filter(|entry| entry.role == FactRole::Holder) else {
            return;
        };
        let is_same = |known: &SharedFact| known.observed_at == fact.observed_at;
        if entry.found.as_ref().is_some_and(is_same) || entry.received.as_ref().is_some_and(|(known, _)| is_same(known))
        {
            return;
        }
        entry.found = Some(fact);
        self.changed.notify_one();
    }

    /// Counts the targets by how their drivers get this fact.
    #[must_use]
    pub fn count(&self, kind: FactKind) -> FactCount {
        let (entries, now, clock) = (self.entries(), Instant::now(), Timestamp::now());
        // A former access key of this node has an entry until it is forgotten.
        let is_current = |key: &FactKey, entry: &Entry| key.kind == kind && now < entry.wanted_until;
        let of_kind = || entries.iter().filter(|(key, entry)| is_current(key, entry)).map(|(_, entry)| entry);
        let used = || of_kind().filter(|entry| entry.is_used).filter_map(|entry| entry.received.as_ref());
        FactCount {
            held: of_kind().filter(|entry| entry.role == FactRole::Holder).count() as u64,
            used: used().count() as u64,
            oldest: used().map(|(fact, received)| age(fact, *received, clock)).max(),
        }
    }

    /// Extends the time for which the driver of a target needs the facts that it still needs.
    pub fn renew(&self, target: TargetId, wanted_for: Duration) {
        let now = Instant::now();
        for (_, entry) in self.entries().iter_mut().filter(|(key, _)| key.target == target) {
            if now < entry.wanted_until {
                entry.wanted_until = entry.wanted_until.max(now + wanted_for);
            }
        }
    }

    /// Waits until a fact is no longer one that `is_current` accepts, or until this node finds it for all. Dropping the
    /// future is safe.
    pub async fn outdated(&self, key: &FactKey, is_current: impl Fn(&SharedFact) -> bool) {
        loop {
            let mut news = pin!(self.news.notified());
            // Before the fact is read, so that no news after it is missed.
            news.as_mut().enable();
            let is_outdated = self.entries().get(key).is_some_and(|entry| {
                let is_known = entry.received.as_ref().is_some_and(|(fact, _)| is_current(fact));
                entry.role == FactRole::Holder || !is_known
            });
            if is_outdated {
                return;
            }
            news.await;
        }
    }

    /// Sets the pace of the fleet.
    pub fn set_pace(&self, pace: FleetPace) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// Returns the pace of the fleet.
    #[must_use]
    pub fn pace(&self) -> FleetPace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a fact is needed for the first time, or found.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns the facts that drivers asked for, and whether they still need them. Forgets those that nobody asked for
    /// in `keep`.
    #[must_use]
    pub fn asked_for(&self, keep: Duration) -> Vec<(FactKey, bool)> {
        let now = Instant::now();
        let mut entries = self.entries();
        entries.retain(|_, entry| now < entry.wanted_until + keep);
        let mut asked: Vec<_> = entries.iter().map(|(key, entry)| (key.clone(), now < entry.wanted_until)).collect();
        asked.sort_unstable();
        asked
    }

    /// Whether other nodes may find the same fact at the same time, because they cannot be heard: there is no connection
    /// to them, or the one that found the fact has no news. This node does not find it for all.
    #[must_use]
    pub fn is_out_of_touch(&self, key: &FactKey) -> bool {
        self.entries().get(key).is_some_and(|entry| match entry.role {
            FactRole::Holder => false,
            FactRole::Alone => true,
            FactRole::Other | FactRole::Unregistered => entry.received.is_some(),
        })
    }

    /// Whether a driver waits for a fact.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let is_waiting = |entry: &Entry| entry.waiting_since.is_some_and(|since| since.elapsed() <= WAIT_MAX);
        self.entries().values().any(is_waiting)
    }

    /// Sets whether this node finds a fact for all.
    pub fn set_role(&self, key: &FactKey, role: FactRole) {
        if let Some(entry) = self.entries().get_mut(key) {
            if std::mem::replace(&mut entry.role, role) != role {
                self.news.notify_waiters();
            }
            if role != FactRole::Holder {
                entry.found = None;
            }
        }
    }

    /// Returns the fact to share, if there is one.
    #[must_use]
    pub fn found(&self, key: &FactKey) -> Option<SharedFact> {
        self.entries().get(key)?.found.clone()
    }

    /// The fact as the other nodes know it.
    pub fn receive(&self, key: &FactKey, fact: SharedFact) {
        if let Some(entry) = self.entries().get_mut(key) {
            if entry.found.as_ref().is_some_and(|found| found.observed_at <= fact.observed_at) {
                entry.found = None;
            }
            if entry.received.as_ref().is_none_or(|(known, _)| known.value != fact.value) {
                self.news.notify_waiters();
            }
            entry.received = Some((fact, Instant::now()));
        }
    }
}

/// Returns the age of a fact. The clocks of the nodes may differ, so a fact is at least as old as it is known here.
fn age(fact: &SharedFact, received: Instant, clock: Timestamp) -> Duration {
    clock.duration_since(fact.observed_at).max(SignedDuration::ZERO).unsigned_abs().max(received.elapsed())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    const TARGET: TargetId = Uuid::from_u128(1);
    const HOUR: Duration = Duration::from_hours(1);

    fn key(subject: &str) -> FactKey {
        FactKey { target: TARGET, kind: FactKind::LockProof, subject: subject.to_owned() }
    }

    fn ask(board: &FactBoard, subject: &str) -> Turn {
        board.turn(FactQuestion { key: &key(subject), age_max: HOUR, wanted_for: HOUR })
    }

    fn fact(age: Duration) -> SharedFact {
        SharedFact { node: "b".to_owned(), observed_at: Timestamp::now() - age, value: "{}".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn driver_waits_for_another_node_and_then_finds_the_fact_itself() {
        let board = FactBoard::default();
        assert_eq!((ask(&board, "s"), board.is_awaited()), (Turn::Wait, true));
        tokio::time::sleep(WAIT_MAX + Duration::from_secs(1)).await;
        assert_eq!((ask(&board, "s"), board.is_awaited()), (Turn::Find, false));
        let known = fact(Duration::ZERO);
        board.receive(&key("s"), known.clone());
        assert_eq!((ask(&board, "s"), board.is_awaited()), (Turn::Use(known), false));
        let FactCount { held, used, oldest } = board.count(FactKind::LockProof);
        assert!((held, used) == (0, 1) && oldest.is_some_and(|age| age < Duration::from_secs(60)), "{oldest:?}");
        board.set_role(&key("s"), FactRole::Holder);
        ask(&board, "s");
        assert_eq!(board.count(FactKind::LockProof), FactCount { held: 1, used: 0, oldest: None });
    }

    #[tokio::test(start_paused = true)]
    async fn fact_is_used_only_for_its_subject_and_until_its_age() {
        let board = FactBoard::default();
        ask(&board, "s");
        let other = fact(Duration::ZERO);
        assert_eq!(ask(&board, "other"), Turn::Wait);
        board.receive(&key("other"), other.clone());
        assert_eq!((ask(&board, "other"), ask(&board, "s")), (Turn::Use(other), Turn::Wait));
        board.receive(&key("s"), fact(HOUR));
        assert_eq!(ask(&board, "s"), Turn::Wait);
        // The clock of the other node is ahead.
        let early = SharedFact { observed_at: Timestamp::now() + HOUR, ..fact(Duration::ZERO) };
        board.receive(&key("s"), early.clone());
        assert_eq!(ask(&board, "s"), Turn::Use(early));
        tokio::time::sleep(HOUR).await;
        assert_eq!(ask(&board, "s"), Turn::Wait);
        board.set_role(&key("s"), FactRole::Alone);
        assert_eq!(ask(&board, "s"), Turn::Find);
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_without_a_connection_do_not_find_a_fact_together() {
        let finding = |part: f64| {
            let finds = |_: &u32| {
                let board = FactBoard::default();
                ask(&board, "s");
                board.receive(&key("s"), fact(HOUR.mul_f64(part)));
                assert_eq!(matches!(ask(&board, "s"), Turn::Use(_)), part < 1.0, "{part}: with a connection");
                board.set_role(&key("s"), FactRole::Alone);
                ask(&board, "s") == Turn::Find
            };
            (0..100).filter(finds).count()
        };
        assert_eq!(finding(0.45), 0);
        assert!((1..100).contains(&finding(0.75)));
        assert_eq!(finding(1.01), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_holder_shares_what_it_found_and_once() {
        let board = FactBoard::default();
        ask(&board, "s");
        let found = fact(Duration::ZERO);
        board.post(&key("s"), found.clone());
        assert_eq!(board.found(&key("s")), None);
        board.set_role(&key("s"), FactRole::Holder);
        assert_eq!(ask(&board, "s"), Turn::Find);
        board.post(&key("s"), found.clone());
        assert_eq!(board.found(&key("s")), Some(found.clone()));
        board.receive(&key("s"), found.clone());
        board.post(&key("s"), found);
        assert_eq!(board.found(&key("s")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn driver_does_not_wait_for_the_state_of_a_bucket_and_is_told_of_news() {
        let board = FactBoard::default();
        let key = FactKey { kind: FactKind::Bucket, ..key("s") };
        let ask = || board.turn(FactQuestion { key: &key, age_max: HOUR, wanted_for: HOUR });
        assert_eq!((ask(), board.is_awaited()), (Turn::Find, false));
        board.receive(&key, fact(Duration::ZERO));
        let mut outdated = pin!(board.outdated(&key, |fact| fact.value == "{}"));
        assert!(outdated.as_mut().now_or_never().is_none());
        // The same value, found later.
        board.receive(&key, fact(Duration::ZERO));
        assert!(outdated.as_mut().now_or_never().is_none());
        board.receive(&key, SharedFact { value: "bad".to_owned(), ..fact(Duration::ZERO) });
        outdated.await;
        let mut outdated = pin!(board.outdated(&key, |fact| fact.value == "bad"));
        assert!(outdated.as_mut().now_or_never().is_none());
        board.set_role(&key, FactRole::Holder);
        outdated.await;
    }

    #[tokio::test(start_paused = true)]
    async fn renewal_extends_only_what_is_needed() {
        let board = FactBoard::default();
        ask(&board, "old");
        tokio::time::sleep(HOUR).await;
        ask(&board, "s");
        tokio::time::sleep(HOUR / 2).await;
        board.renew(TARGET, HOUR);
        tokio::time::sleep(HOUR / 2).await;
        assert_eq!(board.asked_for(2 * HOUR), [(key("old"), false), (key("s"), true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn fact_that_nobody_asks_for_is_forgotten() {
        let board = FactBoard::default();
        ask(&board, "s");
        board.changed().await;
        assert_eq!(board.asked_for(HOUR), [(key("s"), true)]);
        tokio::time::sleep(HOUR).await;
        assert_eq!(board.asked_for(HOUR), [(key("s"), false)]);
        tokio::time::sleep(HOUR).await;
        assert_eq!(board.asked_for(HOUR), []);
    }
}
