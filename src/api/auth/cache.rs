//! Token cache: valid tokens, invalid tokens, and pending validations.
//!
//! Only the SHA-256 of a token is kept. Valid and invalid tokens have separate LRU caches, so a flood of
//! invalid tokens does not evict valid ones. An entry expires after its cache time. A valid token also expires at its
//! own expiry, by the host's clock at each use, because a host may sleep. A formerly valid token keeps its
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
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::credential::TokenOwner;

/// Largest number of pending validations of unknown tokens: one for each connection. Formerly valid
/// tokens are bounded by their cache entries.
const PENDING_MAX: usize = 2048;

/// Pause of all validations after Keystone failed, and of the validations of one token after an unclear answer.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Fraction of the cache time after which a valid token is revalidated when it is used. So a client that
/// polls never waits for a validation.
const REVALIDATED_AFTER: f64 = 0.8;

/// Cache key of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Result of a validation.
#[derive(Debug, Clone)]
pub(super) enum Validation {
    /// Valid: its owner and its expiry.
    Valid(Arc<TokenOwner>, Timestamp),
    /// Unknown, expired or revoked.
    Invalid,
    /// Keystone did not decide.
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
pub(super) type PendingValidation = watch::Receiver<Option<Validation>>;

/// State of a token in the cache.
pub(super) enum CachedToken {
    Valid(Arc<TokenOwner>),
    /// Valid but stale: the holder of the sender must revalidate it.
    Stale(Arc<TokenOwner>, watch::Sender<Option<Validation>>),
    Invalid,
    Pending(PendingValidation),
    /// No valid entry: the holder of the sender must validate it.
    Missing(watch::Sender<Option<Validation>>, PendingValidation, WasValid),
    /// No entry, and too many validations are pending.
    Overloaded,
    /// No entry, and Keystone has just failed.
    KeystoneDown,
}

#[derive(Debug)]
pub(super) struct TokenCache {
    valid: LruCache<TokenHash, ValidToken>,
    invalid: LruCache<TokenHash, Instant>,
    pending: HashMap<TokenHash, PendingValidation>,
    valid_for: Duration,
    invalid_for: Duration,
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct ValidToken {
    owner: Arc<TokenOwner>,
    since: Instant,
    /// Earliest time of the next revalidation.
    revalidate_at: Instant,
    expires_at: Timestamp,
}

impl TokenCache {
    pub(super) fn new(entries: usize, valid_for: Duration, invalid_for: Duration) -> Self {
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        // The caches grow on demand, because most agents see a handful of tokens.
        let (mut valid, mut invalid) = (LruCache::unbounded(), LruCache::unbounded());
        valid.resize(entries);
        invalid.resize(entries);
        Self { valid, invalid, pending: HashMap::new(), valid_for, invalid_for, failed_at: None }
    }

    pub(super) fn find(&mut self, hash: TokenHash) -> CachedToken {
        let is_keystone_down = self.is_keystone_down();
        let mut was_valid = WasValid::No;
        if let Some(token) = self.valid.get(&hash) {
            if Timestamp::now() < token.expires_at {
                let (owner, may_revalidate) =
                    (token.owner.clone(), token.revalidate_at <= Instant::now() && !is_keystone_down);
                if token.since.elapsed() < self.valid_for {
                    return match self.start_validation(hash, may_revalidate, WasValid::Yes) {
                        Some((sender, _)) => CachedToken::Stale(owner, sender),
                        None => CachedToken::Valid(owner),
                    };
                }
                if !may_revalidate && !self.pending.contains_key(&hash) {
                    return CachedToken::KeystoneDown;
                }
                was_valid = WasValid::Yes;
            } else {
                self.valid.pop(&hash);
            }
        }
        if let Some(since) = self.invalid.get(&hash) {
            if since.elapsed() < self.invalid_for {
                return CachedToken::Invalid;
            }
            self.invalid.pop(&hash);
        }
        if let Some(pending) = self.pending.get(&hash) {
            return CachedToken::Pending(pending.clone());
        }
        if is_keystone_down {
            return CachedToken::KeystoneDown;
        }
        match self.start_validation(hash, true, was_valid) {
            Some((sender, pending)) => CachedToken::Missing(sender, pending, was_valid),
            None => CachedToken::Overloaded,
        }
    }

    fn start_validation(
        &mut self,
        hash: TokenHash,
        wanted: bool,
        was_valid: WasValid,
    ) -> Option<(watch::Sender<Option<Validation>>, PendingValidation)> {
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

    /// Ends the pause after a failure of Keystone.
    pub(super) fn forget_failure(&mut self) {
        self.failed_at = None;
    }

    /// Records the result of a pending validation.
    pub(super) fn finish_validation(&mut self, hash: TokenHash, verdict: &Validation) {
        self.pending.remove(&hash);
        let now = Instant::now();
        match verdict {
            Validation::Valid(owner, expires_at) => {
                let revalidate_at = now + self.valid_for.mul_f64(REVALIDATED_AFTER);
                let token = ValidToken { owner: owner.clone(), since: now, revalidate_at, expires_at: *expires_at };
                self.invalid.pop(&hash);
                self.valid.put(hash, token);
            }
            Validation::Invalid => {
                self.valid.pop(&hash);
                self.invalid.put(hash, now);
            }
            Validation::Unknown | Validation::KeystoneDown | Validation::Overloaded => {
                if let Some(token) = self.valid.peek_mut(&hash) {
                    token.revalidate_at = now + PAUSE;
                }
                if matches!(verdict, Validation::KeystoneDown) {
                    self.failed_at = Some(now);
                }
            }
        }
    }

    /// Replaces the expiry of a valid token. Returns the former one.
    #[cfg(test)]
    pub(super) fn replace_expiry(&mut self, hash: TokenHash, expires_at: Timestamp) -> Option<Timestamp> {
        let token = self.valid.peek_mut(&hash)?;
        Some(std::mem::replace(&mut token.expires_at, expires_at))
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.valid.len(), self.invalid.len(), self.pending.len())
    }
}
