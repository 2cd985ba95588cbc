//! Watching the mount table: a new snapshot within milliseconds of a mount or unmount.
//!
//! The kernel marks an open mountinfo as exceptional (`POLLPRI | POLLERR`) when the namespace
//! changed, so a task that waits for that costs nothing while nothing happens. A burst of mounts,
//! such as a container runtime makes, causes one read at its start and then at most one read in each
//! [`BURST_INTERVAL`]. Subscribers are woken only when the table differs.
//!
//! A caller that needs the current table, such as a probe, calls [`MountTableWatch::reread`]. It reads the table
//! only if the kernel reports a change. So a thousand probes of a host with a thousand mounts do not read a million
//! lines.

#![allow(clippy::disallowed_methods, reason = "procfs answers from memory: nothing here can wait for storage")]

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::table::{MOUNTINFO, MountTable, changed_since_opened};

/// Minimum time between two reads that are caused by events of the kernel.
const BURST_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum time between two reads, in case an event is lost.
const UNPROMPTED_INTERVAL: Duration = Duration::from_secs(30);

/// The mount table, kept current by a task that ends with it.
#[derive(Debug)]
pub struct MountTableWatch {
    latest: Arc<Latest>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Latest {
    tables: watch::Sender<Arc<MountTable>>,
    /// Locked from the beginning of a read until its result is published, so that an older result never replaces a
    /// newer one. Callers of `current` do not wait for it. Contains the open mountinfo of the latest read, which
    /// reports later changes.
    reading: Mutex<Option<File>>,
}

impl MountTableWatch {
    /// Reads the table and starts to watch it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When mountinfo cannot be read or waited for.
    pub fn start() -> io::Result<Self> {
        // Opened before the first read, so that a change between the two is an event and not missed.
        let file = File::open(MOUNTINFO)?;
        // SAFETY: a `File` keeps one descriptor open from here until it is dropped, and `AsyncFd`
        // has no method that closes it before.
        #[allow(unsafe_code, reason = "the safe constructors are deprecated, since they take less trustworthy types")]
        let events = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?;
        let (table, unchanged) = MountTable::read_with_file(MOUNTINFO)?;
        let latest = Arc::new(Latest { tables: watch::Sender::new(Arc::new(table)), reading: Mutex::new(unchanged) });
        let task = tokio::spawn(follow(events, latest.clone())).abort_handle();
        Ok(Self { latest, task })
    }

    /// Returns the latest snapshot, which may be outdated by a few milliseconds. After a mount, call
    /// [`Self::reread`].
    #[must_use]
    pub fn current(&self) -> Arc<MountTable> {
        self.latest.tables.borrow().clone()
    }

    /// Returns a receiver of each new snapshot.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<MountTable>> {
        self.latest.tables.subscribe()
    }

    /// Returns the current table and publishes it to all readers. It is read again if the kernel says
    /// that it changed. Never waits for storage.
    ///
    /// # Errors
    /// When mountinfo cannot be read.
    pub fn reread(&self) -> io::Result<Arc<MountTable>> {
        self.latest.reread(false)
    }
}

impl Drop for MountTableWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Latest {
    /// Reads the table if the kernel reports a change, or if `regardless` is set. The kernel does not report it if the
    /// options of a file system change through another of its mounts.
    fn reread(&self, regardless: bool) -> io::Result<Arc<MountTable>> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if !regardless && reading.as_ref().is_some_and(|file| !changed_since_opened(file)) {
            return Ok(self.tables.borrow().clone());
        }
        // The kernel reports a change only once. If this read fails, the next caller reads again.
        *reading = None;
        let (table, unchanged) = MountTable::read_with_file(MOUNTINFO)?;
        *reading = unchanged;
        let table = Arc::new(table);
        self.tables.send_if_modified(|current| {
            let is_another = table != *current;
            if is_another {
                *current = table.clone();
            }
            is_another
        });
        Ok(table)
    }
}

async fn follow(events: AsyncFd<File>, latest: Arc<Latest>) {
    loop {
        // The kernel sets ERROR with PRIORITY at each change, and clears both.
        let event = tokio::time::timeout(UNPROMPTED_INTERVAL, events.ready(Interest::PRIORITY | Interest::ERROR)).await;
        let is_unprompted = event.is_err();
        if let Ok(Ok(mut ready)) = event {
            ready.clear_ready();
        }
        if let Err(error) = latest.reread(is_unprompted) {
            tracing::warn!(%error, "cannot read the mount table: the agent continues with the last one");
        }
        tokio::time::sleep(BURST_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use std::time::Instant;

    #[tokio::test]
    async fn mount_table_is_read_at_start_and_again() {
        let watch = MountTableWatch::start().expect("procfs");
        assert!(!watch.current().entries().is_empty());
        assert_eq!(watch.reread().expect("procfs"), watch.current());
    }

    #[tokio::test]
    async fn unchanged_mount_table_is_not_read_again() {
        let watch = MountTableWatch::start().expect("procfs");
        // Other processes may mount meanwhile on the machine that runs the tests.
        let is_kept = (0..100).any(|_| {
            let (first, second) = (watch.reread().expect("procfs"), watch.reread().expect("procfs"));
            Arc::ptr_eq(&first, &second)
        });
        assert!(is_kept);
    }

    /// Makes real mounts on this machine. Run as root: `cargo test --lib mount_table -- --ignored`.
    #[tokio::test]
    #[ignore = "mounts a tmpfs: needs root"]
    async fn immediate_mount_change_is_seen() {
        let directory = tempfile::tempdir().expect("a directory");
        let watch = MountTableWatch::start().expect("procfs");
        let found =
            || watch.reread().expect("procfs").topmost_at(directory.path()).map(crate::sys::MountEntry::is_read_only);
        for _ in 0..100 {
            assert_eq!(found(), None);
            let mounted =
                |flags| mount(Some("none"), directory.path(), Some("tmpfs"), flags, None::<&str>).expect("mount");
            mounted(MsFlags::empty());
            assert_eq!(found(), Some(false));
            mounted(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
            assert_eq!(found(), Some(true));
            umount2(directory.path(), MntFlags::empty()).expect("unmount");
        }
    }

    /// Run like the previous test.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "mounts a thousand tmpfs: needs root"]
    async fn real_mounts_are_seen_within_milliseconds() {
        const MANY: usize = 2000;
        let directory = tempfile::tempdir().expect("a directory");
        let point = directory.path().join("a space");
        std::fs::create_dir(&point).expect("a mount point");
        let watch = MountTableWatch::start().expect("procfs");
        let mut tables = watch.subscribe();
        let before = watch.current().entries().len();

        for round in 0..5 {
            tokio::time::sleep(BURST_INTERVAL * 2).await;
            let began = Instant::now();
            mount(Some("none"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
            tables.wait_for(|table| table.topmost_at(&point).is_some()).await.expect("the watch runs");
            let seen = began.elapsed();
            umount2(&point, MntFlags::empty()).expect("unmount");
            tables.wait_for(|table| table.topmost_at(&point).is_none()).await.expect("the watch runs");
            println!("round {round}: mount seen after {seen:?}");
            assert!(seen < Duration::from_millis(500), "{seen:?}");
        }

        let began = Instant::now();
        for number in 0..MANY {
            mount(Some(format!("n{number}").as_str()), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                .expect("mount");
        }
        println!("{MANY} mounts took {:?}", began.elapsed());
        tables.wait_for(|table| table.stacked_at(&point) == MANY).await.expect("the watch runs");
        println!("all seen after {:?}", began.elapsed());
        let read = Instant::now();
        let table = watch.reread().expect("procfs");
        println!("one reading of {} mounts: {:?}", table.entries().len(), read.elapsed());
        let asked = Instant::now();
        assert_eq!(table.topmost_at(&point).map(|entry| entry.source.clone()), Some(format!("n{}", MANY - 1)));
        println!("topmost of {MANY}: {:?}", asked.elapsed());
        for _ in 0..MANY {
            umount2(&point, MntFlags::empty()).expect("unmount");
        }
        tables.wait_for(|table| table.entries().len() == before).await.expect("the watch runs");
    }
}
