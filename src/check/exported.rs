//! `exported`: the server gives the path to this host, asked over the wire (MOUNT and FSINFO).

use std::time::Duration;

use super::Checked;
use crate::nfs::{NfsError, Volume, VolumeAddress};

/// Asks for the export. The fact is the volume, which stays good until a call says that its
/// handle is stale.
pub async fn exported(address: &VolumeAddress, deadline: Duration) -> Checked<Volume> {
    match Volume::open(address, deadline).await {
        Ok(volume) => Checked::passed(volume).detail("not mounted ([mounts] mode = \"none\"): asked over the wire"),
        Err(error) => wire_failure(&error),
    }
}

/// The outcome of a check whose call over the wire failed.
pub(super) fn wire_failure<T>(error: &NfsError) -> Checked<T> {
    if error.is_timeout() { Checked::timed_out(error.finding()) } else { Checked::failed(error.finding()) }
}
