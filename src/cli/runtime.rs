//! Tokio runtimes of the commands. They are small, and the end of a command does not wait for their threads.
//!
//! An agent has two. One runs everything but the API, and has a single thread: probes compute little and share much, so
//! two threads would mostly wait for each other. The other one answers the API, so no request waits for a probe, and no
//! probe for a request.

use anyhow::Context as _;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::sys::resolve::{
    ETCD_LOOKUPS_MAX, KEY_MANAGER_LOOKUPS_MAX, KEYSTONE_LOOKUPS_MAX, NODE_LOOKUPS_MAX, RECEIVER_LOOKUPS_MAX,
    STORAGE_LOOKUPS_MAX,
};

/// Number of threads that run the tasks of a command.
pub(super) const COMMAND_THREADS: u8 = 2;

/// Number of threads that run the tasks of an agent, except the API.
const AGENT_THREADS: u8 = 1;

/// Number of threads that answer the API.
const API_THREADS: u8 = 2;

/// Largest number of threads of a runtime for blocking calls: resolving names and reading files.
const BLOCKING_THREADS_MAX: usize = 32;

// When name servers are down, lookups block their threads. Some threads must remain to read files.
const _: () = assert!(
    BLOCKING_THREADS_MAX
        > STORAGE_LOOKUPS_MAX
            + KEYSTONE_LOOKUPS_MAX
            + KEY_MANAGER_LOOKUPS_MAX
            + RECEIVER_LOOKUPS_MAX
            + ETCD_LOOKUPS_MAX
);
const _: () = assert!(BLOCKING_THREADS_MAX > NODE_LOOKUPS_MAX + KEYSTONE_LOOKUPS_MAX);

/// Runs a command to completion. Does not wait for threads that are blocked in a name lookup.
///
/// # Errors
/// When the runtime cannot be started.
pub fn block_on<T>(command: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = start("command", COMMAND_THREADS)?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    Ok(outcome)
}

/// Runs an agent to completion, as [`block_on`]. It gets the runtime for its API.
///
/// # Errors
/// When a runtime cannot be started.
pub fn block_on_agent<F: Future>(agent: impl FnOnce(Handle) -> F) -> anyhow::Result<F::Output> {
    let (runtime, api) = (start("agent", AGENT_THREADS)?, start("api", API_THREADS)?);
    let outcome = runtime.block_on(agent(api.handle().clone()));
    api.shutdown_background();
    runtime.shutdown_background();
    Ok(outcome)
}

/// Starts a runtime whose threads have this name.
fn start(name: &str, threads: u8) -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name(name)
        .worker_threads(threads.into())
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
