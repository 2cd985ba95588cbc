//! Probe workers: the processes that access storage for the agent, which could hang there.
//!
//! A worker is the program `targetwatch-probe-worker`, or this program, started as `targetwatch probe-worker`
//! ([`WorkerPoolSettings::choose`]). It reads requests, executes them one after the other, and answers each
//! ([`child`]). Both sides share the [`protocol`]. The agent's side is the [`pool`]. It keeps a few idle workers, so
//! that a healthy probe costs a message and not a fork. It kills a worker at the deadline of its request. A worker
//! keeps no state between requests, so nothing is lost when it is killed.

mod canary;
pub mod child;
mod directory;
mod mount_copy;
mod mount_point;
pub mod pool;
pub mod protocol;

pub use pool::{CallError, Lane, Permits, PoolStats, WorkerPool, WorkerPoolSettings};
pub use protocol::{
    ARGUMENT, CanaryRequest, CanaryWritten, FaultKind, FileSystemCounts, PreparedMountPoint, ReadBack, Request,
    Response, UnmountHow, WorkerFault,
};
