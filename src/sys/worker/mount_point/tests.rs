//! Tests of mount points and unmounts.

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;

fn root() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("var/mounts");
    (directory, root)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

#[test]
fn missing_mount_point_is_created_with_its_parents() {
    let (_guard, root) = root();
    let prepared = prepare(&root, Path::new("L2I/")).expect("made");
    assert_eq!(prepared, PreparedMountPoint { created: true, tightened: false, holds_files: false });
    assert_eq!(mode(&root.join("L2I")), 0o755);
    let prepared = prepare(&root, Path::new("L2I/YWJj/eHl6")).expect("made");
    assert!(prepared.created);
    let again = prepare(&root, Path::new("L2I/YWJj/eHl6")).expect("there");
    assert_eq!(again, PreparedMountPoint { created: false, tightened: false, holds_files: false });
}

#[test]
fn mount_point_writable_by_others_is_tightened() {
    let (_guard, root) = root();
    let point = root.join("x");
    fs::create_dir_all(&point).expect("made");
    fs::set_permissions(&point, fs::Permissions::from_mode(0o2777)).expect("a mode");
    fs::write(point.join("backup.img"), "on the root disk").expect("a file");
    if geteuid().is_root() {
        chown(&point, Some(42436), Some(42436)).expect("an owner");
    }
    let prepared = prepare(&root, Path::new("x")).expect("put right");
    assert_eq!(prepared, PreparedMountPoint { created: false, tightened: true, holds_files: true });
    assert_eq!(mode(&point) & 0o777, 0o755);
    assert_eq!(fs::metadata(&point).expect("there").uid(), geteuid().as_raw());
}

#[test]
fn mount_point_lookup_follows_no_links_or_files() {
    let (guard, root) = root();
    fs::create_dir_all(&root).expect("made");
    symlink(guard.path(), root.join("link")).expect("a link");
    fs::write(root.join("file"), "").expect("a file");
    for relative in ["link", "link/x", "file", "file/x"] {
        let fault = prepare(&root, Path::new(relative)).expect_err(relative);
        assert_eq!(fault.kind, FaultKind::NotADirectory, "{fault}");
        assert!(fault.at.contains("/var/mounts/link") || fault.at.contains("/var/mounts/file"), "{fault}");
        assert!(remove(&root, Path::new(relative)).is_err(), "{relative}");
    }
    assert!(root.join("link").is_symlink() && !guard.path().join("x").exists());
}

#[test]
fn mount_point_outside_an_absolute_root_is_refused() {
    let (_guard, root) = root();
    for relative in ["", ".", "..", "../x", "x/../../y", "/etc"] {
        assert_eq!(prepare(&root, Path::new(relative)).expect_err(relative).kind, FaultKind::BadRequest);
        assert_eq!(remove(&root, Path::new(relative)).expect_err(relative).kind, FaultKind::BadRequest);
    }
    assert_eq!(prepare(Path::new("mounts"), Path::new("x")).expect_err("relative").kind, FaultKind::BadRequest);
    assert!(!root.exists(), "and nothing was made");
}

#[test]
fn removal_includes_empty_parents_but_never_the_root() {
    let (_guard, root) = root();
    prepare(&root, Path::new("a/b/c")).expect("made");
    prepare(&root, Path::new("a/d")).expect("made");
    remove(&root, Path::new("a/b/c")).expect("removed");
    assert!(!root.join("a/b").exists() && root.join("a/d").exists());
    remove(&root, Path::new("a/b/c")).expect("gone already");
    remove(&root, Path::new("a/d")).expect("removed");
    assert!(!root.join("a").exists() && root.exists());
}

#[test]
fn removal_is_not_redirected() {
    let (guard, root) = root();
    let elsewhere = guard.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("x")).expect("made");
    let parent = root.parent().expect("one");
    fs::create_dir_all(parent).expect("made");
    symlink(&elsewhere, &root).expect("a link");
    let set_mode = |mode| fs::set_permissions(parent, fs::Permissions::from_mode(mode)).expect("a mode");
    set_mode(0o777);
    let fault = remove(&root, Path::new("x")).expect_err("unprotected");
    assert_eq!(fault.kind, FaultKind::Unprotected, "{fault}");
    assert!(elsewhere.join("x").exists());
    set_mode(0o755);
    remove(&root, Path::new("x")).expect("root's own link is followed");
    assert!(!elsewhere.join("x").exists());
}

#[test]
fn mount_point_with_files_is_not_removed() {
    let (_guard, root) = root();
    prepare(&root, Path::new("x")).expect("made");
    fs::write(root.join("x/backup.img"), "precious").expect("a file");
    let fault = remove(&root, Path::new("x")).expect_err("not empty");
    assert_eq!((fault.kind, fault.errno()), (FaultKind::NotEmpty, Some(Errno::ENOTEMPTY)), "{fault}");
    assert!(root.join("x/backup.img").exists());
}

#[test]
fn missing_mount_root_is_created_by_several_workers_at_once() {
    const WORKERS: usize = 8;
    for _ in 0..20 {
        let (_guard, root) = root();
        let together = std::sync::Barrier::new(WORKERS);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (root, together) = (&root, &together);
                scope.spawn(move || {
                    together.wait();
                    let prepared = prepare(root, Path::new(&format!("target{worker}"))).expect("made");
                    assert!(prepared.created);
                });
            }
        });
    }
}

#[test]
fn mount_root_that_another_user_can_change_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let (guard, root) = root();
    fs::create_dir_all(&root).expect("made");
    let parent = root.parent().expect("one");
    let link = guard.path().join("link");
    symlink(parent, &link).expect("a link");
    let refused = |root: &Path, what: &str| {
        let fault = prepare(root, Path::new("a/b")).expect_err(what);
        assert_eq!(fault.kind, FaultKind::Unprotected, "{what}: {fault}");
        assert!(!root.join("a").exists(), "{what}: nothing was made");
        fault.at
    };
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    for path in [&root, parent, guard.path()] {
        let before = mode(path);
        for mode in [0o777, 0o775, 0o757] {
            set_mode(path, mode);
            let at = refused(&root, "writable by others");
            assert!(at.starts_with(&format!("{} has mode {mode:04o}", path.display())), "{at}");
            refused(&link.join("mounts"), "writable by others, behind a link");
        }
        set_mode(path, before);
        chown(path, Some(42436), None).expect("an owner");
        let at = refused(&root, "another owner");
        assert!(at.starts_with(&format!("{} belongs to user 42436", path.display())), "{at}");
        refused(&link.join("mounts"), "another owner, behind a link");
        chown(path, Some(0), None).expect("an owner");
    }
    set_mode(&root, 0o1777);
    refused(&root, "the sticky bit does not protect mount points that do not exist");
    set_mode(&root, 0o755);
    set_mode(parent, 0o1777);
    std::os::unix::fs::lchown(&link, Some(42436), None).expect("an owner");
    refused(&link.join("mounts"), "a link of another user");
    fs::create_dir(root.join("a")).expect("made");
    chown(root.join("a"), Some(42436), None).expect("an owner");
    set_mode(&root.join("a"), 0o777);
    assert!(prepare(&root, Path::new("a/b")).expect("the sticky bit protects a parent").tightened);
    let between = fs::metadata(root.join("a")).expect("there");
    assert_eq!((between.uid(), between.mode() & 0o7777), (0, 0o755), "a directory between is changed");
}

#[test]
fn unmount_fails_when_nothing_is_mounted() {
    let directory = tempfile::tempdir().expect("a directory");
    for how in [UnmountHow::Plain, UnmountHow::Force, UnmountHow::Lazy] {
        let fault = unmount(directory.path(), 1, how).expect_err("nothing is mounted");
        // Not root: EPERM.
        assert!(matches!(fault.errno(), Some(Errno::EINVAL | Errno::EPERM)), "{fault}");
    }
    let missing = unmount(&directory.path().join("x/y"), 1, UnmountHow::Plain).expect_err("no such directory");
    assert_eq!(missing.errno(), Some(Errno::ENOENT), "{missing}");
    assert!(!directory.path().join("x").exists(), "nothing was made");
    for path in ["/", "x", "/x/.."] {
        assert_eq!(unmount(Path::new(path), 1, UnmountHow::Plain).expect_err(path).kind, FaultKind::BadRequest);
    }
}

/// Run like the test below. A user that owns the mount root replaces it by a link to another directory.
#[test]
#[ignore = "mounts: needs root"]
fn unmount_is_not_redirected() {
    use nix::mount::{MsFlags, mount, umount};
    let (guard, root) = root();
    let elsewhere = guard.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("x")).expect("made");
    mount(Some("none"), &elsewhere.join("x"), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mounted");
    let parent = root.parent().expect("one");
    fs::create_dir_all(parent).expect("made");
    symlink(&elsewhere, &root).expect("a link");
    chown(parent, Some(42436), None).expect("an owner");
    let verified = verify(&root.join("x"));
    let redirected = unmount(&root.join("x"), 1, UnmountHow::Lazy);
    chown(parent, Some(0), None).expect("an owner");
    let followed = unmount(&root.join("x"), 1, UnmountHow::Plain);
    let _ = umount(&elsewhere.join("x"));
    assert_eq!(verified.expect_err("unprotected").kind, FaultKind::Unprotected);
    let fault = redirected.expect_err("unprotected");
    assert_eq!(fault.kind, FaultKind::Unprotected);
    assert!(fault.at.contains("belongs to user 42436"), "{fault}");
    followed.expect("root's own link is followed");
}

/// As the test below. Another process mounts something over the mount before the worker unmounts it.
#[test]
#[ignore = "mounts: needs root"]
fn mount_over_the_expected_one_is_not_unmounted() {
    use nix::mount::{MsFlags, mount};
    let (_guard, root) = root();
    let point = root.join("x");
    prepare(&root, Path::new("x")).expect("made");
    let topmost = || MountTable::read().expect("read").topmost_at(&point).map(|entry| entry.mount_id);
    let mut ids = Vec::new();
    for _ in 0..2 {
        mount(Some("none"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mounted");
        ids.push(topmost().expect("mounted"));
    }
    for how in [UnmountHow::Plain, UnmountHow::Force, UnmountHow::Lazy] {
        let refused = unmount(&point, ids[0], how);
        assert_eq!(refused.expect_err("another one is above").kind, FaultKind::Mounted);
        assert_eq!(topmost(), Some(ids[1]));
    }
    for id in [ids[1], ids[0]] {
        unmount(&point, id, UnmountHow::Plain).expect("unmounted");
    }
    assert_eq!(topmost(), None);
}

/// `cargo test --lib mount_point -- --ignored`, as root.
#[test]
#[ignore = "mounts: needs root"]
fn mounted_directory_is_neither_prepared_nor_removed() {
    use nix::mount::{MsFlags, mount, umount};
    let (_guard, root) = root();
    prepare(&root, Path::new("x")).expect("made");
    mount(Some("none"), &root.join("x"), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mounted");
    let prepared = prepare(&root, Path::new("x"));
    let removed = remove(&root, Path::new("x"));
    umount(&root.join("x")).expect("unmounted");
    assert_eq!(prepared.expect_err("mounted").kind, FaultKind::Mounted);
    assert_eq!(removed.expect_err("mounted").kind, FaultKind::Mounted);
}

#[test]
fn private_root_is_created_for_its_owner_only_and_an_open_one_refused() {
    let (_guard, root) = root();
    make_private(&root).expect("created");
    assert_eq!(fs::metadata(&root).expect("there").permissions().mode() & 0o777, 0o700);
    make_private(&root).expect("as it is");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("changed");
    let fault = make_private(&root).expect_err("other users may list it");
    assert_eq!(fault.kind, FaultKind::Unprotected);
    assert!(fault.at.contains("has mode 0755"), "{fault}");
    assert_eq!(fs::metadata(&root).expect("there").permissions().mode() & 0o777, 0o755, "not changed");
}
