//! Sweep of the private root at start: ends private mounts that no target owns.
//!
//! A target's own task ends its private mount, also after a change of its mode or options. So only mounts of targets
//! that were removed, or whose export changed, while the agent did not run are ended here. So are those of
//! targets whose scope does not contain the node any more.

use std::sync::Arc;

use super::shared::Shared;
use crate::driver::{DetachError, PrivateMount};

/// Maximum number of private mounts that one start of the agent ends.
const SWEPT_MAX: usize = 64;

/// Ends private mounts that no target owns, one after the other. Tries each mount once, and stops with the agent.
pub(super) async fn sweep(shared: &Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = end_unowned(shared) => {}
    }
}

async fn end_unowned(shared: &Arc<Shared>) {
    let settings = shared.settings.borrow().clone();
    let mut unowned = PrivateMount::all(&shared.host.mounts.current(), &settings);
    // The task of a target that uses the directory ends a mount that does not fit.
    unowned.retain(|mount| !shared.is_directory_used(&mount.name));
    if unowned.len() > SWEPT_MAX {
        tracing::warn!(
            found = unowned.len(),
            "too many private mounts belong to no target: the agent unmounts {SWEPT_MAX} of them, and others at its next start"
        );
        unowned.truncate(SWEPT_MAX);
    }
    for mount in unowned {
        // Announced before the registry is read, so that a target that is created later waits for the unmount.
        let _unmounting = shared.begin_unmount(&mount.name);
        if shared.is_directory_used(&mount.name) {
            continue;
        }
        let path = mount.name.below(&settings.mounts.private_root);
        let path = path.display();
        let problem = match mount.end(&shared.host, &settings).await {
            Ok(remark) => {
                tracing::info!(%path, remark, "unmounted a private mount that belongs to no target");
                continue;
            }
            Err(DetachError::Busy) => "it is in use".to_owned(),
            Err(DetachError::Failed(finding)) => finding.message,
        };
        tracing::warn!(%path, problem, "a private mount that belongs to no target stays: `umount` it");
    }
}
