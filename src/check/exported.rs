//! `exported`: the server exports the path to this host, verified over the wire (MOUNT and FSINFO).

use std::time::Duration;

use super::checked::Checked;
use crate::nfs::{NfsError, Volume, VolumeAddress};

/// Requests the export from the server. The fact is the volume, which is valid until a call reports a stale file
/// handle.
pub async fn exported(address: &VolumeAddress, deadline: Duration) -> Checked<Volume> {
    match Volume::open(address, deadline).await {
        Ok(volume) => Checked::passed(volume).detail("not mounted ([mounts] mode = \"none\"): verified over the wire"),
        Err(error) => wire_failure(&error),
    }
}

/// Outcome of a check whose call over the wire failed.
pub(super) fn wire_failure<T>(error: &NfsError) -> Checked<T> {
    if error.is_timeout() { Checked::timed_out(error.finding()) } else { Checked::failed(error.finding()) }
}
