//! The interface of a registry that all nodes of a cloud share.
//!
//! Every node keeps a copy of the content and compares its version with the shared one at an interval. So a node
//! without a connection keeps its targets. Nothing here is needed to probe one.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use super::snapshot::{RegisteredTarget, Snapshot, Write};

/// Identity of a shared registry, chosen when it is created. Two clouds never have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloudId(pub Uuid);

impl fmt::Display for CloudId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Version of the content of a shared registry. Every commit makes another one. The engine defines its meaning, such as
/// the revision of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedVersion {
    /// The registry. Versions of two registries are never equal.
    pub cloud_id: CloudId,
    /// Number that every commit changes.
    pub generation: i64,
}

/// When requests for something else showed the known version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenVersion {
    /// The latest one.
    pub at: Instant,
    /// The latest one that a quorum answered.
    pub confirmed: Option<Instant>,
}

/// The content of a shared registry at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedContent {
    /// The version.
    pub version: SharedVersion,
    /// Every target with its types, in the order of [`Snapshot::ordered_by_creation`].
    pub targets: Vec<RegisteredTarget>,
}

/// Largest number of writes that one commit can make in every engine. A change of the API makes a few.
pub const COMMIT_WRITES_MAX: usize = 100;

/// Largest size of the writes of one commit in every engine, as documents, in bytes.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;

/// Why the shared registry cannot be used now. The text is for the operator, without a final period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Why a commit to a shared registry failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharedCommitError {
    /// The registry is not at the expected version. Nothing was changed.
    #[error("the shared registry is no longer at the version for which the change was decided")]
    Conflict,
    /// The registry cannot be changed now. Nothing was changed.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The connection failed after the request was sent, and it is not known whether the change was made.
    #[error("it is not known whether the change was made: {0}")]
    Uncertain(String),
}

/// A registry that all nodes of a cloud share. Every call has a time limit.
#[async_trait]
pub trait SharedRegistry: Send + Sync + 'static {
    /// Returns the id of the registry, and creates an empty registry if there is none.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn cloud_id(&self) -> Result<CloudId, Unavailable>;

    /// Returns the version of the content, which may be an old one: a member without a quorum may answer, or a request
    /// for something else has shown the version at most this long ago.
    ///
    /// # Errors
    /// [`Unavailable`], also when there is no registry.
    async fn version(&self, age_max: Duration) -> Result<SharedVersion, Unavailable>;

    /// Returns the version of the content, which includes every commit that was acknowledged before the call.
    ///
    /// # Errors
    /// [`Unavailable`], also when there is no registry.
    async fn latest_version(&self) -> Result<SharedVersion, Unavailable>;

    /// Returns when requests for something else last showed that the version is the known one. `None`: none has.
    fn seen(&self) -> Option<SeenVersion> {
        None
    }

    /// Waits until something else than a call of this interface has shown that the version may have changed.
    async fn changed(&self) {
        std::future::pending().await
    }

    /// Returns the content, which includes every commit that was acknowledged before the call.
    ///
    /// # Errors
    /// [`Unavailable`], also when there is no registry.
    async fn read(&self) -> Result<SharedContent, Unavailable>;

    /// Makes all writes if the registry is at the `expected` version, and returns the new version. `before` is the
    /// content at the expected version. A commit of no writes verifies that a quorum has the expected version and that
    /// this agent may change the registry. It writes nothing.
    ///
    /// # Errors
    /// [`SharedCommitError`], which says whether something was changed.
    async fn commit(
        &self,
        expected: SharedVersion,
        before: &Snapshot,
        writes: &[Write],
    ) -> Result<SharedVersion, SharedCommitError>;
}
