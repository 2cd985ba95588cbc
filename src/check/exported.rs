//! `exported`: the server exports the path to this host, verified over the wire.

use std::time::Duration;

use super::checked::Checked;
use crate::nfs::{NfsError, Volume, VolumeAddress};

/// Requests the export from the server. The fact is the volume, which is valid until a call reports a stale file
/// handle.
pub async fn exported(address: &VolumeAddress, deadline: Duration) -> Checked<Volume> {
    match Volume::open(address, deadline).await {
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
    format!("not mounted ([mounts] mode = \"none\"): verified over the wire with NFS {}", volume.version())
}

/// Outcome of a check whose call over the wire failed.
pub(super) fn wire_failure<T>(error: &NfsError) -> Checked<T> {
    if error.is_timeout() { Checked::timed_out(error.finding()) } else { Checked::failed(error.finding()) }
}
