use super::*;

const TABLE: &[u8] = b"\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw
40 27 0:40 / /m/L21udA== rw,relatime shared:7 master:2 - nfs 10.0.0.1:/mnt rw,vers=3,soft
41 40 0:41 / /m/L21udA== rw,relatime - nfs4 10.0.0.1:/mnt ro,vers=4.2
42 27 0:42 / /m/with\\040space\\011tab\\134back\\012line rw - nfs nas:/a\\040b rw
43 27 0:43 / /m/nested/L2I rw - tmpfs  rw
44 27 0:44 /sub /mm rw - tmpfs none rw
45 27 0:45 / /m/odd\\9\\04 rw - tmpfs none rw
not a mount
46 27 0:46 / /m/\xff rw - tmpfs none rw
";

fn table() -> MountTable {
    MountTable::parse(TABLE)
}

#[test]
fn mountinfo_lines_are_parsed() {
    let table = table();
    assert_eq!(table.entries().len(), 9);
    let entry = table.topmost_at(Path::new("/m/L21udA==")).expect("mounted");
    assert_eq!((entry.mount_id, entry.source.as_str()), (41, "10.0.0.1:/mnt"));
    assert!(entry.is_nfs() && entry.is_read_only());
    assert_eq!((entry.device.as_str(), entry.super_options.as_str()), ("0:41", "ro,vers=4.2"));
    assert_eq!(table.topmost_at(Path::new("/m/nested/L2I")).map(|entry| entry.source.as_str()), Some(""));
}

#[test]
fn escapes_are_undone_and_names_need_not_be_text() {
    let table = table();
    let entry = table.topmost_at(Path::new("/m/with space\ttab\\back\nline")).expect("mounted");
    assert_eq!(entry.source, "nas:/a b");
    assert!(table.topmost_at(Path::new("/m/odd\\9\\04")).is_some(), "other backslashes stay");
    assert!(table.topmost_at(Path::new(&OsString::from_vec(b"/m/\xff".to_vec()))).is_some());
    assert_eq!(unescape(b"\\400"), b"\\400", "a number above one byte is not an escape");
}

#[test]
fn mount_point_is_matched_by_whole_components() {
    let table = table();
    assert!(table.topmost_at(Path::new("/m")).is_none());
    assert!(table.topmost_at(Path::new("/m/nested")).is_none());
    assert!(table.topmost_at(Path::new("/m/nested/L2I/")).is_some(), "a trailing slash is the same path");
    assert_eq!(table.topmost_at(Path::new("/")).map(|entry| entry.mount_id), Some(27));
    assert_eq!(table.below(Path::new("/m")).count(), 6, "/mm is not below /m");
}

#[test]
fn stacked_mounts_are_counted() {
    assert_eq!(table().stacked_at(Path::new("/m/L21udA==")), 2);
    assert_eq!(table().stacked_at(Path::new("/proc")), 1);
    assert_eq!(table().stacked_at(Path::new("/nothing")), 0);
}

#[test]
fn automount_point_is_not_counted_as_a_stacked_mount() {
    let table = MountTable::parse(
        b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /m rw - autofs systemd-1 rw,direct\n3 2 0:6 / /m rw - nfs nas:/x rw\n4 1 0:7 / /idle rw - autofs /etc/auto.nfs rw,direct\n",
    );
    assert_eq!((table.stacked_at(Path::new("/m")), table.stacked_at(Path::new("/idle"))), (1, 0));
    assert_eq!(table.topmost_at(Path::new("/m")).map(MountEntry::is_automount), Some(false));
    assert_eq!(table.topmost_at(Path::new("/idle")).map(MountEntry::is_automount), Some(true));
}

#[test]
fn topmost_mount_does_not_depend_on_line_order() {
    // Mount 51 was placed beneath mount 50 (move_mount(2), MOVE_MOUNT_BENEATH), so it is listed last.
    let table = MountTable::parse(
        b"1 0 0:1 / / rw - ext4 a rw\n50 51 0:5 / /m rw - nfs top:/x rw\n51 1 0:6 / /m rw - tmpfs beneath rw\n",
    );
    assert_eq!(table.topmost_at(Path::new("/m")).map(|entry| entry.source.as_str()), Some("top:/x"));
    assert_eq!(table.stacked_at(Path::new("/m")), 2);
}

#[test]
fn mount_hidden_by_a_higher_one_is_not_found() {
    let hidden = b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /m/x rw - nfs nas:/x rw\n3 1 0:3 / /m rw - tmpfs t rw\n";
    let table = MountTable::parse(hidden);
    assert!(table.topmost_at(Path::new("/m/x")).is_none());
    assert_eq!(table.below(Path::new("/m")).count(), 1, "it still shows as being below");
}

#[test]
fn mounts_are_found_when_the_root_mount_is_not_visible() {
    // In a chroot the parents of the outermost mounts are not listed, and there may be no "/".
    let table = MountTable::parse(b"70 12 0:7 / /m/x rw - nfs nas:/x rw\n71 70 0:8 / /m/x rw - nfs nas:/y rw\n");
    assert_eq!(table.topmost_at(Path::new("/m/x")).map(|entry| entry.source.as_str()), Some("nas:/y"));
    let own_parent = MountTable::parse(b"1 1 0:1 / / rw - rootfs rootfs rw\n2 1 0:2 / /m rw - nfs nas:/x rw\n");
    assert!(own_parent.topmost_at(Path::new("/m")).is_some());
}

#[test]
fn lookup_ends_in_a_cyclic_mount_table() {
    let table = MountTable::parse(b"2 3 0:1 / /m rw - nfs a rw\n3 2 0:1 / /m rw - nfs b rw\n");
    assert_eq!(table.stacked_at(Path::new("/m")), 0, "a ring hangs from nothing");
}

#[test]
fn this_hosts_own_table_is_read() {
    let table = MountTable::read().expect("procfs");
    assert_eq!(table.topmost_at(Path::new("/proc")).map(|entry| entry.fs_type.as_str()), Some("proc"));
}

#[test]
fn host_shows_a_mount_that_was_propagated_or_is_at_the_same_path() {
    let table = |lines: &str| MountTable::parse(format!("1 1 0:1 / / rw - ext4 /dev/a rw\n{lines}").as_bytes());
    let host = table(
        "30 1 0:9 / /m/x rw shared:5 - nfs nas:/b rw\n31 1 0:8 / /other rw master:6 - nfs nas:/c rw\n\
         32 1 0:7 / /m/z rw - nfs nas:/d rw\n33 32 0:2 / /m/z rw - tmpfs t rw\n34 1 0:6 / /m/p rw - nfs nas:/e rw\n",
    );
    for (line, is_shown, what) in [
        ("90 1 0:9 / /elsewhere rw shared:5 - nfs nas:/b rw", true, "peers"),
        ("90 1 0:9 / /elsewhere rw master:5 - nfs nas:/b rw", true, "received from the host"),
        ("90 1 0:8 / /m/y rw shared:6 - nfs nas:/c rw", true, "sent to the host"),
        ("90 1 0:6 / /m/p rw - nfs nas:/e rw", true, "at the same path"),
        ("30 1 0:9 / / rw - nfs nas:/b rw", true, "the same mount, in a chroot"),
        ("90 1 0:9 / /elsewhere rw shared:7 - nfs nas:/b rw", false, "another program mounted it on the host"),
        ("90 1 0:9 / /elsewhere rw - nfs nas:/b rw", false, "private, at another path"),
        ("90 1 0:7 / /m/z rw - nfs nas:/d rw", false, "hidden on the host"),
        ("90 1 0:9 / /m/x rw - nfs nas:/c rw", false, "another export of the same file system"),
        ("90 1 0:4 / /m/x rw - nfs nas:/b rw", false, "another mount of the same export"),
    ] {
        let own = table(&format!("{line}\n"));
        assert_eq!(host.shows(own.entries().last().expect("a mount")), is_shown, "{what}");
    }
}
