//! Ping: the NULL procedure of the NFS program, the cheapest proof that a server provides NFS.

use std::time::Duration;

use nfs3_client::RpcError;
use nfs3_client::rpc::RpcClient;
use nfs3_types::nfs3;
use nfs3_types::xdr_codec::Void;

use super::error::NfsError;
use super::transport::Records;
use crate::model::nfs_options::NfsVersion;

const SERVICE: &str = "NFS";
const CALL: &str = "NULL";

/// Number of the procedure in every version (RFC 1813 §3.3.0, RFC 7530 §16.1).
const NULL_PROCEDURE: u32 = 0;

/// Calls NULL over a new connection and waits for the answer. Returns the connection, which can be used for more calls.
///
/// # Errors
/// [`NfsError`] when no answer comes within `deadline`, or the server does not provide this version. If the version
/// is negotiated, every version that Linux mounts is accepted.
pub async fn ping(mut connection: Records, version: NfsVersion, deadline: Duration) -> Result<Records, NfsError> {
    let requested = version.rpc_version();
    let mut client = RpcClient::new(&mut connection);
    let call = client.call::<Void, Void>(nfs3::PROGRAM, requested, NULL_PROCEDURE, &Void);
    match tokio::time::timeout(deadline, call).await {
        Err(_) => Err(NfsError::TimedOut { service: SERVICE, call: CALL, after: deadline }),
        Ok(Ok(_)) => Ok(connection),
        Ok(Err(RpcError::ProgMismatch { high: 3, .. })) if version == NfsVersion::Negotiated => Ok(connection),
        Ok(Err(error)) => Err(NfsError::call(SERVICE, CALL, requested, error)),
    }
}
