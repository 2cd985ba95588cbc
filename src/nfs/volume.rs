//! Volume: an exported directory that is accessed over the wire, without a mount.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinError;

use super::calls::BoundedCalls;
use super::canary::{self, CanaryFailure};
use super::error::NfsError;
use super::status::NfsStatus;
use super::transport::Records;
use super::v3::VolumeV3;
use super::v4::VolumeV4;
use super::volume_address::VolumeAddress;
use crate::model::canary_file::CanaryFileNames;
use crate::model::nfs_options::NfsVersion;
use crate::model::{BlockCounts, Reason};

/// An exported directory that the server granted to this host.
#[derive(Debug, Clone)]
pub struct Volume {
    access: Access,
}

#[derive(Debug, Clone)]
enum Access {
    V3(VolumeV3),
    V4(VolumeV4),
}

impl Volume {
    /// Requests the export from the server.
    ///
    /// If the version is negotiated, version 4 is tried first. Version 3 follows where `mount.nfs` does the same
    /// (`nfs_autonegotiate` in nfs-utils). That is if the server does not speak version 4, or answers that the path
    /// does not exist or that the operation is not permitted.
    ///
    /// # Errors
    /// [`NfsError`] when this did not succeed within `deadline`, which bounds all calls together.
    pub async fn open(address: &VolumeAddress, deadline: Duration) -> Result<Self, NfsError> {
        let (address, calls) = (address.clone(), BoundedCalls::start(deadline));
        to_the_end(async move { Self::open_within(&address, &calls).await }).await
    }

    async fn open_within(address: &VolumeAddress, calls: &BoundedCalls) -> Result<Self, NfsError> {
        if address.version == NfsVersion::V3 {
            return Self::open_v3(address, calls).await;
        }
        let nfs = SocketAddr::new(address.server, address.nfs_port);
        let error = match VolumeV4::open(nfs, &address.path, address.minor_version, calls).await {
            Ok(volume) => return Ok(Self { access: Access::V4(volume) }),
            Err(error) => error,
        };
        let is_refused = matches!(error.status(), Some(NfsStatus::NOENT | NfsStatus::PERM));
        let is_unsupported = error.reason() == Reason::NfsVersionUnsupported;
        if address.version != NfsVersion::Negotiated || !(is_refused || is_unsupported) {
            return Err(error);
        }
        // A server that speaks only version 4 has no port mapper, so its failure explains nothing.
        Self::open_v3(address, calls).await.map_err(|of_v3| if is_unsupported { of_v3 } else { error })
    }

    async fn open_v3(address: &VolumeAddress, calls: &BoundedCalls) -> Result<Self, NfsError> {
        Ok(Self { access: Access::V3(VolumeV3::open(address, calls).await?) })
    }

    /// Version of NFS, such as `4.2`.
    #[must_use]
    pub fn version(&self) -> String {
        match &self.access {
            Access::V3(_) => "3".to_owned(),
            Access::V4(volume) => format!("4.{}", volume.minor()),
        }
    }

    /// What the server says about itself and the volume, such as `lease 90 s`.
    #[must_use]
    pub fn facts(&self) -> Vec<String> {
        match &self.access {
            Access::V3(_) => Vec::new(),
            Access::V4(volume) => volume.facts(),
        }
    }

    /// Whether the volume is on the file system of the server's root, as a directory that is not an export of its own
    /// is. `None` if that is unknown.
    #[must_use]
    pub fn is_on_root_file_system(&self) -> Option<bool> {
        match &self.access {
            Access::V3(_) => None,
            Access::V4(volume) => volume.is_on_root_file_system(),
        }
    }

    /// Measures the volume, over this connection to its server if there is one. Version 4 uses a new one.
    ///
    /// # Errors
    /// [`NfsError`] when this did not succeed within `deadline`. Its reason is [`Reason::StaleHandle`] when the volume
    /// must be opened again.
    pub async fn counts(&self, connection: Option<Records>, deadline: Duration) -> Result<BlockCounts, NfsError> {
        let (access, calls) = (self.access.clone(), BoundedCalls::start(deadline));
        to_the_end(async move {
            match access {
                Access::V3(volume) => volume.counts(connection, &calls).await,
                Access::V4(volume) => {
                    drop(connection);
                    volume.counts(&calls).await
                }
            }
        })
        .await
    }

    /// Writes a canary as a user, reads it back, compares and removes it. Returns `None` for NFS 4.0, where this would
    /// leave state behind on the server.
    ///
    /// # Errors
    /// [`CanaryFailure`] when this did not succeed within `deadline`.
    pub async fn write_canary(
        &self,
        (uid, gid): (u32, u32),
        names: &CanaryFileNames,
        deadline: Duration,
    ) -> Option<Result<(), CanaryFailure>> {
        let (access, names, calls) = (self.access.clone(), names.clone(), BoundedCalls::start(deadline));
        to_the_end(async move {
            match access {
                Access::V3(volume) => Some(canary::write(&mut volume.files(uid, gid), &names, &calls).await),
                Access::V4(volume) => volume.write_canary((uid, gid), &names, &calls).await,
            }
        })
        .await
    }
}

/// Completes work although its caller is dropped, as when a target is deleted during a probe. It ends what it began on
/// the server, and its deadline bounds it.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The process ends.
        Err(Err(_)) => std::future::pending().await,
    }
}
