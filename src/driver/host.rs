//! Resources of this host that all drivers share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::nfs::wire_turns::WireTurns;
use super::s3::listing::PAGES_AT_ONCE;
use super::shared_facts::FactBoard;
use crate::check::canary::ProcessRole;
use crate::check::object_canary::CanaryStore;
use crate::check::own_mounts::OwnMounts;
use crate::key_manager::KeyManager;
use crate::model::{LabeledNode, Target};
use crate::s3::aws::ClientPool;
use crate::sys::{ConsumerWatch, HostMounts, MountStatsCache, MountTableWatch, WorkerPool};

/// Resources of this host that all drivers share.
#[derive(Debug)]
pub struct Host {
    /// The probe workers.
    pub workers: WorkerPool,
    /// The mount table.
    pub mounts: MountTableWatch,
    /// The mount table of the host, if it has another one.
    pub host_mounts: HostMounts,
    /// The processes that should see the mounts.
    pub consumers: ConsumerWatch,
    /// The mounts that the agent made below the mount root.
    pub own_mounts: OwnMounts,
    /// The private mounts that this process made ([`crate::model::MountMode::Observe`]).
    pub private_mounts: OwnMounts,
    /// The key manager, with the secrets that were read.
    pub key_manager: KeyManager,
    /// The S3 clients.
    pub buckets: Arc<ClientPool>,
    /// Permits of bucket listings. Each permit is for one page.
    pub listing_pages: Arc<Semaphore>,
    /// Turns of probes over the wire.
    pub wire_turns: WireTurns,
    /// NFS counters of the kernel.
    pub mount_stats: MountStatsCache,
    /// This node's name.
    pub hostname: String,
    /// Whether this process is the daemon or a one-shot command.
    pub role: ProcessRole,
    /// Durable records of canaries. `None` for a process that ends after one probe.
    pub canaries: Option<Arc<dyn CanaryStore>>,
    /// Facts that the nodes of a fleet share. `None` without a fleet.
    pub facts: Option<Arc<FactBoard>>,
    /// This node in the fleet. Only targets whose scope contains it are its own. `None`: all targets.
    pub fleet_node: Option<LabeledNode>,
}

impl Host {
    /// A host without S3 clients and without counters.
    #[must_use]
    pub fn new(workers: WorkerPool, mounts: MountTableWatch, hostname: String, role: ProcessRole) -> Self {
        Self {
            workers,
            mounts,
            host_mounts: HostMounts::default(),
            consumers: ConsumerWatch::default(),
            own_mounts: OwnMounts::default(),
            private_mounts: OwnMounts::default(),
            key_manager: KeyManager::default(),
            buckets: Arc::default(),
            listing_pages: Arc::new(Semaphore::new(PAGES_AT_ONCE)),
            wire_turns: WireTurns::default(),
            mount_stats: MountStatsCache::default(),
            hostname,
            role,
            canaries: None,
            facts: None,
            fleet_node: None,
        }
    }

    /// Whether a target is expected on this node.
    #[must_use]
    pub fn is_in_scope_of(&self, target: &Target) -> bool {
        match (&target.scope, &self.fleet_node) {
            (Some(scope), Some(node)) => scope.contains(node),
            _ => true,
        }
    }

    /// The same host with durable records of canaries.
    #[must_use]
    pub fn with_canary_store(self, store: Arc<dyn CanaryStore>) -> Self {
        Self { canaries: Some(store), ..self }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "for tests only")]
impl Host {
    /// A host on which no worker can be started.
    pub(crate) fn without_workers() -> Self {
        let settings = crate::sys::WorkerPoolSettings::new("/nonexistent".into());
        let workers = WorkerPool::new(settings, crate::sys::ChildCensus::new());
        Self::new(workers, MountTableWatch::start().expect("/proc"), "test".to_owned(), ProcessRole::Daemon)
    }
}
