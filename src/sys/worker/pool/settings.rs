//! Settings of a pool, its lanes and its counts.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::protocol::ARGUMENT;

/// Program and number of the workers.
#[derive(Debug, Clone)]
pub struct WorkerPoolSettings {
    /// Program that is started as a worker.
    pub program: PathBuf,
    /// Arguments of the program: `probe-worker`.
    pub arguments: Vec<OsString>,
    /// Maximum number of idle workers.
    pub idle_max: usize,
    /// Maximum number of busy workers, at least 2.
    pub workers_max: usize,
    /// The open file of `program`, where `program` is a link to it in /proc.
    pub held: Option<Arc<File>>,
}

impl WorkerPoolSettings {
    /// Default settings: `program probe-worker`, at most 4 idle and 64 busy workers.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, arguments: vec![ARGUMENT.into()], idle_max: 4, workers_max: 64, held: None }
    }
}

/// Health of the target of a call. It decides which permits and workers the call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The target's last probe passed. Has its own half of the permits, and may use free permits of the other half.
    Healthy,
    /// The last probe did not pass, or there was none. Has half of the permits.
    Suspect,
}

/// Numbers of workers, calls and children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Idle workers.
    pub idle: usize,
    /// Calls that have a permit.
    pub busy: usize,
    /// Children, workers or commands, that were killed but have not exited.
    pub stuck: usize,
    /// Workers that were started since the agent started.
    pub spawned_total: u64,
    /// Children, workers or commands, that were killed since the agent started.
    pub killed_total: u64,
    /// Workers that were killed since the agent started, because they did not answer in time.
    pub late_total: u64,
    /// Workers that broke since the agent started.
    pub broken_total: u64,
}
