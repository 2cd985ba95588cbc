//! Counters that the kernel keeps for each NFS mount ([`counters`]), and a [`cache`] of them.

mod cache;
mod counters;

pub use cache::MountStatsCache;
pub use counters::{MountCounters, MountStats};
