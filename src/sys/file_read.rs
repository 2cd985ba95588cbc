//! Reads of local files, on threads that may hang.
//!
//! A file may be on storage that does not answer, such as a home directory on NFS. The thread that reads it then hangs,
//! and no time limit gets it back. So no worker thread of the runtime reads a file. Threads of its blocking pool do,
//! and at most [`READERS_MAX`] of them may hang. A second reader of a source waits for the first one, so that one
//! source occupies one thread.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Usual time limit of a read.
pub const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest number of threads that read files at a time. The pool has more, which resolve names.
const READERS_MAX: usize = 12;

/// Threads that may read.
static READERS: Semaphore = Semaphore::const_new(READERS_MAX);

/// The sources that are read now, each with a permit for one reader.
static SOURCES: LazyLock<Mutex<HashMap<PathBuf, Weak<Semaphore>>>> = LazyLock::new(Mutex::default);

/// Runs a call that reads files, on a thread of the pool. `source` identifies what is read: a file, or a name for
/// several. `None` if the call has not ended at the limit, or if it panicked.
pub async fn read_files<T: Send + 'static>(
    source: &Path,
    limit: Duration,
    reading: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let reader_of_source = reader_of(source);
    let reading = async {
        let permits = (reader_of_source.acquire_owned().await.ok()?, READERS.acquire().await.ok()?);
        #[allow(clippy::disallowed_methods, reason = "few threads can hang, and the shutdown does not wait for them")]
        let reading = tokio::task::spawn_blocking(move || {
            let _held_until_the_end = permits;
            reading()
        });
        reading.await.ok()
    };
    tokio::time::timeout(limit, reading).await.ok().flatten()
}

/// Returns the permit for the reader of a source.
fn reader_of(source: &Path) -> Arc<Semaphore> {
    let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(permit) = sources.get(source).and_then(Weak::upgrade) {
        return permit;
    }
    sources.retain(|_, permit| permit.strong_count() > 0);
    let permit = Arc::new(Semaphore::new(1));
    sources.insert(source.to_owned(), Arc::downgrade(&permit));
    permit
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn reads_that_hang_occupy_one_thread_for_each_source() {
        let mut hanging = Vec::new();
        let mut started = 0;
        for _ in 0..3 {
            let (release, wait) = mpsc::channel::<()>();
            let (start, has_started) = mpsc::channel();
            let outcome = read_files(Path::new("/dead"), Duration::from_millis(100), move || {
                let _sent = start.send(());
                let _ended = wait.recv();
            });
            assert_eq!(outcome.await, None, "the read ended");
            started += has_started.try_iter().count();
            hanging.push(release);
        }
        assert_eq!(started, 1, "the source occupies more than one thread");
        assert_eq!(read_files(Path::new("/alive"), READ_TIMEOUT, || 7).await, Some(7), "another source waits");
        drop(hanging);
        assert_eq!(read_files(Path::new("/dead"), READ_TIMEOUT, || 8).await, Some(8), "the source was not released");
    }
}
