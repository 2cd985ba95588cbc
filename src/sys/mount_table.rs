//! The mount table: what is mounted where ([`table`]), kept current by [`watch`], and what the
//! host ([`host`]) and other processes ([`consumers`]) see.

mod consumers;
mod host;
pub mod table;
mod watch;

pub use consumers::{ConsumerProcess, ConsumerSight, ConsumerWatch, SWEEP_INTERVAL, Sight};
pub use host::{HostMounts, HostView, INIT};
pub use table::{MountEntry, MountTable};
pub use watch::MountTableWatch;
