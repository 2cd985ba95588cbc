//! An export that the server granted to a probe over the wire.

use std::time::{Duration, Instant};

use crate::nfs::{Volume, VolumeAddress};

/// How long a file handle is used before the driver requests a new one. The mountd of servers logs each such request. A
/// request at every probe would only fill the server's log, because NFS itself refuses the handle of an
/// export that was withdrawn.
const GRANT_REUSE: Duration = Duration::from_secs(300);

/// An export that the server granted.
pub(super) struct GrantedExport {
    pub(super) since: Instant,
    pub(super) address: VolumeAddress,
    pub(super) volume: Volume,
}

impl GrantedExport {
    /// Whether the file handle can be used for the export at this address.
    pub(super) fn is_usable_at(&self, address: &VolumeAddress) -> bool {
        self.address == *address && self.since.elapsed() < GRANT_REUSE
    }
}
