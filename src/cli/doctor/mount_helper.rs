//! `mount.nfs`: whether it is installed, and its version.

use std::sync::Arc;

use super::bounds::STEP_DEADLINE;
use super::facts::Facts;
use super::result::HostCheck;
use crate::driver;
use crate::sys::ChildCensus;

/// Why checks of mounting are skipped.
pub(super) const MOUNTS_NOTHING: &str = "[mounts] mode = \"none\": the agent mounts nothing";

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    if !facts.mounts() {
        return HostCheck::skipped(MOUNTS_NOTHING);
    }
    match driver::mount_helper_version(&ChildCensus::new(), STEP_DEADLINE).await {
        Ok(version) => HostCheck::passed(version),
        Err(problem) => HostCheck::failed(problem),
    }
}
