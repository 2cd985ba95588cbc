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

mod fact;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::{TargetId, random_fraction};
pub use fact::{FactKey, FactKind, SharedFact};

/// Longest wait for a fact that another node finds.
pub const WAIT_MAX: Duration = Duration::from_secs(120);

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
