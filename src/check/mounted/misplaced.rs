//! Misplaced mount: the mount path contained a symbolic link at the moment of mounting.
//!
//! Another process may have mounted this export at another path at the same moment. So a misplaced mount is
//! unmounted only if it is the only new mount and the mount path resolves to exactly its path. Otherwise it is only
//! reported.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::check::expected_mount::ExpectedMount;
use crate::sys::worker::UnmountHow;
use crate::sys::{Lane, MountEntry, MountTableWatch, Request, WorkerPool, run_bounded};

/// Command of coreutils that resolves a path. A command, because resolving may access a mounted file system.
const REALPATH: &str = "/usr/bin/realpath";

/// Unmounts a mount that is certainly misplaced. Returns what happened, as the end of a sentence.
pub(super) async fn undo(
    workers: &WorkerPool,
    mounts: &MountTableWatch,
    lane: Lane,
    expected: ExpectedMount<'_>,
    new_mounts: &[&MountEntry],
    deadline: Duration,
) -> String {
    if new_mounts.is_empty() {
        return String::new();
    }
    let resolved = resolved_path(workers, expected, deadline).await;
    let Some(entry) = certainly_misplaced(new_mounts, expected.path, resolved.as_deref()) else {
        let found = new_mounts.iter().map(|entry| entry.mount_point.display().to_string()).collect::<Vec<_>>();
        return format!(
            ". The export was mounted at {} at the same moment, possibly by another process: the agent did not touch it",
            found.join(", ")
        );
    };
    let at = entry.mount_point.display().to_string();
    let request =
        Request::Unmount { path: entry.mount_point.clone(), mount_id: entry.mount_id, how: UnmountHow::Plain };
    let unmounted = workers.call(expected.target, lane, request, deadline).await;
    // The unmount may have succeeded although no answer came.
    let is_gone = mounts.reread().is_ok_and(|table| {
        !table.entries().iter().any(|left| (left.mount_id, &left.mount_point) == (entry.mount_id, &entry.mount_point))
    });
    match unmounted {
        _ if is_gone => format!(". It was mounted at {at}, and was unmounted there"),
        Ok(_) => format!(". It is mounted at {at}, although unmounting it there succeeded: `umount {at}`"),
        Err(error) => format!(". It is mounted at {at}, and could not be unmounted there ({error}): `umount {at}`"),
    }
}

/// Returns the only new mount, if the mount path resolves through a link to exactly its path.
fn certainly_misplaced<'a>(
    new_mounts: &[&'a MountEntry],
    path: &Path,
    resolved: Option<&Path>,
) -> Option<&'a MountEntry> {
    match new_mounts {
        [entry] if resolved == Some(&entry.mount_point) && entry.mount_point != path => Some(entry),
        _ => None,
    }
}

async fn resolved_path(
    workers: &WorkerPool,
    expected: ExpectedMount<'_>,
    deadline: Duration,
) -> Option<std::path::PathBuf> {
    let arguments: [OsString; 4] = ["-e".into(), "-z".into(), "--".into(), expected.path.into()];
    let finished =
        run_bounded(workers.census(), expected.target, Path::new(REALPATH), &arguments, deadline).await.ok()?;
    let path = finished.stdout.strip_suffix('\0').filter(|_| finished.is_success())?;
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MountTable;

    #[test]
    fn mount_is_misplaced_only_at_the_resolved_path() {
        let table = MountTable::parse(
            b"1 1 0:1 / / rw - ext4 a rw\n2 1 0:2 / /elsewhere rw - nfs nas:/b rw\n3 1 0:3 / /theirs rw - nfs nas:/b rw\n",
        );
        let [_, ours, theirs] = table.entries() else { panic!("three mounts") };
        let path = Path::new("/m/x");
        let elsewhere = Some(Path::new("/elsewhere"));
        assert_eq!(certainly_misplaced(&[ours], path, elsewhere), Some(ours));
        assert_eq!(certainly_misplaced(&[theirs], path, elsewhere), None, "the path does not resolve to it");
        assert_eq!(certainly_misplaced(&[ours, theirs], path, elsewhere), None, "two new mounts");
        assert_eq!(certainly_misplaced(&[ours], path, None), None, "the path was not resolved");
        assert_eq!(certainly_misplaced(&[ours], Path::new("/elsewhere"), elsewhere), None, "it is at the mount path");
    }
}
