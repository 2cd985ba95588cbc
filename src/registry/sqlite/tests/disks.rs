//! A disk that is full, or becomes read-only during a write: `cargo test --lib sqlite::tests::disks -- --ignored`, as
//! root.

use nix::mount::{MsFlags, mount, umount};

use super::*;
use crate::model::CanaryRecord;
use crate::registry::sqlite::generation::Record;

/// Time in which a write begins. Then the lock of another program delays it.
const BEGUN: Duration = Duration::from_millis(500);

/// A mount at a directory. Dropping it unmounts it.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(at: &'a Path) -> Self {
        mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some("size=1M")).expect("mounted");
        Self(at)
    }

    /// Makes a directory read-only for programs that look up its path from now on. Open files are not affected.
    fn read_only(at: &'a Path) -> Self {
        mount(Some(at), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mounted");
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, at, None::<&str>, flags, None::<&str>).expect("read-only");
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        umount(self.0).expect("unmounted");
    }
}

#[tokio::test]
#[ignore = "mounts: needs root"]
async fn every_write_during_which_the_disk_becomes_read_only_is_uncertain() {
    for write in ["change", "transition", "canary", "mount"] {
        let (directory, path) = temporary_path();
        let (_store, registry) = open(&path);
        let id = create(&registry, nfs("nas:/a")).await.target.id;
        let other = Connection::open(&path).expect("opened");
        other.execute_batch("BEGIN IMMEDIATE").expect("locked");
        let writing = {
            let registry = registry.clone();
            tokio::spawn(async move {
                match write {
                    "transition" => registry.add_transitions(vec![transition(id, 1, Status::Offline)]).await,
                    "canary" => registry.put_canary_record(id, CanaryRecord::default()).await,
                    "mount" => registry.put_own_mounts(vec![(id, Some(own_mount(1)))]).await,
                    _ => match registry.change(&Change::DeleteTarget(id)).await {
                        Err(RegistryError::Storage(error)) => Err(error),
                        other => panic!("{other:?}"),
                    },
                }
            })
        };
        tokio::time::sleep(BEGUN).await;
        let read_only = Mounted::read_only(directory.path());
        other.execute_batch("ROLLBACK").expect("unlocked");
        let outcome = writing.await.expect("ended");
        drop(read_only);
        assert!(matches!(outcome, Err(StorageError::Uncertain(_))), "{write}: {outcome:?}");
        // The disk can be written again, but what follows the lost write may be lost too.
        let error = refused(&registry, nfs("nas:/b")).await.to_string();
        assert!(error.contains("restart the agent"), "{write}: {error}");
    }
}

#[tokio::test]
#[ignore = "mounts: needs root"]
async fn full_disk_does_not_prevent_the_start() {
    for has_record in [true, false] {
        let (directory, path) = temporary_path();
        let _disk = Mounted::tmpfs(directory.path());
        let (store, registry) = open(&path);
        let kept = create(&registry, nfs("nas:/a")).await;
        close(store, registry).await;
        if !has_record {
            fs::remove_file(file_beside(&path, ".generation")).expect("removed");
        }
        let fill = directory.path().join("fill");
        fs::write(&fill, vec![0; 1 << 20]).expect_err("full");
        let (_elsewhere, to) = temporary_path();
        let backup_error = || maintenance::backup(&path, &to, false).expect_err("refused").to_string();
        let error = backup_error();
        assert!(error.contains("cannot be read: its disk is full"), "{error}");
        let (store, registry) = open(&path);
        let error = backup_error();
        assert!(error.contains("another program locks it") && error.contains("free some space"), "{error}");
        assert_eq!(registry.snapshot().targets(), [kept.into()]);
        let mut large = nfs("nas:/large");
        large.0.metadata.insert("text".to_owned(), "x".repeat(60_000));
        let error = refused(&registry, large).await;
        assert!(matches!(error, RegistryError::Storage(_)), "{error}");

        fs::remove_file(&fill).expect("removed");
        create(&registry, nfs("nas:/b")).await;
        assert_eq!(Record::read(&path).expect("read").map(|recorded| recorded.targets), Some(2), "{has_record}");
        let shared = async {
            while maintenance::backup(&path, &to, true).is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, shared).await.expect("other programs can read it without a restart");
        // The log is another file now.
        create(&registry, nfs("nas:/c")).await;
        fs::remove_file(file_beside(&path, "-wal")).expect("removed");
        let error = refused(&registry, nfs("nas:/d")).await.to_string();
        assert!(error.contains("-wal was removed or replaced"), "{error}");
        close(store, registry).await;
    }
}

#[test]
fn disk_error_is_neither_damage_nor_a_missing_permission() {
    use rusqlite::ffi::{
        Error, SQLITE_BUSY, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_NOMEM, SQLITE_IOERR_READ,
        SQLITE_IOERR_SHORT_READ, SQLITE_NOMEM, SQLITE_NOTADB, SQLITE_READONLY,
    };
    let path = Path::new("/var/lib/targetwatch/registry.db");
    let of_sqlite = |code| errors::unreadable(path, &rusqlite::Error::SqliteFailure(Error::new(code), None));
    let of_system = |code| errors::unwritable(path, std::io::Error::from_raw_os_error(code));
    let (damaged, user) = ("the file is damaged", "The agent's user needs to write");
    for (error, words) in [
        (of_sqlite(SQLITE_CORRUPT), damaged),
        (of_sqlite(SQLITE_NOTADB), damaged),
        (of_sqlite(SQLITE_IOERR_SHORT_READ), damaged),
        (of_sqlite(SQLITE_IOERR_READ), "examine the disk"),
        (of_sqlite(SQLITE_IOERR_FSYNC), "examine the disk"),
        (of_sqlite(SQLITE_IOERR_NOMEM), "cannot be opened"),
        (of_sqlite(SQLITE_NOMEM), "cannot be opened"),
        (of_sqlite(SQLITE_FULL), "free some space"),
        (of_sqlite(SQLITE_BUSY), "stop that program"),
        (of_sqlite(SQLITE_READONLY), user),
        (of_system(nix::libc::EIO), "examine the disk"),
        (of_system(nix::libc::ENOSPC), "free some space"),
        (of_system(nix::libc::EACCES), user),
        (of_system(nix::libc::EROFS), user),
        (of_system(nix::libc::ENOENT), "No such file"),
    ] {
        let error = error.to_string();
        assert!(error.contains(words), "{words}: {error}");
        for other in [damaged, user, "examine the disk", "free some space"].iter().filter(|other| **other != words) {
            assert!(!error.contains(other) || words == "stop that program", "{other}: {error}");
        }
    }
}

#[test]
fn backup_of_a_missing_registry_gives_no_advice_about_users() {
    let (_directory, path) = temporary_path();
    let error = maintenance::backup(&path, &file_beside(&path, ".backup"), false).expect_err("refused").to_string();
    assert!(error.contains("No such file") && !error.contains("root"), "{error}");
}
