//! Backup and restore.

use std::os::unix::fs::symlink;

use super::*;
use crate::registry::sqlite::{backup, restore};

/// A registry with three targets, and a backup of it from before the third one was added.
async fn with_backup() -> (TempDir, PathBuf, PathBuf) {
    let (directory, path) = temporary_path();
    let to = directory.path().join("backup.db");
    let (store, registry) = open(&path);
    create(&registry, nfs("nas:/a")).await;
    create(&registry, nfs("nas:/b")).await;
    let content = backup(&path, &to, false).expect("copied").content;
    assert_eq!((content.targets, content.types), (2, 2));
    create(&registry, nfs("nas:/c")).await;
    close(store, registry).await;
    (directory, path, to)
}

async fn exports(path: &Path) -> Vec<String> {
    let store = SqliteStore::open(path).expect("opened");
    let exports = store.snapshot().targets().iter().map(|kept| kept.target.spec.export()).collect();
    store.close().await;
    exports
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("read");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn backup_of_a_running_registry_is_one_private_file() {
    let (directory, path) = temporary_path();
    let (_store, registry) = open(&path);
    create(&registry, nfs("nas:/a")).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let to = elsewhere.path().join("backup.db");
    backup(&path, &to, false).expect("copied");
    assert_eq!(names(&elsewhere), ["backup.db"]);
    assert_eq!(fs::metadata(&to).expect("a file").permissions().mode() & 0o777, 0o600);
    create(&registry, nfs("nas:/b")).await;
    assert!(names(&directory).iter().all(|name| name.starts_with("registry.db")));
    // Opened like a registry on a new host, which has no record.
    assert_eq!(exports(&to).await, ["nas:/a"]);
}

#[tokio::test]
async fn backup_replaces_an_existing_file_only_with_overwrite() {
    let (_directory, path, to) = with_backup().await;
    let before = fs::read(&to).expect("read");
    let error = backup(&path, &to, false).expect_err("refused").to_string();
    assert!(error.contains("the file exists") && error.contains("--overwrite"), "{error}");
    assert!(fs::read(&to).expect("read") == before);
    assert_eq!(backup(&path, &to, true).expect("copied").content.targets, 3);
    assert_eq!(fs::metadata(&to).expect("a file").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn backup_never_replaces_a_file_of_its_registry() {
    let (directory, path, _) = with_backup().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let linked = elsewhere.path().join("link");
    symlink(directory.path(), &linked).expect("linked");
    let before = names(&directory);
    for suffix in ["", "-wal", "-shm", ".lock", ".generation", ".new"] {
        for to in [file_beside(&path, suffix), file_beside(&linked.join("registry.db"), suffix)] {
            for overwrite in [false, true] {
                let error = backup(&path, &to, overwrite).expect_err("refused").to_string();
                assert!(error.contains("a file of the registry itself"), "{error}");
            }
        }
    }
    assert_eq!(names(&directory), before);
    assert_eq!(exports(&path).await.len(), 3);
    backup(&path, &elsewhere.path().join("registry.db"), false).expect("the same name in another directory");
}

#[tokio::test]
async fn backup_keeps_a_file_with_the_name_of_its_unfinished_copy() {
    let (directory, path, _) = with_backup().await;
    let to = directory.path().join("other.db");
    let unfinished = file_beside(&to, ".new");
    fs::write(&unfinished, "text").expect("written");
    let error = backup(&path, &to, false).expect_err("refused").to_string();
    assert!(error.contains("other.db.new: the file exists"), "{error}");
    assert!(!to.exists() && fs::read(&unfinished).expect("read") == b"text");
    backup(&path, &to, true).expect("copied");
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn failed_backup_leaves_no_file_behind() {
    let (directory, path, to) = with_backup().await;
    let kept = fs::read(&to).expect("read");
    let mut damaged = fs::read(&path).expect("read");
    damaged[4096..].fill(0xa5);
    fs::write(&path, damaged).expect("written");
    let new = directory.path().join("new.db");
    for (to, overwrite) in [(&new, false), (&to, true)] {
        let error = backup(&path, to, overwrite).expect_err("refused").to_string();
        assert!(error.contains(&format!("registry {}: the file is damaged", path.display())), "{error}");
    }
    assert!(!names(&directory).iter().any(|name| name.starts_with("new.db") || name.ends_with(".new")));
    assert!(fs::read(&to).expect("read") == kept);
    backup(&directory.path().join("missing.db"), &new, false).expect_err("refused");
    assert!(!new.exists());
}

#[tokio::test]
async fn registry_that_cannot_be_read_is_named_as_such() {
    let (directory, path, _) = with_backup().await;
    let to = directory.path().join("new.db");
    fs::remove_file(&path).expect("removed");
    let error = backup(&path, &to, false).expect_err("refused").to_string();
    assert!(error.starts_with(&format!("registry {} cannot be read: No such file", path.display())), "{error}");
}

#[tokio::test]
async fn backup_and_restore_with_a_damaged_record_succeed() {
    let (directory, path, to) = with_backup().await;
    let record = file_beside(&path, ".generation");
    fs::write(&record, "damaged").expect("written");
    let warning = backup(&path, &directory.path().join("new.db"), false).expect("copied").warning.expect("a warning");
    assert!(warning.starts_with(&format!("{}: it is damaged", record.display())), "{warning}");
    assert!(backup(&path, &to, true).expect("copied").warning.is_some());
    restore(&path, &to).expect("restored");
    assert!(!record.exists(), "it was about another registry");
    assert_eq!(exports(&path).await.len(), 3);
}

#[tokio::test]
async fn restore_names_the_old_record_that_it_cannot_remove() {
    let (_directory, path, to) = with_backup().await;
    let record = file_beside(&path, ".generation");
    fs::remove_file(&record).expect("removed");
    fs::create_dir(&record).expect("created");
    let error = restore(&path, &to).expect_err("incomplete").to_string();
    for part in ["the backup was restored", &format!("remove {}", record.display())] {
        assert!(error.contains(part), "{part}: {error}");
    }
    fs::remove_dir(&record).expect("removed");
    assert_eq!(exports(&path).await.len(), 2);
}

#[tokio::test]
async fn backup_of_a_registry_that_lost_changes_is_refused() {
    let (directory, path, to) = with_backup().await;
    fs::copy(&to, &path).expect("an older copy");
    let error = backup(&path, &directory.path().join("new.db"), false).expect_err("refused").to_string();
    assert!(error.contains("lost changes that were acknowledged"), "{error}");
    assert!(!names(&directory).iter().any(|name| name.starts_with("new.db")));
}

#[tokio::test]
async fn restore_is_refused_while_an_agent_runs() {
    let (_directory, path, to) = with_backup().await;
    let (store, registry) = open(&path);
    let error = restore(&path, &to).expect_err("refused").to_string();
    assert!(error.contains("another agent is using it") && error.contains("stop that agent"), "{error}");
    create(&registry, nfs("nas:/d")).await;
    close(store, registry).await;
    assert_eq!(exports(&path).await.len(), 4);
}

#[tokio::test]
async fn restore_replaces_a_newer_registry_and_keeps_a_copy() {
    let (directory, path, to) = with_backup().await;
    let restored = restore(&path, &to).expect("restored");
    assert_eq!(restored.content.targets, 2);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(exports(&path).await, ["nas:/a", "nas:/b"]);
    let replaced = restored.replaced.expect("kept");
    assert!(replaced.display().to_string().contains("registry.db.replaced-"), "{replaced:?}");
    assert_eq!(exports(&replaced).await, ["nas:/a", "nas:/b", "nas:/c"]);
    assert!(!names(&directory).iter().any(|name| name.contains(".new")));

    // The replaced registry counts as older than the restored one.
    let (store, registry) = open(&path);
    create(&registry, nfs("nas:/d")).await;
    close(store, registry).await;
    fs::copy(&replaced, &path).expect("copied back");
    assert!(open_error(&path).contains("lost changes"));
}

#[tokio::test]
async fn restore_on_a_new_host_creates_the_directory() {
    let (_directory, _, to) = with_backup().await;
    let host = tempfile::tempdir().expect("a directory");
    let path = host.path().join("targetwatch/registry.db");
    assert_eq!(restore(&path, &to).expect("restored").replaced, None);
    assert_eq!(exports(&path).await, ["nas:/a", "nas:/b"]);
}

#[tokio::test]
async fn restore_keeps_a_backup_with_the_name_of_its_copy() {
    let (_directory, path, to) = with_backup().await;
    let from = file_beside(&path, ".new");
    fs::rename(&to, &from).expect("renamed");
    let error = restore(&path, &from).expect_err("refused").to_string();
    assert!(error.contains("rename it first"), "{error}");
    fs::rename(&from, &to).expect("kept");
    assert_eq!(restore(&path, &to).expect("restored").content.targets, 2);
}

#[tokio::test]
async fn restore_repairs_a_registry_that_does_not_open() {
    for damage in ["removed", "cut", "older", "no file and a log"] {
        let (_directory, path, to) = with_backup().await;
        match damage {
            "removed" => fs::remove_file(&path).expect("removed"),
            "cut" => fs::write(&path, &fs::read(&path).expect("read")[..5000]).expect("cut"),
            "older" => fs::copy(&to, &path).map(drop).expect("copied"),
            _ => {
                fs::remove_file(&path).expect("removed");
                fs::write(file_beside(&path, "-wal"), "a log").expect("written");
            }
        }
        open_error(&path);
        restore(&path, &to).expect(damage);
        assert_eq!(exports(&path).await, ["nas:/a", "nas:/b"], "{damage}");
    }
}

#[tokio::test]
async fn old_log_is_not_applied_to_the_restored_file() {
    let (_directory, path, to) = with_backup().await;
    // A log of another state, as a crash leaves it.
    let (_other, other_path) = temporary_path();
    let (_store, registry) = open(&other_path);
    let reader = Connection::open(&other_path).expect("opened");
    reader.execute_batch("BEGIN; SELECT count(*) FROM target").expect("read");
    create(&registry, nfs("nas:/other")).await;
    fs::copy(file_beside(&other_path, "-wal"), file_beside(&path, "-wal")).expect("copied");
    let restored = restore(&path, &to).expect("restored");
    assert_eq!(exports(&path).await, ["nas:/a", "nas:/b"]);
    assert!(file_beside(&restored.replaced.expect("kept"), "-wal").exists());
}

#[tokio::test]
async fn restore_refuses_a_file_that_is_not_an_intact_registry() {
    let (directory, path, to) = with_backup().await;
    let sound = fs::read(&to).expect("read");
    let before = fs::read(&path).expect("read");
    let mut damaged = sound.clone();
    damaged[4096..8192].fill(0xa5);
    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    let mut foreign = sound.clone();
    foreign[68..72].copy_from_slice(&1_u32.to_be_bytes());
    let from = directory.path().join("from.db");
    for (content, expected) in [
        (&b""[..], "the file is empty"),
        (b"no database", "not an SQLite database"),
        (&damaged, "damaged"),
        (&sound[..sound.len() / 2], "damaged"),
        (&newer, "schema 99"),
        (&foreign, "another application"),
    ] {
        fs::write(&from, content).expect("written");
        let error = restore(&path, &from).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains(&from.display().to_string()), "{error}");
        assert!(error.ends_with("The registry was left unchanged"), "{error}");
        assert!(fs::read(&path).expect("read") == before, "{error}");
        assert!(!names(&directory).iter().any(|name| name.contains(".new") || name.contains("replaced")), "{error}");
    }
    assert_eq!(exports(&path).await.len(), 3);
}

#[tokio::test]
async fn restore_upgrades_a_copy_of_an_older_release_and_reads_its_log() {
    let (directory, path, _) = with_backup().await;
    let from = directory.path().join("from.db");
    let connection = Connection::open(&from).expect("created");
    connection.pragma_update(None, "journal_mode", "wal").expect("set");
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("set");
    schema::of_older_release(&connection, 3).expect("written");
    // The schema is in the file, and the row in the log.
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("copied");
    insert_into_schema_3(&connection, "nas:/old");
    drop(connection);
    restore(&path, &from).expect("restored");
    assert_eq!(exports(&path).await, ["nas:/old"]);
}
