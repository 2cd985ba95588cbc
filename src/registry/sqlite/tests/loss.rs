//! Loss of acknowledged changes: the content of a file is compared with the record beside it.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::registry::sqlite::generation::{Generation, Record};

/// The files of a registry with three targets after a crash. The file contains the first target, and its log the
/// others.
struct Crashed {
    _directory: TempDir,
    path: PathBuf,
    /// A copy of the file alone with the first target.
    old: Vec<u8>,
}

impl Crashed {
    async fn new() -> Self {
        let (_running, running_path) = temporary_path();
        let (store, registry) = open(&running_path);
        create(&registry, nfs("nas:/a")).await;
        wait_until_copied(&running_path).await;
        let old = fs::read(&running_path).expect("read");
        // A reader prevents a checkpoint, so later changes stay in the log.
        let reader = Connection::open(&running_path).expect("opened");
        reader.execute_batch("BEGIN; SELECT count(*) FROM target").expect("read");
        create(&registry, nfs("nas:/b")).await;
        create(&registry, nfs("nas:/c")).await;
        let (directory, path) = temporary_path();
        let copies =
            ["", "-wal", ".generation"].map(|name| (file_beside(&running_path, name), file_beside(&path, name)));
        // On the writer's thread, so that nothing is written meanwhile.
        let copied = store.run(move |_| {
            for (from, to) in copies {
                fs::copy(from, to).expect("copied");
            }
            Ok::<(), StorageError>(())
        });
        copied.await.expect("copied");
        Self { _directory: directory, path, old }
    }

    fn wal(&self) -> PathBuf {
        file_beside(&self.path, "-wal")
    }

    fn record(&self) -> PathBuf {
        file_beside(&self.path, ".generation")
    }

    /// Asserts that the file is refused, and that the error says what was found and what was expected.
    fn assert_refused(&self, found: &str) {
        let error = open_error(&self.path);
        for part in
            [found, "change 3 or later", "with 3 targets", "registry restore", "registry accept-loss", ".generation"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(error.contains("lost changes that were acknowledged"), "{error}");
    }
}

async fn targets_of(path: &Path) -> usize {
    let store = SqliteStore::open(path).expect("opened");
    let targets = store.snapshot().targets().len();
    store.close().await;
    targets
}

#[tokio::test]
async fn crash_loses_nothing() {
    let crashed = Crashed::new().await;
    assert_eq!(targets_of(&crashed.path).await, 3);
}

#[tokio::test]
async fn removed_log_is_refused() {
    let crashed = Crashed::new().await;
    fs::remove_file(crashed.wal()).expect("removed");
    crashed.assert_refused("it contains change 1 with 1 target");
}

#[tokio::test]
async fn truncated_log_is_refused() {
    let length = fs::metadata(Crashed::new().await.wal()).expect("a log").len();
    for kept in [0, 31, 32, length / 2, length - 1] {
        let crashed = Crashed::new().await;
        fs::OpenOptions::new().write(true).open(crashed.wal()).expect("opened").set_len(kept).expect("cut");
        crashed.assert_refused("it contains change ");
    }
}

#[tokio::test]
async fn damaged_log_is_refused() {
    let length = fs::read(Crashed::new().await.wal()).expect("a log").len();
    // In the header, in the first frame, and in the last one.
    for at in [4, 100, length - 100] {
        let crashed = Crashed::new().await;
        let mut log = fs::read(crashed.wal()).expect("a log");
        log[at] ^= 0xff;
        fs::write(crashed.wal(), log).expect("written");
        crashed.assert_refused("it contains change ");
    }
}

#[tokio::test]
async fn older_copy_is_refused() {
    let crashed = Crashed::new().await;
    assert_eq!(targets_of(&crashed.path).await, 3);
    for log in ["-wal", "-shm"] {
        let _ = fs::remove_file(file_beside(&crashed.path, log));
    }
    fs::write(&crashed.path, &crashed.old).expect("written");
    crashed.assert_refused("it contains change 1 with 1 target");
}

#[tokio::test]
async fn missing_file_is_refused_only_after_changes() {
    let crashed = Crashed::new().await;
    fs::remove_file(crashed.wal()).expect("removed");
    fs::remove_file(&crashed.path).expect("removed");
    crashed.assert_refused("the file is missing");
    assert!(!crashed.path.exists(), "an empty registry was created");

    let (_directory, path) = temporary_path();
    SqliteStore::open(&path).expect("created").close().await;
    fs::remove_file(&path).expect("removed");
    SqliteStore::open(&path).expect("nothing was acknowledged").close().await;
}

#[tokio::test]
async fn another_registry_is_refused() {
    let (crashed, other) = (Crashed::new().await, Crashed::new().await);
    fs::copy(&other.path, &crashed.path).expect("copied");
    fs::copy(other.wal(), crashed.wal()).expect("copied");
    crashed.assert_refused("it is another registry");
}

#[tokio::test]
async fn file_of_an_older_release_is_refused_after_changes() {
    for steps in 1..schema::KNOWN {
        let crashed = Crashed::new().await;
        fs::remove_file(crashed.wal()).expect("removed");
        fs::remove_file(&crashed.path).expect("removed");
        let connection = Connection::open(&crashed.path).expect("created");
        schema::of_older_release(&connection, steps).expect("written");
        drop(connection);
        let older = format!("it has schema {steps} of an older release");
        crashed.assert_refused(if steps < 5 { older.as_str() } else { "it is another registry" });
        let backup = maintenance::backup(&crashed.path, &file_beside(&crashed.path, ".backup"), false);
        assert!(backup.expect_err("refused").to_string().contains("lost changes"), "schema {steps}");
    }
}

#[tokio::test]
async fn failed_replacement_leaves_file_and_log_in_place() {
    let crashed = Crashed::new().await;
    // A file without its log is not refused if there is no record.
    fs::remove_file(crashed.record()).expect("removed");
    // A directory cannot be renamed to a file.
    let new = file_beside(&crashed.path, ".new");
    fs::create_dir(&new).expect("created");
    maintenance::replace(&crashed.path, &new).expect_err("refused");
    assert_eq!(targets_of(&crashed.path).await, 3);
    let entries = fs::read_dir(crashed.path.parent().expect("a directory")).expect("read");
    let names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("replaced")), "{names:?}");
}

#[tokio::test]
async fn upgraded_registry_is_protected_before_its_first_change() {
    let (_directory, path) = temporary_path();
    create_with_schema_3(&path, "nas:/old");
    assert_eq!(targets_of(&path).await, 1);
    fs::remove_file(&path).expect("removed");
    let error = open_error(&path);
    assert!(error.contains("the file is missing, expected change 0 or later"), "{error}");
}

#[tokio::test]
async fn missing_or_damaged_record_proves_no_loss() {
    type Damage = fn(&str) -> Option<Vec<u8>>;
    let damages: [Damage; 6] = [
        |_| None,
        |_| Some(Vec::new()),
        |_| Some(b"registry a change 1 targets 1\n".to_vec()),
        |_| Some(vec![0xff; 64]),
        // One wrong bit, which results in another number.
        |line| Some(line.replace("targets 00000000000000000003", "targets 00000000000000000007").into()),
        |line| Some(line.replace("change 00", "change 10").into()),
    ];
    for damage in damages {
        let crashed = Crashed::new().await;
        let line = fs::read_to_string(crashed.record()).expect("read");
        match damage(&line) {
            None => fs::remove_file(crashed.record()).expect("removed"),
            Some(damaged) => {
                assert_ne!(damaged, line.as_bytes());
                fs::write(crashed.record(), damaged).expect("written");
            }
        }
        assert_eq!(targets_of(&crashed.path).await, 3, "{line}");
        let recorded = Record::read(&crashed.path).expect("read").expect("written anew");
        assert_eq!((recorded.number, recorded.targets), (3, 3));
    }
}

#[tokio::test]
async fn record_of_an_older_release_proves_a_loss() {
    let crashed = Crashed::new().await;
    let line = fs::read_to_string(crashed.record()).expect("read");
    let (content, _) = line.split_once(" sha256 ").expect("a checksum");
    fs::write(crashed.record(), format!("{content}\n")).expect("written");
    fs::remove_file(crashed.wal()).expect("removed");
    crashed.assert_refused("it contains change 1 with 1 target");
}

#[tokio::test]
async fn damaged_record_of_a_missing_registry_is_refused() {
    let crashed = Crashed::new().await;
    for file in [&crashed.path, &crashed.wal()] {
        fs::remove_file(file).expect("removed");
    }
    fs::write(crashed.record(), "damaged").expect("written");
    let error = open_error(&crashed.path);
    for part in ["the file is missing", ".generation: it is damaged", "registry accept-loss"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!crashed.path.exists(), "an empty registry was created");
    let (content, accepted) = maintenance::accept_loss(&crashed.path).expect("accepted");
    assert!(content.targets == 0 && accepted.is_some());
    assert_eq!(targets_of(&crashed.path).await, 0);
}

#[tokio::test]
async fn record_that_cannot_be_read_or_written_does_not_prevent_the_start() {
    for is_readable in [true, false] {
        let crashed = Crashed::new().await;
        fs::remove_file(crashed.record()).expect("removed");
        // A directory in its place can be neither read nor replaced.
        let obstacle = if is_readable { file_beside(&crashed.record(), ".new") } else { crashed.record() };
        fs::create_dir(&obstacle).expect("created");
        let (store, registry) = open(&crashed.path);
        assert_eq!(registry.snapshot().targets().len(), 3);
        create(&registry, nfs("nas:/d")).await;
        fs::remove_dir(&obstacle).expect("removed");
        create(&registry, nfs("nas:/e")).await;
        let recorded = Record::read(&crashed.path).expect("read").expect("written by the next change");
        assert_eq!((recorded.number, recorded.targets), (5, 5));
        close(store, registry).await;
    }
}

#[tokio::test]
async fn crash_between_commit_and_record_is_not_a_loss() {
    for behind in [2, 1, 0] {
        let crashed = Crashed::new().await;
        let recorded = Record::read(&crashed.path).expect("read").expect("a record");
        let older = Generation { number: behind, targets: 0, ..recorded };
        Record::create(&crashed.path, &older).expect("written");
        assert_eq!(targets_of(&crashed.path).await, 3, "{behind}");
    }
}

#[tokio::test]
async fn start_writes_the_record_in_place() {
    for number in [3, 2] {
        let crashed = Crashed::new().await;
        let recorded = Record::read(&crashed.path).expect("read").expect("a record");
        Record::create(&crashed.path, &Generation { number, ..recorded }).expect("written");
        let inode = || fs::metadata(crashed.record()).expect("a record").ino();
        let before = inode();
        assert_eq!(targets_of(&crashed.path).await, 3);
        assert_eq!(inode(), before, "a full disk may have no space for another file");
        assert_eq!(Record::read(&crashed.path).expect("read").expect("a record").number, 3);
    }
}

#[tokio::test]
async fn history_and_refused_changes_leave_the_record_as_it_is() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    let id = create(&registry, nfs("nas:/a")).await.target.id;
    let before = Record::read(&path).expect("read");
    registry.add_transitions(vec![transition(id, 1, Status::Offline)]).await.expect("added");
    refused(&registry, nfs("nas:/a")).await;
    assert_eq!(Record::read(&path).expect("read"), before);
    registry.change(&Change::DeleteTarget(id)).await.expect("deleted");
    let recorded = Record::read(&path).expect("read").expect("a record");
    assert_eq!((recorded.number, recorded.targets), (2, 0));
    close(store, registry).await;
    assert_eq!(targets_of(&path).await, 0);
}

#[tokio::test]
async fn accepted_loss_is_not_reported_again() {
    let crashed = Crashed::new().await;
    fs::remove_file(crashed.wal()).expect("removed");
    crashed.assert_refused("it contains change 1");
    let (content, accepted) = maintenance::accept_loss(&crashed.path).expect("accepted");
    assert_eq!((content.targets, content.types), (1, 1));
    assert!(accepted.expect("a loss").to_string().contains("change 3"));
    let (content, accepted) = maintenance::accept_loss(&crashed.path).expect("nothing to accept");
    assert!(content.targets == 1 && accepted.is_none(), "{accepted:?}");

    let (store, registry) = open(&crashed.path);
    create(&registry, nfs("nas:/d")).await;
    close(store, registry).await;
    // A copy from before the loss is still older.
    fs::write(&crashed.path, &crashed.old).expect("written");
    let error = open_error(&crashed.path);
    assert!(error.contains("it contains change 1 with 1 target, expected change 5 or later"), "{error}");
}

#[tokio::test]
async fn accepted_loss_of_the_file_starts_empty() {
    let crashed = Crashed::new().await;
    fs::remove_file(&crashed.path).expect("removed");
    fs::remove_file(crashed.wal()).expect("removed");
    let (content, accepted) = maintenance::accept_loss(&crashed.path).expect("accepted");
    assert_eq!(content.targets, 0);
    assert!(accepted.expect("a loss").to_string().contains("the file is missing"));
    assert_eq!(targets_of(&crashed.path).await, 0);
}

#[tokio::test]
async fn loss_cannot_be_accepted_while_an_agent_runs() {
    let (_directory, path) = temporary_path();
    let (_store, _registry) = open(&path);
    let error = maintenance::accept_loss(&path).expect_err("refused").to_string();
    assert!(error.contains("another agent is using it"), "{error}");
}

#[tokio::test]
async fn record_that_another_program_changed_is_written_anew_by_the_next_change() {
    type Change = fn(&Path);
    let changes: [Change; 4] = [
        |record| fs::remove_file(record).expect("removed"),
        |record| {
            fs::write(file_beside(record, ".other"), "of another registry\n").expect("written");
            fs::rename(file_beside(record, ".other"), record).expect("replaced");
        },
        |record| fs::write(record, "").expect("emptied"),
        |record| fs::write(record, "x".repeat(1000)).expect("written"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (_directory, path) = temporary_path();
        let (store, registry) = open(&path);
        create(&registry, nfs("nas:/a")).await;
        change(&file_beside(&path, ".generation"));
        create(&registry, nfs("nas:/b")).await;
        let recorded = Record::read(&path).map(|recorded| recorded.map(|found| (found.number, found.targets)));
        assert_eq!(recorded, Ok(Some((2, 2))), "change {number}");
        close(store, registry).await;
    }
}
