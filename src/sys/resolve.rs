//! Name resolution: the only place where the agent asks the system's resolver for addresses.
//!
//! getaddrinfo(3) blocks its thread for as long as resolv.conf(5) says, and cannot be cancelled. When the name servers
//! are down, every lookup blocks a thread in this way. So a lookup runs in a task that outlives its callers. Each
//! caller waits until its own deadline:
//!
//! - A [`Resolver`] runs a limited number of lookups at a time. Further lookups wait in a bounded queue.
//! - Callers that need the same name share one lookup. So a lookup that hangs blocks one thread, however many
//!   targets use its name and however often they are probed.
//!
//! Storage, Keystone, the key manager, the receivers of notifications, the nodes of an aggregator and etcd have
//! separate resolvers ([`STORAGE`], [`KEYSTONE`], [`KEY_MANAGER`], [`RECEIVERS`], [`NODES`], [`ETCD`]), so that hanging
//! lookups of storage do not stop the validation of tokens. They live as long as the process. A reload of the
//! configuration does not create new ones.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Concurrent lookups of storage servers and their proxies.
pub const STORAGE_LOOKUPS_MAX: usize = 16;

/// Concurrent lookups of Keystone's name. The agent uses one Keystone.
pub const KEYSTONE_LOOKUPS_MAX: usize = 1;

/// Concurrent lookups of the names of notification receivers.
pub const RECEIVER_LOOKUPS_MAX: usize = 2;

/// Maximum number of distinct names that one resolver looks up or queues. A further name times out at once.
pub const NAMES_PENDING_MAX: usize = 1024;

/// Maximum number of addresses of a name. Further ones are ignored.
pub const ADDRESSES_MAX: usize = 64;

/// Concurrent lookups of the key manager's name. The agent uses one key manager.
pub const KEY_MANAGER_LOOKUPS_MAX: usize = 1;

/// Concurrent lookups of the names of nodes, by an aggregator.
pub const NODE_LOOKUPS_MAX: usize = 8;

/// Concurrent lookups of the names of etcd's members.
pub const ETCD_LOOKUPS_MAX: usize = 2;

/// Number of names of nodes whose latest addresses are kept.
const NODE_NAMES_KEPT: usize = 20_000;

/// Number of names whose latest addresses each resolver keeps, except those of storage and of nodes.
const NAMES_KEPT: usize = 8;

/// The resolver for storage servers and their proxies.
pub static STORAGE: LazyLock<Resolver> = LazyLock::new(|| Resolver::of_system(STORAGE_LOOKUPS_MAX, 0));

/// The resolver for Keystone.
pub static KEYSTONE: LazyLock<Resolver> = LazyLock::new(|| Resolver::of_system(KEYSTONE_LOOKUPS_MAX, NAMES_KEPT));

/// The resolver for the key manager.
pub static KEY_MANAGER: LazyLock<Resolver> = LazyLock::new(|| Resolver::of_system(KEY_MANAGER_LOOKUPS_MAX, NAMES_KEPT));

/// The resolver for the members of etcd.
pub static ETCD: LazyLock<Resolver> = LazyLock::new(|| Resolver::of_system(ETCD_LOOKUPS_MAX, NAMES_KEPT));

/// The resolver for the nodes of an aggregator.
pub static NODES: LazyLock<Resolver> = LazyLock::new(|| Resolver::of_system(NODE_LOOKUPS_MAX, NODE_NAMES_KEPT));

/// The resolver for the receivers of notifications.
pub static RECEIVERS: LazyLock<Resolver> = LazyLock::new(|| Resolver::of_system(RECEIVER_LOOKUPS_MAX, NAMES_KEPT));

/// Why a name was not resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No name server answered before the deadline.
    #[error("no name server answered in time")]
    TimedOut,
    /// The name has no address. Contains the message of getaddrinfo(3).
    #[error("{0}")]
    NotFound(String),
}

type LookupResult = Result<Vec<SocketAddr>, ResolveError>;
type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Looks up names, a limited number at a time. Clones share their lookups.
#[derive(Clone)]
pub struct Resolver(Arc<ResolverState>);

struct ResolverState {
    lookup: Box<Lookup>,
    slots: Semaphore,
    names: Mutex<Names>,
    names_kept: usize,
}

#[derive(Default)]
struct Names {
    pending: BTreeMap<String, Shared<BoxFuture<'static, LookupResult>>>,
    latest: BTreeMap<String, Vec<SocketAddr>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").field("slots", &self.0.slots).finish_non_exhaustive()
    }
}

impl Resolver {
    fn of_system(lookups_max: usize, names_kept: usize) -> Self {
        let lookup = |name: String| {
            async move { tokio::net::lookup_host((name.as_str(), 0)).await.map(|found| found.take(ADDRESSES_MAX).collect()) }
                .boxed()
        };
        Self::with(Box::new(lookup), lookups_max, names_kept)
    }

    fn with(lookup: Box<Lookup>, lookups_max: usize, names_kept: usize) -> Self {
        Self(Arc::new(ResolverState {
            lookup,
            slots: Semaphore::new(lookups_max),
            names: Mutex::default(),
            names_kept,
        }))
    }

    /// Returns the addresses of a host (a name, or an IP address without brackets), with port 0. There is at
    /// least one, and at most [`ADDRESSES_MAX`].
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::TimedOut`] also when [`NAMES_PENDING_MAX`] names are pending.
    pub async fn resolve(&self, host: &str, deadline: Instant) -> LookupResult {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, 0)]);
        }
        let pending = self.pending(host).ok_or(ResolveError::TimedOut)?;
        timeout_at(deadline, pending).await.unwrap_or(Err(ResolveError::TimedOut))
    }

    /// Returns the addresses of a host, or those of its latest successful lookup if this lookup fails. If a lookup of
    /// the host is already pending, the latest addresses are returned at once.
    ///
    /// # Errors
    /// [`ResolveError`] when the host was never resolved.
    pub async fn resolve_or_latest(&self, host: &str, deadline: Instant) -> LookupResult {
        let pending_with_latest = {
            let names = self.0.names();
            names.latest.get(host).filter(|_| names.pending.contains_key(host)).cloned()
        };
        if let Some(latest) = pending_with_latest {
            return Ok(latest);
        }
        match self.resolve(host, deadline).await {
            Ok(found) => Ok(found),
            Err(error) => self.0.names().latest.get(host).cloned().ok_or(error),
        }
    }

    /// Returns the pending lookup of this name, or a new one. `None` when too many are pending.
    fn pending(&self, host: &str) -> Option<Shared<BoxFuture<'static, LookupResult>>> {
        let mut names = self.0.names();
        if let Some(pending) = names.pending.get(host) {
            return Some(pending.clone());
        }
        if names.pending.len() >= NAMES_PENDING_MAX {
            return None;
        }
        // In its own task, because the thread and its slot stay in use after the callers have stopped waiting.
        let entry = PendingEntry { state: self.0.clone(), host: host.to_owned() };
        let looking = tokio::spawn(async move { entry.look_up().await });
        let pending = looking.map(|ended| ended.unwrap_or_else(|error| Err(not_found(error)))).boxed().shared();
        names.pending.insert(host.to_owned(), pending.clone());
        Some(pending)
    }
}

impl ResolverState {
    // Every change is a single insert or remove, so a panic leaves nothing half done.
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a pending lookup. Dropping it removes the entry.
struct PendingEntry {
    state: Arc<ResolverState>,
    host: String,
}

impl PendingEntry {
    async fn look_up(&self) -> LookupResult {
        let _slot = self.state.slots.acquire().await.map_err(not_found)?;
        let found = match (self.state.lookup)(self.host.clone()).await {
            Ok(found) if found.is_empty() => return Err(ResolveError::NotFound("it has no address".to_owned())),
            Ok(found) => found,
            // EAI_AGAIN of getaddrinfo(3): no name server answered. std passes on only the text of the error.
            Err(error) if error.to_string().contains("Temporary failure") => return Err(ResolveError::TimedOut),
            Err(error) => return Err(not_found(error)),
        };
        let mut names = self.state.names();
        if names.latest.len() < self.state.names_kept || names.latest.contains_key(&self.host) {
            names.latest.insert(self.host.clone(), found.clone());
        }
        Ok(found)
    }
}

impl Drop for PendingEntry {
    fn drop(&mut self) {
        self.state.names().pending.remove(&self.host);
    }
}

fn not_found(error: impl ToString) -> ResolveError {
    ResolveError::NotFound(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::sync::watch;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(2);

    fn address() -> SocketAddr {
        "192.0.2.1:0".parse().expect("an address")
    }

    /// A resolver, the gate of its slow lookups, and the number of its lookups. A lookup of a name that begins with
    /// `slow` ends when the gate is open.
    fn fake(lookups_max: usize, names_kept: usize) -> (Resolver, watch::Sender<bool>, Arc<AtomicUsize>) {
        let (open, lookups) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
        let (gate, count) = (open.clone(), lookups.clone());
        let lookup = move |name: String| {
            count.fetch_add(1, Ordering::SeqCst);
            let mut gate = gate.subscribe();
            async move {
                if name.starts_with("slow") {
                    gate.wait_for(|open| *open).await.map_err(io::Error::other)?;
                }
                if name.ends_with("gone") { Err(io::Error::other("no such name")) } else { Ok(vec![address()]) }
            }
            .boxed()
        };
        (Resolver::with(Box::new(lookup), lookups_max, names_kept), open, lookups)
    }

    async fn resolve(resolver: &Resolver, host: &str) -> LookupResult {
        resolver.resolve(host, Instant::now() + WITHIN).await
    }

    #[tokio::test]
    async fn system_resolves_localhost_and_addresses() {
        let found = resolve(&STORAGE, "localhost").await.expect("found");
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert_eq!(resolve(&STORAGE, "192.0.2.1").await, Ok(vec![address()]));
        assert!(resolve(&STORAGE, "no-such-name.invalid").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_lookup_is_shared_and_does_not_delay_other_names() {
        let (resolver, open, lookups) = fake(2, 0);
        for _ in 0..3 {
            let slow = join_all((0..50).map(|_| resolve(&resolver, "slow")));
            let (slow, fast) = tokio::join!(slow, resolve(&resolver, "fast"));
            assert!(slow.iter().all(|answer| *answer == Err(ResolveError::TimedOut)));
            assert_eq!(fast, Ok(vec![address()]));
        }
        assert_eq!(lookups.load(Ordering::SeqCst), 1 + 3, "one for the slow name, however often it was given up");
        open.send_replace(true);
        assert_eq!(resolve(&resolver, "slow").await, Ok(vec![address()]));
    }

    #[tokio::test(start_paused = true)]
    async fn lookups_and_pending_names_are_bounded() {
        let (resolver, open, lookups) = fake(4, 0);
        let hosts: Vec<String> = (0..NAMES_PENDING_MAX + 1).map(|number| format!("slow-{number}")).collect();
        let began = Instant::now();
        let answers = join_all(hosts.iter().map(|host| resolve(&resolver, host))).await;
        assert!(answers.iter().all(|answer| *answer == Err(ResolveError::TimedOut)));
        assert!(began.elapsed() < WITHIN + Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(lookups.load(Ordering::SeqCst), 4);
        assert_eq!(resolver.0.names().pending.len(), NAMES_PENDING_MAX);
        open.send_replace(true);
        while !resolver.0.names().pending.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(resolve(&resolver, "fast").await, Ok(vec![address()]));
        assert_eq!(resolver.0.slots.available_permits(), 4);
    }

    #[tokio::test]
    async fn name_is_looked_up_again_after_a_failure_or_a_panic() {
        let (resolver, _open, lookups) = fake(1, 0);
        for _ in 0..2 {
            assert_eq!(resolve(&resolver, "gone").await, Err(ResolveError::NotFound("no such name".to_owned())));
        }
        assert_eq!(lookups.load(Ordering::SeqCst), 2);
        let panicking = Resolver::with(Box::new(|_| async { panic!("a lookup") }.boxed()), 1, 0);
        for _ in 0..2 {
            assert!(matches!(resolve(&panicking, "any").await, Err(ResolveError::NotFound(_))));
        }
        assert!(panicking.0.names().pending.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn latest_addresses_are_used_while_a_lookup_hangs() {
        let (resolver, open, lookups) = fake(1, 1);
        let find = || resolver.resolve_or_latest("slow", Instant::now() + WITHIN);
        assert_eq!(find().await, Err(ResolveError::TimedOut), "nothing is known yet");
        // The callers have stopped waiting, but the result of the lookup is kept.
        open.send_replace(true);
        while resolver.0.names().latest.is_empty() {
            tokio::task::yield_now().await;
        }
        open.send_replace(false);
        let before = lookups.load(Ordering::SeqCst);
        let began = Instant::now();
        for found in join_all((0..50).map(|_| find())).await {
            assert_eq!(found, Ok(vec![address()]));
        }
        assert!(began.elapsed() <= WITHIN + Duration::from_millis(10), "{:?}", began.elapsed());
        assert!(lookups.load(Ordering::SeqCst) <= before + 1);
    }
}
