//! Errors of a call to a worker.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::super::protocol::WorkerFault;
use crate::sys::children::StuckChild;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Storage did not answer before the deadline; the worker was killed.
    #[error("no answer within {} s, and the probe worker was killed", after.as_secs_f64())]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// Storage answered with an error.
    #[error(transparent)]
    Fault(#[from] WorkerFault),
    /// The worker ended, or sent an unexpected reply.
    #[error("the probe worker broke: {source}, and the next probe starts a new one")]
    WorkerDied {
        /// How it ended, or what was wrong with its reply.
        source: io::Error,
    },
    /// The target's last child was killed but does not exit.
    #[error(transparent)]
    Stuck(StuckChild),
    /// A new worker was not ready in time.
    #[error("a new probe worker was not ready within {} s", after.as_secs_f64())]
    NotReady {
        /// How long the call waited.
        after: Duration,
    },
    /// No worker could be started.
    #[error("the probe worker {} could not be started: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Error of fork or exec.
        source: io::Error,
    },
    /// No worker was free in time, or the target's last child had not ended.
    #[error("no probe worker was free for this target within {} s", after.as_secs_f64())]
    Overloaded {
        /// How long the call waited.
        after: Duration,
    },
    /// The request cannot be encoded: it is too long, or a path is not UTF-8.
    #[error("the request cannot be passed to a probe worker: {source}")]
    Request {
        /// What is wrong with it.
        source: io::Error,
    },
    /// The pool was shut down.
    #[error("the agent is stopping")]
    ShutDown,
}
