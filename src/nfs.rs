//! NFS: the few remote procedure calls that verify a server without mounting it.
//!
//! There are three operations, each with one deadline:
//!
//! - [`mod@ping`] verifies that the server speaks NFS (RPC NULL, RFC 5531 §11.1).
//! - [`Volume::open`] verifies that it exports a path to this host, with version 3 ([`v3`]) or 4 ([`v4`]).
//! - [`Volume::counts`] returns how full the export is.
//!
//! `nfs3_client` encodes RPC and most of version 3. This module encodes what it needs of version 4 ([`xdr`]). It adds
//! deadlines ([`calls`]), a limit on the memory that a server can make the agent allocate ([`transport`]), and a reason
//! for each failure ([`NfsError`]).

mod calls;
mod error;
mod ping;
mod status;
mod transport;
mod v3;
mod v4;
mod volume;
mod xdr;

pub use error::NfsError;
pub use ping::ping;
pub use status::NfsStatus;
pub use volume::{Volume, VolumeAddress};
