//! NFS: the few remote procedure calls that verify a server without mounting it.
//!
//! There are four operations, each with one deadline:
//!
//! - [`mod@ping`] verifies that the server speaks NFS (RPC NULL, RFC 5531 §11.1).
//! - [`Volume::open`] verifies that it exports a path to this host, with version 3 ([`v3`]) or 4 ([`v4`]).
//! - [`Volume::counts`] returns how full the export is.
//! - [`Volume::write_canary`] verifies that a user can write to it ([`canary`]).
//!
//! `nfs3_client` encodes RPC and some of version 3. This module encodes files and version 4 itself ([`xdr`]). It adds
//! deadlines ([`calls`]), a limit on the memory that a server can make the agent allocate ([`transport`]), and a reason
//! for each failure ([`NfsError`]).

mod calls;
mod canary;
mod error;
mod ping;
mod status;
mod transport;
mod v3;
mod v4;
mod volume;
mod volume_address;
mod xdr;

pub use canary::CanaryFailure;
pub use error::NfsError;
pub use ping::ping;
pub use status::NfsStatus;
pub use transport::{Records, connect};
pub use volume::Volume;
pub use volume_address::VolumeAddress;
