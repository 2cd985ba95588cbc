//! Token cache: valid tokens, invalid tokens, and pending validations.
//!
//! Tokens are kept as their SHA-256 only. Valid and invalid tokens have separate LRU caches, so a flood of
//! invalid ones evicts no valid one. An entry expires after its cache time, and a valid token also at its
//! own expiry, by the host's clock at each use, since a host may sleep. A formerly valid token keeps its
//! entry after that, so that its revalidation does not queue behind unknown tokens.
//!
//! After Keystone has failed, no validation starts for [`PAUSE`]. Requests that need one are refused at
//! once.

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

/// Largest number of pending validations of unknown tokens: one for each connection. Formerly valid
/// tokens are bounded by their cache entries.
const PENDING_MAX: usize = 2048;

/// Pause of all validations after Keystone failed, and of one token's after it had no clear answer.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Fraction of the cache time after which a valid token is revalidated when it is used. So a client that
/// polls never waits for a validation.
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
    /// Keystone did not say what it is.
    Unknown,
    /// Keystone cannot validate any token.
    KeystoneDown,
    /// Too many unknown tokens are being validated.
    Overloaded,
}

/// Whether the token to validate was valid before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WasValid {
    /// It was valid when last validated.
    Yes,
    /// Nothing is known about it.
    No,
}

/// Receiver of the verdict of a pending validation.
pub(super) type PendingValidation = watch::Receiver<Option<Verdict>>;

/// What there is about a token.
pub(super) enum Found {
    /// It is good.
    Good(Arc<Identity>),
    /// Valid but stale: the holder of the sender must revalidate it.
    Stale(Arc<Identity>, watch::Sender<Option<Verdict>>),
    /// Invalid.
    Bad,
    /// A validation is pending.
    Pending(PendingValidation),
    /// No valid entry: the holder of the sender must validate it.
    Nothing(watch::Sender<Option<Verdict>>, PendingValidation, WasValid),
    /// No entry, and too many validations are pending.
    Full,
    /// No entry, and Keystone has just failed.
    KeystoneDown,
}

#[derive(Debug)]
pub(super) struct TokenCache {
    good: LruCache<TokenHash, Good>,
    bad: LruCache<TokenHash, Instant>,
    pending: HashMap<TokenHash, PendingValidation>,
    good_for: Duration,
    bad_for: Duration,
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Good {
    identity: Arc<Identity>,
    since: Instant,
    /// When it may be asked about again.
    ask_at: Instant,
    expires_at: Timestamp,
}

impl TokenCache {
    pub(super) fn new(entries: usize, good_for: Duration, bad_for: Duration) -> Self {
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        // Not of their full size from the start: most agents see a handful of tokens.
        let (mut good, mut bad) = (LruCache::unbounded(), LruCache::unbounded());
        good.resize(entries);
        bad.resize(entries);
        Self { good, bad, pending: HashMap::new(), good_for, bad_for, failed_at: None }
    }

    pub(super) fn find(&mut self, hash: TokenHash) -> Found {
        let is_keystone_down = self.is_keystone_down();
        let mut was_valid = WasValid::No;
        if let Some(good) = self.good.get(&hash) {
            if Timestamp::now() < good.expires_at {
                let (identity, may_ask) = (good.identity.clone(), good.ask_at <= Instant::now() && !is_keystone_down);
                if good.since.elapsed() < self.good_for {
                    return match self.start_validation(hash, may_ask, WasValid::Yes) {
                        Some((sender, _)) => Found::Stale(identity, sender),
                        None => Found::Good(identity),
                    };
                }
                if !may_ask && !self.pending.contains_key(&hash) {
                    return Found::KeystoneDown;
                }
                was_valid = WasValid::Yes;
            } else {
                self.good.pop(&hash);
            }
        }
        if let Some(since) = self.bad.get(&hash) {
            if since.elapsed() < self.bad_for {
                return Found::Bad;
            }
            self.bad.pop(&hash);
        }
        if let Some(pending) = self.pending.get(&hash) {
            return Found::Pending(pending.clone());
        }
        if is_keystone_down {
            return Found::KeystoneDown;
        }
        match self.start_validation(hash, true, was_valid) {
            Some((sender, pending)) => Found::Nothing(sender, pending, was_valid),
            None => Found::Full,
        }
    }

    fn start_validation(
        &mut self,
        hash: TokenHash,
        wanted: bool,
        was_valid: WasValid,
    ) -> Option<(watch::Sender<Option<Verdict>>, PendingValidation)> {
        let is_full = was_valid == WasValid::No && self.pending.len() >= PENDING_MAX;
        if !wanted || is_full || self.pending.contains_key(&hash) {
            return None;
        }
        let (sender, pending) = watch::channel(None);
        self.pending.insert(hash, pending.clone());
        Some((sender, pending))
    }

    /// Whether Keystone has just failed.
    pub(super) fn is_keystone_down(&self) -> bool {
        self.failed_at.is_some_and(|at| at.elapsed() < PAUSE)
    }

    /// Keystone is asked anew, whatever happened.
    pub(super) fn forget_failure(&mut self) {
        self.failed_at = None;
    }

    /// A question has been answered, or given up.
    pub(super) fn finish_validation(&mut self, hash: TokenHash, verdict: &Verdict) {
        self.pending.remove(&hash);
        let now = Instant::now();
        match verdict {
            Verdict::Good(identity, expires_at) => {
                let ask_at = now + self.good_for.mul_f64(REFRESHED_AFTER);
                let good = Good { identity: identity.clone(), since: now, ask_at, expires_at: *expires_at };
                self.bad.pop(&hash);
                self.good.put(hash, good);
            }
            Verdict::Bad => {
                self.good.pop(&hash);
                self.bad.put(hash, now);
            }
            Verdict::Unknown | Verdict::KeystoneDown | Verdict::Overloaded => {
                if let Some(good) = self.good.peek_mut(&hash) {
                    good.ask_at = now + PAUSE;
                }
                if matches!(verdict, Verdict::KeystoneDown) {
                    self.failed_at = Some(now);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.good.len(), self.bad.len(), self.pending.len())
    }
}
