//! Probe workers: the processes that touch storage so that the agent does not have to.
//!
//! A worker is this same program, started as `targetwatch probe-worker`. It reads a request, does
//! it, answers, and waits for the next one ([`child`]); the words that both sides share are in
//! [`protocol`]. The agent's side is the [`pool`]: a few idle workers, so that a healthy probe
//! costs a message and not a fork, and a deadline at which a worker is killed and forgotten. A
//! worker keeps no state between requests, so killing one loses nothing.

mod canary;
pub mod child;
mod mount_point;
pub mod pool;
pub mod protocol;

pub use pool::{CallError, Lane, PoolStats, WorkerPool, WorkerPoolSettings};
pub use protocol::{
    CanaryNames, CanaryRequest, CanaryWritten, FaultKind, FileSystemCounts, PreparedMountPoint, ReadBack, Request,
    Response, UnmountHow, WorkerFault,
};

/// The argument that makes this program a probe worker.
pub const ARGUMENT: &str = "probe-worker";
