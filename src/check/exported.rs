//! `exported`: the server exports the path to this host, verified over the wire.

use std::time::Duration;

use super::checked::Checked;
use crate::model::Reason;
use crate::model::report::{Finding, finding};
use crate::nfs::{NfsError, Volume, VolumeAddress};

/// Requests the export from the server. The fact is the volume, which is valid until a call reports a stale file
/// handle.
///
/// `was_separate` says whether the path was on another file system than the server's root before. If it is now on the
/// root's file system, the export's file system is no longer mounted on the server, and its empty mount point is
/// visible. Without an earlier probe that is unknown: the path may be a directory of an export of the root.
pub async fn exported(address: &VolumeAddress, was_separate: bool, deadline: Duration) -> Checked<Volume> {
    match Volume::open(address, deadline).await {
        Ok(volume) if was_separate && volume.is_on_root_file_system() == Some(true) => {
            Checked::failed(withdrawn(&address.path))
        }
        Ok(volume) => {
            let how = how(&volume);
            Checked::passed(volume).detail(how)
        }
        Err(error) => wire_failure(&error),
    }
}

/// The same for a volume that the server granted this long ago. Nothing is requested.
#[must_use]
pub fn exported_earlier(volume: &Volume, age: Duration) -> Checked<Volume> {
    Checked::passed(volume.clone()).detail(format!("{}, granted {} s ago", how(volume), age.as_secs()))
}

fn how(volume: &Volume) -> String {
    let facts: String = volume.facts().iter().map(|fact| format!(", {fact}")).collect();
    format!("not mounted ([mounts] mode = \"none\"): verified over the wire with NFS {}{facts}", volume.version())
}

fn withdrawn(path: &str) -> Finding {
    finding!(
        Reason::ExportNotFound,
        "{path} is now a directory of the server's root file system, and was an export of its own before: check whether its file system is mounted and exported there. If the change is intended, restart the agent"
    )
}

/// Outcome of a check whose call over the wire failed.
pub(super) fn wire_failure<T>(error: &NfsError) -> Checked<T> {
    if error.is_timeout() { Checked::timed_out(error.finding()) } else { Checked::failed(error.finding()) }
}
