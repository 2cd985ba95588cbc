//! The mount table: what is mounted where ([`table`]), kept current by [`watch`].

pub mod table;
mod watch;

pub use table::{MountEntry, MountTable};
pub use watch::MountTableWatch;
