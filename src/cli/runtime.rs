//! The runtime that commands run on: small, and never waited for at the end.

use anyhow::Context as _;

use crate::sys::resolve::{KEYSTONE_LOOKUPS_MAX, STORAGE_LOOKUPS_MAX};

/// How many threads run tasks. All of them wait for sockets and children; none computes.
pub(super) const WORKER_THREADS: u8 = 2;

/// Threads for what tokio cannot do without one: resolving names and reading files.
const BLOCKING_THREADS_MAX: usize = 32;

// Lookups hang when name servers are down. Threads remain to read files.
const _: () = assert!(BLOCKING_THREADS_MAX > STORAGE_LOOKUPS_MAX + KEYSTONE_LOOKUPS_MAX);

/// Runs a future to its end. Threads that are stuck then, in a name lookup, are left behind.
///
/// # Errors
/// When the runtime cannot be made.
pub fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS.into())
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(outcome)
}
