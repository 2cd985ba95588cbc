//! The mount root: whether users other than root could redirect a mount. A probe worker looks.

use std::sync::Arc;

use super::bounds::STEP_DEADLINE;
use super::facts::Facts;
use super::result::HostCheck;
use crate::cli::running_agent;
use crate::driver::{self, ProcessRole};
use crate::sys::ChildCensus;

/// Why a check of the mount root is skipped.
pub(super) const MOUNTS_ELSEWHERE: &str =
    "[mounts] mode is not \"kernel\": the agent mounts nothing below the mount root";

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    if !facts.uses_mount_root() {
        return HostCheck::skipped(MOUNTS_ELSEWHERE);
    }
    let host = match running_agent::host(ChildCensus::new(), ProcessRole::OneShot).await {
        Ok(host) => host,
        Err(error) => return HostCheck::unknown(format!("{error:#}")),
    };
    let root = &facts.settings.agent.mounts.root;
    let exists = driver::mount_root_exists(&host.workers, root, STEP_DEADLINE).await;
    host.workers.shut_down();
    match exists {
        Ok(true) => HostCheck::passed(format!("{}: only root can redirect mounts below it", root.display())),
        Ok(false) => HostCheck::passed(format!("{} does not exist: the agent creates it", root.display())),
        Err(problem) => HostCheck::failed(problem),
    }
}
