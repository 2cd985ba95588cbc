//! Inspection, which changes nothing.

use super::*;
use crate::registry::sqlite::inspect;

/// The name, content and mode of every file.
fn files(directory: &TempDir) -> Vec<(PathBuf, Vec<u8>, u32)> {
    let entries = fs::read_dir(directory.path()).expect("read").map(|entry| entry.expect("an entry").path());
    let state = |path: PathBuf| {
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        (path.clone(), fs::read(&path).expect("read"), mode)
    };
    let mut files: Vec<_> = entries.map(state).collect();
    files.sort();
    files
}

fn exports(path: &Path) -> Vec<String> {
    inspect(path).expect("readable").targets.iter().map(crate::model::TargetSpec::export).collect()
}

#[tokio::test]
async fn inspection_changes_no_file_when_no_agent_runs() {
    let directory = tempfile::Builder::new().prefix("a ?#%é").tempdir().expect("a directory");
    let path = directory.path().join("registry.db");
    assert_eq!(inspect(&path).expect("an agent creates it").content, None);
    assert_eq!(files(&directory), [], "nothing was created");
    let (store, registry) = open(&path);
    create(&registry, nfs("nas:/a")).await;
    close(store, registry).await;
    let before = files(&directory);
    assert_eq!(exports(&path), ["nas:/a"]);
    assert!(files(&directory) == before, "{:?}", files(&directory));
}

#[tokio::test]
async fn inspection_sees_changes_of_a_running_agent_and_does_not_disturb_it() {
    let (_directory, path) = temporary_path();
    let (_store, registry) = open(&path);
    for export in ["nas:/a", "nas:/b"] {
        create(&registry, nfs(export)).await;
        assert_eq!(exports(&path).last().map(String::as_str), Some(export), "still in the log");
    }
    wait_until_copied(&path).await;
    assert_eq!(exports(&path).len(), 2);
}

#[tokio::test]
async fn inspection_reports_what_an_agent_would_refuse() {
    let (directory, path) = temporary_path();
    let (store, registry) = open(&path);
    create(&registry, nfs("nas:/a")).await;
    close(store, registry).await;
    let good = fs::read(&path).expect("read");
    let missing = directory.path().join("no/such/registry.db");
    for (content, path, words) in [
        (Some(&b""[..]), &path, "the file is empty"),
        (Some(b"not a database"), &path, "not an SQLite database"),
        (Some(&good[..good.len() / 2]), &path, "damaged"),
        (None, &path, "lost changes"),
        (None, &missing, "its parent do not exist"),
    ] {
        match content {
            Some(content) => fs::write(path, content).expect("written"),
            None => drop(fs::remove_file(path)),
        }
        let error = inspect(path).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let error = inspect(&path).expect_err("a pipe").to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

#[tokio::test]
async fn inspection_counts_the_rows_of_an_older_schema() {
    let (directory, path) = temporary_path();
    create_with_schema_3(&path, "nas:/a");
    let before = files(&directory);
    let inspected = inspect(&path).expect("an agent upgrades it");
    assert_eq!((inspected.content.map(|content| content.targets), inspected.targets.len()), (Some(1), 0));
    assert!(files(&directory) == before);
}
