//! The log of own mounts: writes the identities of the mounts that this agent made to the registry.
//!
//! The driver records a mount in memory, and a separate task stores the changes. The driver waits for the registry's
//! disk only before it starts `mount.nfs`, and only for a bounded time. After a restart the agent recognizes its mounts
//! by the stored identities ([`recall`]). A mount whose identity was not stored is recognized only if its source is the
//! target's export.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::driver::{Host, OwnMounts};
use crate::registry::Registry;

/// Time from a failed write to the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Longest time that the agent waits for the last write when it stops.
const LAST_WRITE_MAX: Duration = Duration::from_millis(500);

/// Longest time that the agent waits for the registry when it starts.
const READ_MAX: Duration = Duration::from_secs(2);

/// Reads from the registry which mounts an earlier agent process made. Call it before the agent starts.
pub async fn recall(registry: &Registry, host: &Host) {
    let problem = match timeout(READ_MAX, registry.own_mounts()).await {
        Ok(Ok(mounts)) => return host.own_mounts.restore(mounts),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", READ_MAX.as_secs()),
    };
    tracing::error!(
        problem,
        "cannot read from the registry which mounts the agent made: they are recognized by their source only"
    );
}

/// Stores changes until the agent stops.
pub(super) async fn run(registry: &Registry, mounts: &OwnMounts, mut stopping: watch::Receiver<bool>) {
    let mut is_failing = false;
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = mounts.changed() => {}
        }
        while let Err(error) = store(registry, mounts).await {
            if !std::mem::replace(&mut is_failing, true) {
                tracing::error!(%error, "cannot store which mounts the agent made: the agent tries again");
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
        is_failing = false;
    }
}

/// Makes one attempt to store the remaining changes, and waits at most [`LAST_WRITE_MAX`].
pub(super) async fn store_rest(registry: &Registry, mounts: &OwnMounts) {
    if !matches!(timeout(LAST_WRITE_MAX, store(registry, mounts)).await, Ok(Ok(()))) {
        tracing::warn!("the latest mounts may not be stored: the registry did not confirm them in time");
    }
}

async fn store(registry: &Registry, mounts: &OwnMounts) -> Result<(), crate::registry::StorageError> {
    let unsaved = mounts.take_unsaved();
    if unsaved.is_empty() {
        return Ok(());
    }
    let targets: Vec<_> = unsaved.iter().map(|(target, _)| *target).collect();
    let stored = registry.put_own_mounts(unsaved).await;
    match stored {
        Ok(()) => mounts.confirm_saved(),
        Err(_) => mounts.keep_unsaved(targets),
    }
    stored
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::OwnMountId;
    use crate::registry::MemoryStore;
    use crate::registry::fixtures::{create, nfs};

    #[tokio::test]
    async fn stored_intent_ends_the_wait_of_a_mount() {
        let registry = Registry::new(Arc::new(MemoryStore::default()));
        let id = create(&registry, nfs("nas:/a")).await.target.id;
        let mounts = OwnMounts::default();
        mounts.expect_log();
        let stopping = watch::Sender::new(false);
        let mount = async {
            mounts.begin(id, Duration::from_secs(30));
            mounts.wait_until_saved(id).await;
            let stored = registry.own_mounts().await.expect("read");
            assert!(matches!(stored.as_slice(), [(_, mount)] if mount.is_intent()), "{stored:?}");
            stopping.send_replace(true);
        };
        tokio::join!(run(&registry, &mounts, stopping.subscribe()), mount);
    }

    #[tokio::test]
    async fn changed_mounts_are_stored_at_once_and_at_the_end() {
        let registry = Registry::new(Arc::new(MemoryStore::default()));
        let mounts = Arc::new(OwnMounts::default());
        let stopping = watch::Sender::new(false);
        let task = {
            let (registry, mounts, stopping) = (registry.clone(), mounts.clone(), stopping.subscribe());
            tokio::spawn(async move { run(&registry, &mounts, stopping).await })
        };
        let [boot_id, device, source] = ["a boot", "0:44", "nas:/a"].map(str::to_owned);
        let mount = OwnMountId { boot_id, mount_id: 7, device, source, command_ends_by_ms: None };
        for is_end in [false, true] {
            let id = create(&registry, nfs(if is_end { "nas:/b" } else { "nas:/a" })).await.target.id;
            registry.put_own_mounts(vec![(id, Some(mount.clone()))]).await.expect("stored");
            // The mount is gone.
            if is_end {
                stopping.send_replace(true);
                mounts.keep_unsaved([id]);
                store_rest(&registry, &mounts).await;
            } else {
                mounts.keep_unsaved([id]);
                while !registry.own_mounts().await.expect("read").is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(registry.own_mounts().await.expect("read"), []);
        }
        task.await.expect("ended");
    }
}
