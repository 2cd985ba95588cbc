//! Settings of a pool, its lanes and its counts.

use std::ffi::OsString;
use std::path::PathBuf;

use super::super::protocol::ARGUMENT;

/// How a pool starts workers, and how many.
#[derive(Debug, Clone)]
pub struct WorkerPoolSettings {
    /// The program: this one.
    pub program: PathBuf,
    /// Its arguments: `probe-worker`.
    pub arguments: Vec<OsString>,
    /// How many workers are kept when there is nothing to do.
    pub idle_max: usize,
    /// How many workers may be at work at the same time, at least 2.
    pub workers_max: usize,
}

impl WorkerPoolSettings {
    /// `program probe-worker`, 4 idle ones, 64 at work.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, arguments: vec![ARGUMENT.into()], idle_max: 4, workers_max: 64 }
    }
}

/// Which places a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The target's last probe passed. Has its own half of the places, and of the other half what
    /// is free.
    Healthy,
    /// It did not, or there was none. Has half of the places.
    Suspect,
}

/// How many workers there are and were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Waiting for work.
    pub idle: usize,
    /// Calls that a worker is at work for, or that have a place and wait for one.
    pub busy: usize,
    /// Children of any kind that were killed and do not die.
    pub stuck: usize,
    /// Workers ever started.
    pub spawned_total: u64,
    /// Children of any kind ever killed.
    pub killed_total: u64,
}
