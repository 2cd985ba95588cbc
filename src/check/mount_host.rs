//! What mounting needs on this host, whatever the targets are: `mount.nfs` and a protected mount root.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::mount_failure::command_failure;
use super::mounted::{MOUNT_NFS, unprepared};
use crate::model::TargetId;
use crate::model::report::Finding;
use crate::sys::{CallError, ChildCensus, CommandError, Lane, Request, WorkerPool, run_bounded};

/// Name of a directory below the mount root, which need not exist.
const ANY_MOUNT_POINT: &str = "any";

/// Returns what `mount.nfs -V` prints.
///
/// # Errors
/// Why it cannot be run, and what to do.
pub async fn mount_helper_version(census: &ChildCensus, deadline: Duration) -> Result<String, String> {
    let arguments = [OsString::from("-V")];
    match run_bounded(census, TargetId::nil(), Path::new(MOUNT_NFS), &arguments, deadline).await {
        Ok(finished) if finished.is_success() => Ok(finished.stdout.trim().to_owned()),
        Ok(finished) => Err(format!(
            "{MOUNT_NFS} -V failed ({}): reinstall its package",
            [finished.stderr.trim(), "no message"].into_iter().find(|text| !text.is_empty()).unwrap_or_default()
        )),
        Err(error @ CommandError::NotFound(_)) => Err(message(command_failure::<()>(&error).finding(), &error)),
        Err(error) => Err(format!("{error}: reinstall its package")),
    }
}

/// Returns whether the mount root exists. Verifies that no user other than root can redirect a mount below it.
///
/// # Errors
/// Why nothing would be mounted there, and what to do.
pub async fn mount_root_exists(workers: &WorkerPool, root: &Path, deadline: Duration) -> Result<bool, String> {
    let request = Request::VerifyMountPoint { path: root.join(ANY_MOUNT_POINT) };
    match workers.call(TargetId::nil(), Lane::Suspect, request, deadline).await {
        Ok(_) => Ok(true),
        // Every parent that exists was verified before.
        Err(CallError::Fault(fault)) if fault.errno() == Some(Errno::ENOENT) => Ok(false),
        Err(error) => {
            let text = error.to_string();
            Err(message(unprepared::<()>(error).finding(), &text))
        }
    }
}

fn message(finding: Option<&Finding>, otherwise: &impl ToString) -> String {
    finding.map_or_else(|| otherwise.to_string(), |finding| finding.message.clone())
}
