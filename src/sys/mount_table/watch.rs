//! Watching the mount table: a new snapshot within milliseconds of a mount or unmount.
//!
//! The kernel marks an open mountinfo as exceptional (`POLLPRI | POLLERR`) when the namespace
//! changed, so a task that waits for that costs nothing while nothing happens. A burst of mounts,
//! such as a container runtime makes, gives one reading at its start and then at most one in
//! [`BURST_INTERVAL`]; readers are woken only when the table is really another.

#![allow(clippy::disallowed_methods, reason = "procfs answers from memory: nothing here can wait for storage")]

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{MOUNTINFO, MountTable};

/// The shortest time between two readings that the kernel's own events cause.
const BURST_INTERVAL: Duration = Duration::from_millis(50);

/// The longest time between two readings. Events are reliable; this is for the day they are not.
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
    /// Held from the beginning of a reading until it is published, so that of two readings the one
    /// that began later stays. Whoever only wants the last one does not wait for it.
    reading: Mutex<()>,
}

impl MountTableWatch {
    /// Reads the table and begins to watch it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When mountinfo cannot be read or waited for.
    pub fn start() -> io::Result<Self> {
        // Opened before the first reading: a change between the two is an event, not a gap.
        let file = File::open(MOUNTINFO)?;
        // SAFETY: a `File` keeps one descriptor open from here until it is dropped, and `AsyncFd`
        // gives nobody the means to close it before.
        #[allow(unsafe_code, reason = "the safe constructors are deprecated, since they take less trustworthy types")]
        let events = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?;
        let tables = watch::Sender::new(Arc::new(MountTable::read()?));
        let latest = Arc::new(Latest { tables, reading: Mutex::new(()) });
        let task = tokio::spawn(follow(events, latest.clone())).abort_handle();
        Ok(Self { latest, task })
    }

    /// The latest snapshot. One that the kernel has just outdated may be returned for some
    /// milliseconds; who has just mounted something asks [`Self::reread`].
    #[must_use]
    pub fn current(&self) -> Arc<MountTable> {
        self.latest.tables.borrow().clone()
    }

    /// A receiver that is told of each new snapshot.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<MountTable>> {
        self.latest.tables.subscribe()
    }

    /// Reads the table now, for its caller and for everybody else. Never waits for storage.
    ///
    /// # Errors
    /// When mountinfo cannot be read.
    pub fn reread(&self) -> io::Result<Arc<MountTable>> {
        self.latest.reread()
    }
}

impl Drop for MountTableWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Latest {
    fn reread(&self) -> io::Result<Arc<MountTable>> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Arc::new(MountTable::read()?);
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
        // ERROR comes along with PRIORITY on each change, and is cleared with it.
        if let Ok(Ok(mut ready)) =
            tokio::time::timeout(UNPROMPTED_INTERVAL, events.ready(Interest::PRIORITY | Interest::ERROR)).await
        {
            ready.clear_ready();
        }
        if let Err(error) = latest.reread() {
            tracing::warn!(%error, "the mount table could not be read; the last one stays in force");
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
    async fn a_table_is_there_from_the_start_and_can_be_read_again() {
        let watch = MountTableWatch::start().expect("procfs");
        assert!(!watch.current().entries().is_empty());
        assert_eq!(watch.reread().expect("procfs"), watch.current());
    }

    /// Mounts for real, so it is for root on a machine that may be mounted on:
    /// `cargo test --lib mount_table -- --ignored`.
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
