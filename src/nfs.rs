//! NFS: the few remote procedure calls that verify a server without mounting it.
//!
//! Three questions, each with one deadline: does the server speak NFS ([`mod@ping`]: RPC NULL, RFC
//! 5531 §11.1), does it export a path to this host ([`Volume::open`]: MOUNT version 3 and FSINFO,
//! RFC 1813), and how full is that ([`Volume::capacity`]: FSSTAT). The messages are `nfs3_client`'s;
//! what it leaves to its caller is here: a deadline, a limit on what a server may make us allocate
//! ([`transport`]), and a meaning for each failure ([`NfsError`]).

mod error;
mod ping;
mod transport;
mod volume;

pub use error::NfsError;
pub use ping::ping;
pub use volume::{Volume, VolumeAddress};
