//! Cache of secrets: one entry for each reference, with at most one pending request.
//!
//! A request is a task, so a probe that stops waiting does not cancel it for other probes. A secret that is only due
//! for its refresh is returned at once, and the request continues in the background. The number of entries, of
//! concurrent requests and the size of a payload are bounded. While the key manager fails, its backoff decides which
//! requests are sent, and nothing waits for it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use super::backoff::{Backoff, RequestPermit};
use super::error::KeyManagerError;
use super::freshness::Freshness;
use super::reader::SecretReader;
use crate::model::secret_ref::SecretRef;
use crate::model::settings::KeyManagerSettings;
use crate::model::tally::Tally;
use crate::model::{BucketSecret, TARGETS_MAX};

/// Largest number of cached secrets: every target may have its own. With fewer, probes in turn would each drop the
/// secret that is needed next. The one that was not used for the longest time is dropped.
pub const SECRETS_MAX: usize = TARGETS_MAX;

/// Largest number of concurrent requests to the key manager.
const REQUESTS_MAX: usize = 16;

/// Time after a failed request in which the secret is not requested again.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// A secret that was read.
#[derive(Debug, Clone)]
pub struct FoundSecret {
    /// The latest good credentials.
    pub secret: Arc<BucketSecret>,
    /// Why they could not be read again.
    pub failure: Option<KeyManagerError>,
}

/// The key manager of the configuration, with the cache of secrets. Sends nothing before a secret is needed.
#[derive(Debug, Default)]
pub struct KeyManager {
    current: Mutex<Option<Arc<Service>>>,
    requests: Arc<Tally<&'static str>>,
}

/// One configured key manager.
#[derive(Debug)]
struct Service {
    reader: SecretReader,
    entries: Arc<Mutex<LruCache<String, Arc<CachedSecret>>>>,
    permits: Semaphore,
    backoff: Arc<Backoff>,
}

type CachedSecret = Mutex<State>;

#[derive(Debug, Default)]
struct State {
    secret: Option<Arc<BucketSecret>>,
    failure: Option<KeyManagerError>,
    /// When the latest request ended.
    ended_at: Option<Instant>,
    /// Whether the service refused the credentials.
    is_refused: bool,
    /// Closed when the pending request ends.
    pending: Option<watch::Receiver<()>>,
}

impl State {
    /// The pending request.
    fn pending(&self) -> Option<watch::Receiver<()>> {
        self.pending.clone().filter(|pending| pending.has_changed().is_ok())
    }

    /// Whether the secret must be read again.
    fn is_due(&self, freshness: Freshness, refresh_interval: Duration) -> bool {
        let Some(age) = self.ended_at.map(|at| at.elapsed()) else { return true };
        match &self.failure {
            Some(_) => age >= RETRY_WAIT,
            None => self.must_wait(freshness) || age >= refresh_interval,
        }
    }

    /// Whether the result of a pending request is needed.
    fn must_wait(&self, freshness: Freshness) -> bool {
        self.secret.is_none() || self.is_refused || freshness == Freshness::Now
    }
}

impl KeyManager {
    /// Returns the requests by result: the class of the status, or `none` without an answer.
    #[must_use]
    pub fn requests(&self) -> &Tally<&'static str> {
        &self.requests
    }

    /// Returns the credentials that a secret contains, within `deadline`.
    ///
    /// # Errors
    /// [`KeyManagerError`] when the secret has never been read since the start.
    pub async fn secret(
        &self,
        settings: &KeyManagerSettings,
        reference: &SecretRef,
        freshness: Freshness,
        deadline: Duration,
    ) -> Result<FoundSecret, KeyManagerError> {
        let service = self.service(settings);
        service.reader.check_reference(reference)?;
        let entry = service.entry(reference);
        let pending = {
            let mut state = lock(&entry);
            if state.pending().is_none() && state.is_due(freshness, settings.refresh_interval) {
                match service.backoff.start(freshness) {
                    Ok(attempt) => state.pending = Some(service.start_reading(reference, &entry, attempt)),
                    Err(error) => state.failure = Some(error),
                }
            }
            state.pending().filter(|_| state.must_wait(freshness))
        };
        let mut is_late = false;
        if let Some(mut pending) = pending {
            is_late = timeout(deadline, pending.changed()).await.is_err();
        }
        let state = lock(&entry);
        let late = is_late.then(|| KeyManagerError::TimedOut(deadline.as_millis()));
        let failure = late.or_else(|| state.failure.clone());
        match &state.secret {
            Some(secret) => Ok(FoundSecret { secret: secret.clone(), failure }),
            // Without a failure, the task that reads it has panicked or was cancelled.
            None => Err(failure.unwrap_or(KeyManagerError::TimedOut(deadline.as_millis()))),
        }
    }

    /// Logs in to Keystone, and asks the key manager whether it accepts the token, within the deadline of a request.
    /// Returns the address of the key manager.
    ///
    /// # Errors
    /// [`KeyManagerError`] when no secret could be read.
    pub async fn verify(settings: &KeyManagerSettings) -> Result<String, KeyManagerError> {
        let reader = SecretReader::new(settings.clone(), Arc::default());
        let late = KeyManagerError::TimedOut(settings.timeout.as_millis());
        timeout(settings.timeout, reader.verify()).await.unwrap_or(Err(late))
    }

    /// Records that the service refused the credentials of a secret, so that the next use reads it again.
    pub fn refused(&self, settings: &KeyManagerSettings, reference: &SecretRef, refused: &Arc<BucketSecret>) {
        let entry = self.service(settings).entry(reference);
        let mut state = lock(&entry);
        // Another target may have caused a new read already.
        if state.secret.as_ref().is_some_and(|secret| Arc::ptr_eq(secret, refused)) {
            state.is_refused = true;
        }
    }

    /// Number of cached secrets.
    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        lock(&self.current).as_ref().map_or(0, |service| lock(&service.entries).len())
    }

    /// Returns the service of these settings. The cached secrets of the same key manager and user are kept.
    fn service(&self, settings: &KeyManagerSettings) -> Arc<Service> {
        let mut current = lock(&self.current);
        if let Some(service) = current.as_ref().filter(|service| service.reader.settings() == settings) {
            return service.clone();
        }
        let kept = current.as_ref().filter(|service| service.reader.settings().is_same_service(settings));
        let entries = kept.map_or_else(
            || Arc::new(Mutex::new(LruCache::new(NonZeroUsize::new(SECRETS_MAX).unwrap_or(NonZeroUsize::MIN)))),
            |service| service.entries.clone(),
        );
        let reader = SecretReader::new(settings.clone(), self.requests.clone());
        let permits = Semaphore::new(REQUESTS_MAX);
        current.insert(Arc::new(Service { reader, entries, permits, backoff: Arc::default() })).clone()
    }
}

impl Service {
    fn entry(&self, reference: &SecretRef) -> Arc<CachedSecret> {
        let mut entries = lock(&self.entries);
        entries.get_or_insert(reference.as_str().to_owned(), Arc::default).clone()
    }

    /// Starts a request. The receiver is closed when it ends.
    fn start_reading(
        self: &Arc<Self>,
        reference: &SecretRef,
        entry: &Arc<CachedSecret>,
        attempt: RequestPermit,
    ) -> watch::Receiver<()> {
        let (ended, pending) = watch::channel(());
        let (service, reference, entry) = (self.clone(), reference.clone(), entry.clone());
        let reading = async move {
            let outcome = service.read(&reference, attempt).await;
            let mut state = lock(&entry);
            state.ended_at = Some(Instant::now());
            match outcome {
                Ok(secret) => {
                    (state.secret, state.failure, state.is_refused) = (Some(Arc::new(secret)), None, false);
                }
                Err(error) => state.failure = Some(error),
            }
            drop(state);
            drop(ended);
        };
        drop(tokio::spawn(reading.in_current_span()));
        pending
    }

    /// Reads a secret, unless the key manager fails while this request waits in the queue.
    async fn read(&self, reference: &SecretRef, mut attempt: RequestPermit) -> Result<BucketSecret, KeyManagerError> {
        let _permit = self.permits.acquire().await;
        if let Some(error) = attempt.overtaking_failure() {
            return Err(error);
        }
        attempt.sent();
        let deadline = self.reader.settings().timeout;
        let outcome = timeout(deadline, self.reader.read(reference)).await;
        let outcome = outcome.unwrap_or(Err(KeyManagerError::TimedOut(deadline.as_millis())));
        attempt.ended(reference, &outcome);
        outcome
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the next call that may panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
