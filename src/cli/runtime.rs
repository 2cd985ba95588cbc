//! Tokio runtime of the commands. It is small, and the end of a command does not wait for its threads.

use anyhow::Context as _;

use crate::sys::resolve::{
    ETCD_LOOKUPS_MAX, KEY_MANAGER_LOOKUPS_MAX, KEYSTONE_LOOKUPS_MAX, NODE_LOOKUPS_MAX, RECEIVER_LOOKUPS_MAX,
    STORAGE_LOOKUPS_MAX,
};

/// Number of threads that run tasks. Tasks wait for sockets and child processes, and compute little.
pub(super) const WORKER_THREADS: u8 = 2;

/// Largest number of threads for blocking calls: resolving names and reading files.
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

/// Runs a future to completion. Does not wait for threads that are blocked in a name lookup.
///
/// # Errors
/// When the runtime cannot be started.
pub fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS.into())
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(outcome)
}
