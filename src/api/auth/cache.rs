//! What is known of tokens: good ones, bad ones, and those that are being asked about.
//!
//! Tokens are kept as their SHA-256 only. Good and bad ones have places of their own, so that a
//! flood of bad ones pushes out no good one; both are bounded, and the one that was longest not used
//! goes first. Nothing is remembered past its time, nor a good token past its own end, which is
//! looked at by the host's clock at each use: a host may sleep.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lru::LruCache;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Identity;

/// The most tokens that are being asked about at the same time: one for each connection.
const FLIGHTS_MAX: usize = 2048;

/// A good token is asked about again before its time is over, when this part of it is gone and it is
/// used: who polls never waits.
const REFRESHED_AFTER: f64 = 0.8;

/// What stands for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(super) fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What was found out about a token.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// It is this one's, until then.
    Good(Arc<Identity>, Timestamp),
    /// It is unknown, has ended or was revoked.
    Bad,
    /// Keystone did not say.
    Unknown,
}

/// Where a question's answer will be.
pub(super) type Flight = watch::Receiver<Option<Verdict>>;

/// What there is about a token.
pub(super) enum Found {
    /// It is good.
    Good(Arc<Identity>),
    /// It is good, and should be asked about again, by who has this.
    Stale(Arc<Identity>, watch::Sender<Option<Verdict>>),
    /// It is bad.
    Bad,
    /// Somebody is asking.
    Flying(Flight),
    /// Nothing; who has this asks.
    Nothing(watch::Sender<Option<Verdict>>, Flight),
    /// Nothing, and too many are being asked about.
    Full,
}

#[derive(Debug)]
pub(super) struct TokenCache {
    good: LruCache<TokenHash, Good>,
    bad: LruCache<TokenHash, Instant>,
    flights: HashMap<TokenHash, Flight>,
    good_for: Duration,
    bad_for: Duration,
}

#[derive(Debug)]
struct Good {
    identity: Arc<Identity>,
    since: Instant,
    expires_at: Timestamp,
}

impl TokenCache {
    pub(super) fn new(entries: usize, good_for: Duration, bad_for: Duration) -> Self {
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        // Not of their full size from the start: most agents see a handful of tokens.
        let (mut good, mut bad) = (LruCache::unbounded(), LruCache::unbounded());
        good.resize(entries);
        bad.resize(entries);
        Self { good, bad, flights: HashMap::new(), good_for, bad_for }
    }

    pub(super) fn find(&mut self, hash: TokenHash) -> Found {
        if let Some(good) = self.good.get(&hash) {
            let age = good.since.elapsed();
            if age < self.good_for && Timestamp::now() < good.expires_at {
                let identity = good.identity.clone();
                let is_stale = age > self.good_for.mul_f64(REFRESHED_AFTER);
                return match self.take_off(hash, is_stale) {
                    Some((sender, _)) => Found::Stale(identity, sender),
                    None => Found::Good(identity),
                };
            }
            self.good.pop(&hash);
        }
        if let Some(since) = self.bad.get(&hash) {
            if since.elapsed() < self.bad_for {
                return Found::Bad;
            }
            self.bad.pop(&hash);
        }
        if let Some(flight) = self.flights.get(&hash) {
            return Found::Flying(flight.clone());
        }
        match self.take_off(hash, true) {
            Some((sender, flight)) => Found::Nothing(sender, flight),
            None => Found::Full,
        }
    }

    fn take_off(&mut self, hash: TokenHash, wanted: bool) -> Option<(watch::Sender<Option<Verdict>>, Flight)> {
        if !wanted || self.flights.len() >= FLIGHTS_MAX || self.flights.contains_key(&hash) {
            return None;
        }
        let (sender, flight) = watch::channel(None);
        self.flights.insert(hash, flight.clone());
        Some((sender, flight))
    }

    /// A question has been answered, or given up.
    pub(super) fn land(&mut self, hash: TokenHash, verdict: &Verdict) {
        self.flights.remove(&hash);
        match verdict {
            Verdict::Good(identity, expires_at) => {
                let good = Good { identity: identity.clone(), since: Instant::now(), expires_at: *expires_at };
                self.bad.pop(&hash);
                self.good.put(hash, good);
            }
            Verdict::Bad => {
                self.good.pop(&hash);
                self.bad.put(hash, Instant::now());
            }
            Verdict::Unknown => {}
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.good.len(), self.bad.len(), self.flights.len())
    }
}
