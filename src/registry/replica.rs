//! The store of a node that shares its registry with other nodes: a copy in a file, and the shared registry.
//!
//! ```text
//! commit ──► shared registry ──► copy ──► snapshot          compare (at an interval) ──► read ──► copy ──► snapshot
//! ```
//!
//! Everything is read from the copy, so reading and probing need no other host. A change is made in the shared registry
//! first, and then in the copy. When the shared registry is unavailable, changes fail and everything else continues.
//! What belongs to this node alone is only in the copy: histories, canary records and mounts.
//!
//! A node whose registry is empty joins by itself. A node with targets of its own stays a single node until the
//! operator lets it join ([`join`]), because its targets would otherwise be lost or doubled.

mod difference;
#[cfg(test)]
pub(super) mod fake;
pub mod join;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::membership::{Aliases, ReplicaStatus};
use super::shared::{CloudId, SeenVersion, SharedCommitError, SharedRegistry, SharedVersion, Unavailable};
use super::snapshot::{Revision, Snapshot, Write};
use super::store::{CommitError, CopyStore, SharedChangeError, StorageError, Store};
use crate::etcd::{FleetSize, shortest_interval};
use crate::model::request_id::during_current;
use crate::model::{CanaryRecord, OwnMountId, TargetId, Transition, random_fraction};

/// Longest time between two comparisons while the shared registry is unavailable, unless the interval is longer. It
/// grows with the fleet, like the interval.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Time that a node that joins waits for its first count of the nodes.
const COUNT_TIMEOUT: Duration = Duration::from_millis(200);

/// Time over which the first comparisons are spread while the nodes are not counted yet.
const UNCOUNTED_SPREAD: Duration = Duration::from_secs(3);

/// Relative deviation of the time between two comparisons. It spreads the requests of all nodes.
const JITTER: f64 = 0.2;

/// Every comparison with this number asks a quorum for the version. The others may be answered by a member that is cut
/// off, which would show an old version for ever.
const QUORUM_EVERY: u32 = 10;

/// Longest time between two comparisons with a quorum, unless the interval is longer.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(300);

/// Largest age of a version that was read with a renewal of the node's lease and that replaces a comparison, as a part
/// of the interval. A change arrives within two intervals, so this leaves time for a request.
const SEEN_FOR: f64 = 1.9;

/// Deadline of all that a change waits for before it is sent to the shared registry: a comparison in progress, and a
/// read of the content.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A store that keeps a copy of a shared registry.
pub struct ReplicaStore {
    replica: Arc<Replica>,
}

struct Replica {
    copy: Box<dyn CopyStore>,
    shared: Arc<dyn SharedRegistry>,
    /// Time between two comparisons, unless so many nodes need a longer one.
    interval: Duration,
    fleet_size: FleetSize,
    /// Held during a change or a comparison.
    state: Mutex<State>,
    status: watch::Sender<ReplicaStatus>,
    /// Requests a comparison before the end of the interval.
    early: Notify,
}

struct State {
    /// The shared registry that this node has joined.
    cloud_id: Option<CloudId>,
    /// Version of the copy. `None` if it is not known.
    version: Option<SharedVersion>,
    /// When a quorum last confirmed that the copy is equal.
    compared_at: Option<Timestamp>,
    /// The same time on the monotonic clock. `None` if the next comparison needs a quorum.
    confirmed: Option<Instant>,
    /// Number of comparisons without a quorum since.
    unconfirmed: u32,
}

impl State {
    fn confirm(&mut self) {
        (self.compared_at, self.confirmed, self.unconfirmed) = (Some(Timestamp::now()), Some(Instant::now()), 0);
    }

    /// Notes that a quorum has confirmed the known version. Returns whether that is newer than what was known.
    fn confirm_seen(&mut self, seen: SeenVersion) -> bool {
        let Some(at) =
            seen.confirmed.filter(|at| self.version.is_some() && self.confirmed.is_some_and(|known| *at > known))
        else {
            return false;
        };
        (self.compared_at, self.confirmed, self.unconfirmed) = (Some(Timestamp::now() - at.elapsed()), Some(at), 0);
        true
    }

    /// When a comparison needs a quorum, if the one after it follows at this interval.
    fn quorum_due(&self, interval: Duration) -> Instant {
        let before = QUORUM_AGE_MAX.saturating_sub(interval.mul_f64(1.0 + JITTER));
        self.confirmed.map_or_else(Instant::now, |at| at + before)
    }

    /// Whether the next comparison needs a quorum, if the one after it follows at this interval.
    fn needs_quorum(&self, interval: Duration) -> bool {
        self.unconfirmed + 1 >= QUORUM_EVERY || Instant::now() >= self.quorum_due(interval)
    }
}

/// Why the copy could not be compared with the shared registry.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("this node's copy cannot be stored: {0}")]
    Copy(#[from] StorageError),
    #[error(
        "the registry there is {found}, and this node joined {joined}: another cloud uses the same prefix, or etcd was set up anew. Correct [registry] url. To join the other registry, stop the agent and run: targetwatch fleet join --leave --dry-run"
    )]
    AnotherCloud { found: CloudId, joined: CloudId },
}

impl ReplicaStore {
    /// Returns the store with this copy, which [`Store::follow`] compares at this interval, more or less. In a large
    /// fleet, the interval is longer.
    #[must_use]
    pub fn new(
        copy: impl CopyStore,
        shared: Arc<dyn SharedRegistry>,
        interval: Duration,
        fleet_size: FleetSize,
    ) -> Self {
        let cloud_id = copy.cloud_id();
        let is_joined = cloud_id.is_some();
        let problem = Some("not yet contacted".to_owned());
        let status = ReplicaStatus { is_joined, compared_at: None, problem, interval };
        let state = Mutex::new(State { cloud_id, version: None, compared_at: None, confirmed: None, unconfirmed: 0 });
        let (status, early) = (watch::Sender::new(status), Notify::new());
        Self { replica: Arc::new(Replica { copy: Box::new(copy), shared, interval, fleet_size, state, status, early }) }
    }

    /// Compares the copy with the shared registry now. Returns whether that succeeded.
    pub async fn compare(&self) -> bool {
        self.replica.compare().await
    }
}

fn too_late() -> SharedChangeError {
    let seconds = CHANGE_TIMEOUT.as_secs();
    SharedChangeError::Unavailable(format!("the change could not be sent to it within {seconds} s"))
}

/// Returns the time to the next comparison after one that succeeded.
fn wait_after_success(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * random_fraction() - 1.0))
}

/// Returns the time to the next comparison after this number of failed ones. It is random between most of an interval
/// and a limit that grows by an interval each time, up to `most`.
fn wait_after_failure(interval: Duration, failures: u32, most: Duration) -> Duration {
    let (least, most) = (interval.mul_f64(1.0 - JITTER), most.max(interval.mul_f64(1.0 + JITTER)));
    let limit = interval.saturating_mul(failures.saturating_add(1)).min(most);
    least + limit.saturating_sub(least).mul_f64(random_fraction())
}

impl Replica {
    /// Time between two comparisons.
    fn interval(&self) -> Duration {
        self.fleet_size.stretched(self.interval)
    }

    /// Waits for this time, or until the next comparison is needed earlier. Returns whether it is.
    async fn wait(&self, time: Duration) -> bool {
        let early = async {
            tokio::select! {
                () = self.early.notified() => {}
                () = self.shared.changed() => {}
            }
        };
        timeout(time, early).await.is_ok()
    }

    /// Waits before the first comparison, because many nodes may start at the same time. A change does not wait for it.
    /// A node with a copy waits for up to an interval, and one without for less. The wait grows when the node learns
    /// how many nodes there are.
    async fn wait_first(&self) {
        let is_joined = self.status.borrow().is_joined;
        if !is_joined && self.wait(COUNT_TIMEOUT).await {
            return;
        }
        let (part, began) = (random_fraction(), Instant::now());
        loop {
            let (spread, step) = match self.fleet_size.counted() {
                _ if is_joined => (self.interval(), RETRY_MAX),
                Some(nodes) => (shortest_interval(nodes), RETRY_MAX),
                None => (UNCOUNTED_SPREAD, COUNT_TIMEOUT),
            };
            let rest = spread.min(RETRY_MAX).mul_f64(part).saturating_sub(began.elapsed()).min(step);
            if rest.is_zero() || self.wait(rest).await {
                return;
            }
        }
    }

    /// Waits for as long as renewals of the node's lease show that nothing changes, and no quorum is due.
    async fn wait_while_seen(&self) {
        loop {
            let (interval, Some(seen)) = (self.interval(), self.shared.seen()) else { return };
            let mut state = self.state.lock().await;
            if state.confirm_seen(seen) {
                self.report(&state, None);
            }
            let quorum = state.quorum_due(interval);
            drop(state);
            let rest = quorum.min(seen.at + interval.mul_f64(SEEN_FOR)).saturating_duration_since(Instant::now());
            if rest.is_zero() || self.wait(rest).await {
                return;
            }
        }
    }

    async fn compare(&self) -> bool {
        let mut state = self.state.lock().await;
        let outcome = self.update(&mut state).await;
        self.report(&state, outcome.err().map(|error| error.to_string()))
    }

    /// Publishes the state, and logs a change of it. Returns whether there is no problem.
    fn report(&self, state: &State, problem: Option<String>) -> bool {
        let is_joined = state.cloud_id.is_some();
        let former = self.status.borrow().clone();
        match &problem {
            None if former.problem.is_some() && is_joined => tracing::info!("the registry of the fleet is available"),
            None if former.problem.is_some() => tracing::warn!(
                "this node has backup targets of its own and has not joined the registry of the fleet: it works as a single node. Stop the agent and run: targetwatch fleet join --dry-run"
            ),
            Some(problem) if former.problem.as_ref() != Some(problem) => tracing::warn!(
                "the registry of the fleet is unavailable: {problem}. This node continues with its copy, and changes are refused"
            ),
            _ => {}
        }
        let is_well = problem.is_none();
        let status = ReplicaStatus { is_joined, compared_at: state.compared_at, problem, interval: self.interval() };
        self.status.send_replace(status);
        is_well
    }

    /// Makes the copy equal to the shared registry if the versions differ. Joins first if this node has no targets.
    async fn update(&self, state: &mut State) -> Result<(), CompareError> {
        if state.cloud_id.is_none() {
            if self.is_single_node(state) {
                return Ok(());
            }
            let cloud_id = self.shared.cloud_id().await?;
            self.copy.put_cloud_id(Some(cloud_id)).await?;
            tracing::info!(%cloud_id, "joined the registry of the fleet");
            state.cloud_id = Some(cloud_id);
        }
        if state.version.is_some() {
            let interval = self.interval();
            let is_quorum = state.needs_quorum(interval);
            // After a failure, and until one succeeds, comparisons need a quorum.
            let confirmed = state.confirmed.take();
            let found = if is_quorum {
                self.shared.latest_version().await?
            } else {
                self.shared.version(interval.mul_f64(SEEN_FOR)).await?
            };
            Self::verify_cloud(state, found)?;
            if Some(found) == state.version {
                if is_quorum {
                    state.confirm();
                } else {
                    (state.confirmed, state.unconfirmed) = (confirmed, state.unconfirmed + 1);
                }
                return Ok(());
            }
        }
        self.read(state).await
    }

    async fn read(&self, state: &mut State) -> Result<(), CompareError> {
        let content = self.shared.read().await?;
        Self::verify_cloud(state, content.version)?;
        let copy = self.copy.snapshot();
        let writes = difference::writes(&copy, &content.targets);
        if !writes.is_empty() {
            let revision = copy.revision();
            match self.copy.commit(revision, writes).await {
                Ok(_) => {}
                // Only this store writes, and it does so one after another.
                Err(CommitError::Conflict | CommitError::Fleet(_)) => {
                    return Err(StorageError::Failed("another writer changed it".to_owned()).into());
                }
                Err(CommitError::Storage(error)) => return Err(error.into()),
            }
        }
        state.version = Some(content.version);
        state.confirm();
        Ok(())
    }

    fn verify_cloud(state: &State, found: SharedVersion) -> Result<(), CompareError> {
        match state.cloud_id {
            Some(joined) if joined != found.cloud_id => {
                Err(CompareError::AnotherCloud { found: found.cloud_id, joined })
            }
            _ => Ok(()),
        }
    }

    /// Whether this node has targets of its own, and has not joined.
    fn is_single_node(&self, state: &State) -> bool {
        state.cloud_id.is_none() && !self.copy.snapshot().targets().is_empty()
    }

    async fn commit(&self, expected: Revision, writes: Vec<Write>) -> Result<Arc<Snapshot>, CommitError> {
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        let mut state = timeout_at(deadline, self.state.lock()).await.map_err(|_| too_late())?;
        if self.is_single_node(&state) {
            return self.copy.commit(expected, writes).await;
        }
        if state.version.is_none() {
            self.update_for_change(&mut state, deadline).await?;
        }
        let before = self.copy.snapshot();
        let version = match state.version {
            Some(version) if before.revision() == expected => version,
            _ => return Err(CommitError::Conflict),
        };
        match self.shared.commit(version, &before, &writes).await {
            Ok(new) => {
                // A quorum made the change for this version.
                state.confirm();
                self.report(&state, None);
                match self.copy.commit(expected, writes).await {
                    Ok(snapshot) => {
                        state.version = Some(new);
                        Ok(snapshot)
                    }
                    Err(CommitError::Storage(error)) => {
                        state.version = None;
                        self.early.notify_one();
                        Err(SharedChangeError::CopyFailed(error).into())
                    }
                    Err(error) => Err(error),
                }
            }
            Err(SharedCommitError::Conflict) => {
                state.version = None;
                self.update_for_change(&mut state, deadline).await?;
                Err(CommitError::Conflict)
            }
            Err(SharedCommitError::Unavailable(Unavailable(problem))) => {
                self.report(&state, Some(problem.clone()));
                Err(SharedChangeError::Unavailable(problem).into())
            }
            Err(error @ SharedCommitError::Uncertain(_)) => {
                state.version = None;
                self.report(&state, Some(error.to_string()));
                self.early.notify_one();
                Err(SharedChangeError::Uncertain(error.to_string()).into())
            }
        }
    }

    async fn update_for_change(&self, state: &mut State, deadline: Instant) -> Result<(), CommitError> {
        // After the deadline, the next comparison finds what the copy lacks.
        let outcome = timeout_at(deadline, self.update(state)).await.map_err(|_| too_late())?;
        let outcome = outcome.map_err(|error| error.to_string());
        self.report(state, outcome.clone().err());
        outcome.map_err(|problem| SharedChangeError::Unavailable(problem).into())
    }
}

#[async_trait]
impl Store for ReplicaStore {
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.replica.copy.watch()
    }

    async fn commit(&self, expected: Revision, writes: Vec<Write>) -> Result<Arc<Snapshot>, CommitError> {
        let replica = self.replica.clone();
        // Finished even if the caller stops waiting, so that the copy does not miss it.
        match tokio::spawn(during_current(async move { replica.commit(expected, writes).await })).await {
            Ok(outcome) => outcome,
            Err(error) => Err(StorageError::Failed(format!("the change was aborted: {error}")).into()),
        }
    }

    async fn verify_writable(&self) -> Result<(), CommitError> {
        self.replica.copy.verify_writable().await?;
        let ReplicaStatus { is_joined, problem, .. } = self.replica.status.borrow().clone();
        // A single node needs no other host.
        let is_single = !is_joined && !self.snapshot().targets().is_empty();
        match problem {
            Some(problem) if !is_single => Err(SharedChangeError::Unavailable(problem).into()),
            _ => Ok(()),
        }
    }

    fn aliases(&self) -> Arc<Aliases> {
        self.replica.copy.aliases()
    }

    fn replica_status(&self) -> Option<ReplicaStatus> {
        Some(self.replica.status.borrow().clone())
    }

    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), StorageError> {
        self.replica.copy.add_transitions(transitions).await
    }

    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, StorageError> {
        self.replica.copy.transitions(id).await
    }

    async fn put_canary_record(&self, id: TargetId, record: CanaryRecord) -> Result<(), StorageError> {
        self.replica.copy.put_canary_record(id, record).await
    }

    async fn canary_record(&self, id: TargetId) -> Result<Option<CanaryRecord>, StorageError> {
        self.replica.copy.canary_record(id).await
    }

    async fn put_own_mounts(&self, mounts: Vec<(TargetId, Option<OwnMountId>)>) -> Result<(), StorageError> {
        self.replica.copy.put_own_mounts(mounts).await
    }

    async fn own_mounts(&self) -> Result<Vec<(TargetId, OwnMountId)>, StorageError> {
        self.replica.copy.own_mounts().await
    }

    async fn follow(&self) {
        let mut failures = 0;
        self.replica.wait_first().await;
        loop {
            failures = if self.compare().await { 0 } else { failures + 1 };
            let interval = self.replica.interval();
            let most = self.replica.fleet_size.stretched(RETRY_MAX);
            let time = match failures {
                0 => wait_after_success(interval),
                _ => wait_after_failure(interval, failures, most),
            };
            let is_early = self.replica.wait(time).await;
            if failures == 0 && !is_early {
                self.replica.wait_while_seen().await;
            }
        }
    }

    async fn close(&self) {
        // A running change is finished first.
        let _state = self.replica.state.lock().await;
        self.replica.copy.close().await;
    }
}
