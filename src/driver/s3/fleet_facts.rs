//! Facts of a bucket that the nodes of a fleet share: how they are written, and what they are valid for.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::lock_proof::schedule::{Basis, COUNTS_FOR_INTERVALS};
use crate::driver::shared_facts::{FactBoard, FactKey, FactKind, FactQuestion, SharedFact, Turn};
use crate::model::digest::sha256_hex;
use crate::model::settings::AgentSettings;
use crate::model::usage_listing::{UsageTally, WholeCount};
use crate::model::{LockProof, LockVerdict, Reason, TargetId, UsageListing};
use crate::s3::BucketUsage;

/// Probes after which a bucket that was not reached again is left to other nodes.
const WANTED_FOR_INTERVALS: u32 = 3;

/// Intervals for which the state of a bucket counts, besides the time until it is read.
const WATCHED_FOR_INTERVALS: u32 = 2;

/// Longest explanation of a verdict that is shared, in characters.
const WHY_MAX: usize = 1000;

/// The facts that a bucket shares with other nodes. Without a board, this node finds all facts itself.
pub(super) struct SharedBucketFacts {
    target: TargetId,
    board: Option<Arc<FactBoard>>,
    /// Whether the credentials are temporary. Temporary credentials differ between nodes, and are replaced soon.
    is_temporary: bool,
}

/// How this node gets a fact.
pub(super) enum FactSource<T> {
    /// It finds the fact.
    Find,
    /// It waits until another node has found it.
    Wait,
    /// Another node found it.
    Use(T),
}

/// What another node says of a bucket that it watches.
pub(super) enum WatchState {
    /// No other node watches it.
    Unwatched,
    /// The other nodes cannot be heard: etcd is away, or the node that watched the bucket has no news.
    OutOfTouch,
    /// It is available, and its configuration is the one that this node knows.
    Available(Watcher),
    /// It is unavailable, or its configuration differs from the one that this node knows.
    Changed,
}

/// A node that watches a bucket.
pub(super) struct Watcher {
    /// Its latest fact.
    pub(super) fact: SharedFact,
    /// Usage of the bucket, if the service reports it.
    pub(super) usage: Option<BucketUsage>,
    /// Configuration of the bucket, as the nodes share it.
    configuration: String,
}

#[derive(Serialize, Deserialize)]
struct StoredBucket {
    /// Reason code of the failure. `None` while the bucket is available.
    reason: Option<String>,
    /// Versioning, object lock and default retention.
    configuration: String,
    /// Usage, if the service reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<StoredUsage>,
}

/// The part of [`BucketUsage`] that depends on the bucket alone.
#[derive(Serialize, Deserialize)]
struct StoredUsage {
    used_bytes: u64,
    object_count: Option<u64>,
    quota_bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredLockProof {
    verdict: String,
    why: String,
}

#[derive(Serialize, Deserialize)]
struct StoredCount {
    pages: u64,
    versions: u64,
    delete_markers: u64,
    bytes: u64,
    counts_versions: bool,
    began_at: Timestamp,
}

impl StoredBucket {
    fn is_available_with(&self, configuration: &str) -> bool {
        self.reason.is_none() && self.configuration == configuration
    }
}

impl StoredUsage {
    fn of(usage: &BucketUsage) -> Option<Self> {
        let BucketUsage { used_bytes, object_count, quota_bytes, .. } = *usage;
        used_bytes.map(|used_bytes| Self { used_bytes, object_count, quota_bytes })
    }

    fn into_usage(self) -> BucketUsage {
        let Self { used_bytes, object_count, quota_bytes } = self;
        BucketUsage { used_bytes: Some(used_bytes), object_count, quota_bytes, ..BucketUsage::default() }
    }
}

impl SharedBucketFacts {
    pub(super) fn new(target: TargetId, board: Option<Arc<FactBoard>>) -> Self {
        Self { target, board, is_temporary: false }
    }

    /// Sets whether the credentials of this node end. Then nothing is shared.
    pub(super) fn set_temporary(&mut self, is_temporary: bool) {
        self.is_temporary = is_temporary;
    }

    fn board(&self) -> Option<&FactBoard> {
        self.board.as_deref().filter(|_| !self.is_temporary)
    }

    /// Returns how this node gets the verdict about the lock.
    pub(super) fn lock_proof(&self, basis: &Basis, settings: &AgentSettings) -> FactSource<LockProof> {
        let age_max = basis.settings.interval * COUNTS_FOR_INTERVALS;
        self.source(&self.key_of_lock(basis), age_max, settings, |fact| {
            let StoredLockProof { verdict, why } = serde_json::from_str(&fact.value).ok()?;
            let (verdict, proved_at) = (LockVerdict::parse(&verdict)?, fact.observed_at);
            Some(LockProof { verdict, why, proved_at, node: Some(fact.node.clone()) })
        })
    }

    /// Shares a verdict that this node found.
    pub(super) fn share_lock_proof(&self, basis: &Basis, proof: &LockProof) {
        let why = proof.why.chars().take(WHY_MAX).collect();
        let value = StoredLockProof { verdict: proof.verdict.as_str().to_owned(), why };
        self.share(&self.key_of_lock(basis), proof.proved_at, &value);
    }

    /// Returns how this node gets the count of the bucket's content.
    pub(super) fn usage_listing(&self, access_key_id: &str, settings: &AgentSettings) -> FactSource<UsageListing> {
        // A run may last for several intervals.
        let age_max = settings.s3_listing.interval * 4;
        self.source(&self.key_of_count(access_key_id), age_max, settings, |fact| {
            let StoredCount { pages, versions, delete_markers, bytes, counts_versions, began_at } =
                serde_json::from_str(&fact.value).ok()?;
            let tally = UsageTally { pages, versions, delete_markers, bytes, counts_versions };
            let whole = Some(WholeCount { tally, began_at, ended_at: fact.observed_at });
            Some(UsageListing { whole, node: Some(fact.node.clone()), ..UsageListing::default() })
        })
    }

    /// Shares a count that this node made.
    pub(super) fn share_count(&self, access_key_id: &str, count: &WholeCount) {
        let WholeCount { tally, began_at, ended_at } = *count;
        let UsageTally { pages, versions, delete_markers, bytes, counts_versions } = tally;
        let value = StoredCount { pages, versions, delete_markers, bytes, counts_versions, began_at };
        self.share(&self.key_of_count(access_key_id), ended_at, &value);
    }

    /// Returns the state reported by the node that watches the bucket. `configuration` is the one that this node knows.
    pub(super) fn watched(&self, access_key_id: &str, configuration: &str, settings: &AgentSettings) -> WatchState {
        let Some(board) = self.board() else { return WatchState::Unwatched };
        // A fact is renewed at each probe of its node, and read here some time later.
        let age_max = settings.probe.s3_interval * WATCHED_FOR_INTERVALS + board.pace().look_interval;
        let key = self.key_of_bucket(access_key_id);
        let source = self.source(&key, age_max, settings, |fact| {
            let stored: StoredBucket = serde_json::from_str(&fact.value).ok()?;
            if !stored.is_available_with(configuration) {
                return Some(WatchState::Changed);
            }
            let (usage, configuration) = (stored.usage.map(StoredUsage::into_usage), stored.configuration);
            Some(WatchState::Available(Watcher { fact: fact.clone(), usage, configuration }))
        });
        match source {
            FactSource::Use(watched) => watched,
            FactSource::Find | FactSource::Wait if board.is_out_of_touch(&key) => WatchState::OutOfTouch,
            FactSource::Find | FactSource::Wait => WatchState::Unwatched,
        }
    }

    /// Shares whether the bucket is available, if this node watches it.
    pub(super) fn share_bucket(
        &self,
        access_key_id: &str,
        reason: Option<Reason>,
        configuration: &str,
        usage: &BucketUsage,
    ) {
        let reason = reason.map(|reason| reason.as_str().to_owned());
        let usage = StoredUsage::of(usage);
        let value = StoredBucket { reason, configuration: configuration.to_owned(), usage };
        self.share(&self.key_of_bucket(access_key_id), Timestamp::now(), &value);
    }

    /// Keeps the facts of this target while its driver does not ask for them.
    pub(super) fn renew(&self, settings: &AgentSettings) {
        if let Some(board) = self.board() {
            board.renew(self.target, settings.probe.s3_interval * WANTED_FOR_INTERVALS);
        }
    }

    /// Waits until the node that watches the bucket finds it unavailable, or with another configuration, or until
    /// another node has to watch it. Another usage is no news. Returns the number of nodes, which all get the news.
    /// Never returns without a fleet. Dropping the future is safe.
    pub(super) async fn news(&self, access_key_id: &str, watcher: &Watcher) -> u64 {
        let Some(board) = self.board() else { return std::future::pending().await };
        let is_current = |fact: &SharedFact| {
            let stored = serde_json::from_str::<StoredBucket>(&fact.value);
            stored.is_ok_and(|stored| stored.is_available_with(&watcher.configuration))
        };
        board.outdated(&self.key_of_bucket(access_key_id), is_current).await;
        board.pace().nodes
    }

    fn source<T>(
        &self,
        key: &FactKey,
        age_max: Duration,
        settings: &AgentSettings,
        decode: impl FnOnce(&SharedFact) -> Option<T>,
    ) -> FactSource<T> {
        let Some(board) = self.board() else { return FactSource::Find };
        let wanted_for = settings.probe.s3_interval * WANTED_FOR_INTERVALS;
        match board.turn(FactQuestion { key, age_max, wanted_for }) {
            Turn::Find => FactSource::Find,
            Turn::Wait => FactSource::Wait,
            // A fact of a newer release may not be understood.
            Turn::Use(fact) => decode(&fact).map_or(FactSource::Find, FactSource::Use),
        }
    }

    fn share(&self, key: &FactKey, observed_at: Timestamp, value: &impl Serialize) {
        let Some(board) = self.board() else { return };
        if let Ok(value) = serde_json::to_string(value) {
            board.post(key, SharedFact { node: String::new(), observed_at, value });
        }
    }

    /// A verdict depends on the access key, and on all that [`Basis::has_same_subject_as`] compares except for the
    /// access rule, which names files of this node.
    fn key_of_lock(&self, basis: &Basis) -> FactKey {
        let lock = &basis.lock;
        let retention = lock.default_retention.map(|retention| retention.to_string()).unwrap_or_default();
        let subject = digest(&[
            &basis.access_key_id,
            &format!("{:?} {:?} {retention} {}", basis.versioning, lock.enabled, basis.mode()),
            &basis.canary.prefix,
            &basis.canary.retention.as_secs().to_string(),
        ]);
        FactKey { target: self.target, kind: FactKind::LockProof, subject }
    }

    fn key_of_bucket(&self, access_key_id: &str) -> FactKey {
        FactKey { target: self.target, kind: FactKind::Bucket, subject: digest(&[access_key_id]) }
    }

    fn key_of_count(&self, access_key_id: &str) -> FactKey {
        FactKey { target: self.target, kind: FactKind::UsageListing, subject: digest(&[access_key_id]) }
    }
}

/// Number of bytes of the digest that names the subject of a fact.
const SUBJECT_BYTES: usize = 16;

/// Returns a digest. Access keys are not secret, but need not be readable by all nodes.
fn digest(parts: &[&str]) -> String {
    let content: Vec<u8> =
        parts.iter().flat_map(|part| [&part.len().to_be_bytes()[..], part.as_bytes()].concat()).collect();
    sha256_hex(content, SUBJECT_BYTES)
}
