//! A shared registry in memory, with faults.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::registry::shared::{CloudId, SharedCommitError, SharedContent, SharedRegistry, SharedVersion, Unavailable};
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum SharedFault {
    /// No request is answered.
    Down,
    /// No request is answered after this number of commits.
    DownAfter(u32),
    /// The answer to the next commit does not arrive, although it is made.
    LostAnswer,
    /// The next commit does not arrive.
    LostRequest,
    /// [`SharedRegistry::version`] answers with the version before the latest one.
    OldVersion,
    /// [`SharedRegistry::version`] always answers with this generation, as a member that is cut off.
    FrozenVersion(i64),
    /// A read of the content never ends.
    EndlessRead,
}

/// A shared registry in memory. Clones are connections to the same one.
#[derive(Clone)]
pub(in crate::registry) struct FakeSharedRegistry {
    content: Arc<Mutex<FakeContent>>,
}

struct FakeContent {
    cloud_id: CloudId,
    generation: i64,
    snapshot: Snapshot,
    fault: Option<SharedFault>,
    reads: u32,
    compares: u32,
}

impl FakeSharedRegistry {
    pub(in crate::registry) fn new() -> Self {
        let content = FakeContent {
            cloud_id: CloudId(Uuid::new_v4()),
            generation: 1,
            snapshot: Snapshot::default(),
            fault: None,
            reads: 0,
            compares: 0,
        };
        Self { content: Arc::new(Mutex::new(content)) }
    }

    pub(in crate::registry) fn set(&self, fault: impl Into<Option<SharedFault>>) {
        self.lock().fault = fault.into();
    }

    /// Replaces the registry by an empty one of another cloud.
    pub(in crate::registry) fn replace(&self) {
        let new = Self::new();
        let new = Arc::into_inner(new.content).expect("one owner").into_inner().expect("not poisoned");
        *self.lock() = new;
    }

    pub(in crate::registry) fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    pub(in crate::registry) fn freeze_version(&self) {
        let generation = self.lock().generation;
        self.set(SharedFault::FrozenVersion(generation));
    }

    /// Number of reads of the whole content.
    pub(in crate::registry) fn reads(&self) -> u32 {
        self.lock().reads
    }

    /// Number of comparisons of the version.
    pub(in crate::registry) fn compares(&self) -> u32 {
        self.lock().compares
    }

    fn lock(&self) -> MutexGuard<'_, FakeContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) -> Result<MutexGuard<'_, FakeContent>, Unavailable> {
        let content = self.lock();
        if content.fault == Some(SharedFault::Down) {
            Err(Unavailable("no member answers".to_owned()))
        } else {
            Ok(content)
        }
    }
}

impl FakeContent {
    fn version(&self) -> SharedVersion {
        SharedVersion { cloud_id: self.cloud_id, generation: self.generation }
    }
}

#[async_trait]
impl SharedRegistry for FakeSharedRegistry {
    async fn cloud_id(&self) -> Result<CloudId, Unavailable> {
        Ok(self.answer()?.cloud_id)
    }

    async fn version(&self, _: Duration) -> Result<SharedVersion, Unavailable> {
        let mut content = self.answer()?;
        content.compares += 1;
        let version = content.version();
        let generation = match content.fault {
            Some(SharedFault::OldVersion) => version.generation - 1,
            Some(SharedFault::FrozenVersion(generation)) => generation,
            _ => version.generation,
        };
        Ok(SharedVersion { generation, ..version })
    }

    async fn latest_version(&self) -> Result<SharedVersion, Unavailable> {
        let mut content = self.answer()?;
        content.compares += 1;
        Ok(content.version())
    }

    async fn read(&self) -> Result<SharedContent, Unavailable> {
        if self.lock().fault == Some(SharedFault::EndlessRead) {
            return std::future::pending().await;
        }
        let mut content = self.answer()?;
        content.reads += 1;
        let targets = content.snapshot.targets().iter().map(|registered| RegisteredTarget::clone(registered));
        Ok(SharedContent { version: content.version(), targets: targets.collect() })
    }

    async fn commit(
        &self,
        expected: SharedVersion,
        before: &Snapshot,
        writes: &[Write],
    ) -> Result<SharedVersion, SharedCommitError> {
        let mut content = self.answer()?;
        if content.version() != expected {
            return Err(SharedCommitError::Conflict);
        }
        let before = before.clone().ordered_by_creation();
        assert_eq!(before.targets(), content.snapshot.targets(), "decided for other content");
        let fault = content.fault;
        if !writes.is_empty() && fault != Some(SharedFault::LostRequest) {
            content.generation += 1;
            let next = content.snapshot.apply(writes, content.snapshot.revision().next());
            content.snapshot = next.ordered_by_creation();
        }
        match fault {
            Some(SharedFault::DownAfter(commits)) => {
                content.fault = Some(if commits > 1 { SharedFault::DownAfter(commits - 1) } else { SharedFault::Down });
                Ok(content.version())
            }
            Some(SharedFault::LostAnswer | SharedFault::LostRequest) => {
                content.fault = None;
                Err(SharedCommitError::Uncertain("no answer".to_owned()))
            }
            _ => Ok(content.version()),
        }
    }
}
