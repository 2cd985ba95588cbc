//! Misplaced mount: the mount path contained a symbolic link at the moment of mounting.
//!
//! A new mount of this export at another path may also be one that another process made at that moment.
//! So it is unmounted only if it is the only new one and the mount path resolves to exactly its path.
//! Otherwise it is only reported.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::MountPlace;
use crate::sys::worker::UnmountHow;
use crate::sys::{Lane, MountEntry, MountTableWatch, Request, WorkerPool, run_bounded};

/// Command of coreutils that resolves a path. It may have to access what is mounted there.
const REALPATH: &str = "/usr/bin/realpath";

/// Unmounts a mount that is certainly misplaced. Returns the result as text.
pub(super) async fn undo(
    workers: &WorkerPool,
    mounts: &MountTableWatch,
    lane: Lane,
    place: MountPlace<'_>,
    new_mounts: &[&MountEntry],
    deadline: Duration,
) -> String {
    if new_mounts.is_empty() {
        return String::new();
    }
    let leads_to = where_it_leads(workers, place, deadline).await;
    let Some(entry) = surely_astray(new_mounts, place.path, leads_to.as_deref()) else {
        let found = new_mounts.iter().map(|entry| entry.mount_point.display().to_string()).collect::<Vec<_>>();
        return format!(". Mounted in the same moment, by whomever, is {}: it was left alone", found.join(", "));
    };
    let at = entry.mount_point.display().to_string();
    let request = Request::Unmount { path: entry.mount_point.clone(), how: UnmountHow::Plain };
    let unmounted = workers.call(place.target, lane, request, deadline).await;
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
fn surely_astray<'a>(new_mounts: &[&'a MountEntry], path: &Path, leads_to: Option<&Path>) -> Option<&'a MountEntry> {
    match new_mounts {
        [entry] if leads_to == Some(&entry.mount_point) && entry.mount_point != path => Some(entry),
        _ => None,
    }
}

async fn where_it_leads(workers: &WorkerPool, place: MountPlace<'_>, deadline: Duration) -> Option<std::path::PathBuf> {
    let arguments: [OsString; 4] = ["-e".into(), "-z".into(), "--".into(), place.path.into()];
    let finished = run_bounded(workers.census(), place.target, Path::new(REALPATH), &arguments, deadline).await.ok()?;
    let path = finished.stdout.strip_suffix('\0').filter(|_| finished.is_success())?;
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MountTable;

    #[test]
    fn only_one_mount_exactly_where_the_path_leads_went_astray() {
        let table = MountTable::parse(
            b"1 1 0:1 / / rw - ext4 a rw\n2 1 0:2 / /elsewhere rw - nfs nas:/b rw\n3 1 0:3 / /theirs rw - nfs nas:/b rw\n",
        );
        let [_, ours, theirs] = table.entries() else { panic!("three mounts") };
        let path = Path::new("/m/x");
        let elsewhere = Some(Path::new("/elsewhere"));
        assert_eq!(surely_astray(&[ours], path, elsewhere), Some(ours));
        assert_eq!(surely_astray(&[theirs], path, elsewhere), None, "the path does not lead there");
        assert_eq!(surely_astray(&[ours, theirs], path, elsewhere), None, "there are two");
        assert_eq!(surely_astray(&[ours], path, None), None, "where the path leads is not known");
        assert_eq!(surely_astray(&[ours], Path::new("/elsewhere"), elsewhere), None, "it is where it belongs");
    }
}
