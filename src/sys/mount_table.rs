//! The mount table: what is mounted where ([`table`]), kept current by [`watch`], and what the host sees ([`host`]).

mod host;
pub mod table;
mod watch;

pub use host::{HostMounts, HostView, INIT};
pub use table::{MountEntry, MountTable};
pub use watch::MountTableWatch;
