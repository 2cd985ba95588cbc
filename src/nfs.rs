//! NFS: the few remote procedure calls that verify a server without mounting it.
//!
//! There are three calls, each with one deadline:
//!
//! - [`mod@ping`] verifies that the server speaks NFS (RPC NULL, RFC 5531 §11.1).
//! - [`Volume::open`] verifies that it exports a path to this host (MOUNT version 3 and FSINFO, RFC 1813).
//! - [`Volume::counts`] returns how full the export is (FSSTAT).
//!
//! `nfs3_client` encodes the messages. This module adds deadlines, a limit on the memory that a server can make the
//! agent allocate ([`transport`]), and a reason for each failure ([`NfsError`]).

mod error;
mod ping;
mod transport;
mod volume;

pub use error::NfsError;
pub use ping::ping;
pub use volume::{Volume, VolumeAddress};
