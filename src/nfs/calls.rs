//! Calls that share one deadline.

use std::net::SocketAddr;
use std::time::Duration;

use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use tokio::time::Instant;

use super::error::NfsError;
use super::transport::{self, Records};

/// Name of the NFS service in messages.
pub(super) const NFS: &str = "NFS";

/// Pause before the next retry of a call that the server asked to repeat later.
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(50))
    }
}

const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Calls that share one deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct BoundedCalls {
    deadline: Duration,
    end: Instant,
}

impl BoundedCalls {
    pub(super) fn start(deadline: Duration) -> Self {
        Self { deadline, end: Instant::now() + deadline }
    }

    /// The same calls with an earlier end, which leaves a fifth of the deadline for cleaning up.
    pub(super) fn before_cleanup(&self) -> Self {
        let reserved = self.deadline / 5;
        Self { deadline: self.deadline - reserved, end: self.end - reserved }
    }

    /// Waits before a retry that the server asked for, longer each time. Returns whether there is time for one.
    pub(super) async fn pause(&self, pause: &mut Pause) -> bool {
        let is_in_time = Instant::now() + pause.0 < self.end;
        if is_in_time {
            tokio::time::sleep(pause.0).await;
            pause.0 = (pause.0 * 2).min(PAUSE_MAX);
        }
        is_in_time
    }

    pub(super) async fn connect(&self, service: &'static str, address: SocketAddr) -> Result<Records, NfsError> {
        let connection = self.within(service, "connect", transport::connect(address)).await?;
        connection.map_err(|source| NfsError::Connect { service, address, source })
    }

    pub(super) async fn call<T>(
        &self,
        service: &'static str,
        call: &'static str,
        version: u32,
        answer: impl Future<Output = Result<T, nfs3_client::RpcError>>,
    ) -> Result<T, NfsError> {
        self.within(service, call, answer).await?.map_err(|error| NfsError::call(service, call, version, error))
    }

    async fn within<T>(
        &self,
        service: &'static str,
        call: &'static str,
        answer: impl Future<Output = T>,
    ) -> Result<T, NfsError> {
        let late = |_| NfsError::TimedOut { service, call, after: self.deadline };
        tokio::time::timeout_at(self.end, answer).await.map_err(late)
    }
}

/// AUTH_UNIX credential (RFC 5531 §14) of a user without supplementary groups.
pub(super) fn credential(uid: u32, gid: u32) -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix {
        machinename: Opaque::borrowed(b"targetwatch"),
        uid,
        gid,
        ..auth_unix::default()
    })
}

/// Credential of root, as the kernel uses it to mount.
pub(super) fn root_credential() -> opaque_auth<'static> {
    credential(0, 0)
}
