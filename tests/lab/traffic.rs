//! Traffic counters of a mount: they match the kernel's, and show a slow server before it fails.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, HARD, Machine, PATH, TIMED_OUT, UP_OR_DOWN, black_hole, black_hole_data, end_black_holes,
    eventually, mount_path, output, run, succeed,
};
use crate::observer::Observer;

/// Time limit until counters are reported. They are read every two seconds, and targets are probed every second.
const COUNTED: Duration = Duration::from_secs(8);
/// Delay that is added to each direction of the connection.
const DELAY: &str = "60ms";
/// A configuration in which the kernel retransmits requests after a second (`timeo` is in tenths, nfs(5)).
const QUICK_RETRANSMISSION: &str = r#"
[mounts]
nfs_options = "nolock,hard,timeo=10,nfsvers=3,retrans=10"

[probe]
nfs_interval = "1s"
slow_after = "50ms"
"#;

/// The kernel's counters of the mount of an exported path: requests, transmissions, bytes read and bytes written.
fn kernel_counters(path: &str) -> [u64; 4] {
    let text = fs::read_to_string("/proc/self/mountstats").expect("read");
    let at = format!(" mounted on {} with fstype nfs", mount_path(path).display());
    let block = text.split("device ").find(|block| block.contains(&at)).expect("mounted");
    let numbers = |line: &str| -> Vec<u64> { line.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
    let line = |name: &str| block.lines().find_map(|line| line.trim().strip_prefix(name)).expect("a line");
    let bytes = numbers(line("bytes:"));
    let (_, operations) = block.split_once("per-op statistics").expect("counters of operations");
    let operations: Vec<Vec<u64>> = operations.lines().map(numbers).filter(|numbers| numbers.len() >= 8).collect();
    let sum = |at: usize| operations.iter().map(|numbers| numbers[at]).sum();
    [sum(0), sum(1), bytes[4], bytes[5]]
}

fn figure(mount: &Value, key: &str) -> f64 {
    mount[key].as_f64().unwrap_or_else(|| panic!("{key}: {mount:#}"))
}

#[test]
fn traffic_counters_match_the_kernel() {
    for export in [EXPORT, "10.0.0.2:/srv/exports/two"] {
        let _machine = Machine::start(EVERY_SECOND);
        let target = Target::create_available(export);
        let (_, path) = export.split_once(':').expect("a path");
        let file = mount_path(path).join("backup.img");
        fs::write(&file, vec![7; 3_000_001]).expect("written");
        // Otherwise the page cache would answer.
        fs::write("/proc/sys/vm/drop_caches", "1").expect("dropped");
        assert_eq!(fs::read(&file).expect("read").len(), 3_000_001);
        let [_, _, read, written] = kernel_counters(path);
        assert!(read >= 3_000_001 && written >= 3_000_001, "{read} {written}");
        let mount = eventually("bytes counted", COUNTED, || {
            let mount = target.report().get("mount").clone();
            (figure(&mount, "bytes_written") >= written as f64).then_some(mount)
        });
        let [_, _, read_after, written_after] = kernel_counters(path);
        for (key, least, most) in [("bytes_read", read, read_after), ("bytes_written", written, written_after)] {
            let reported = figure(&mount, key);
            assert!((least as f64..=most as f64).contains(&reported), "{key} of {export}: {least} {reported} {most}");
        }
        assert_eq!(figure(&mount, "retransmissions"), 0.0, "{mount:#}");
        assert!(figure(&mount, "round_trip_ms") < 50.0, "{mount:#}");
        let shown = output("targetwatch", &["target", "show", &target.id]);
        assert!(shown.contains("round trip ") && shown.contains("0 retransmissions"), "{shown}");
    }
}

#[test]
fn slow_server_is_reported_before_it_fails() {
    let _machine = Machine::start(QUICK_RETRANSMISSION);
    let target = Target::create_available(EXPORT);
    let round_trip = || target.report().get("mount")["round_trip_ms"].as_f64();
    eventually("fast", COUNTED, || round_trip().filter(|milliseconds| *milliseconds < 20.0));
    succeed("tc", &["qdisc", "add", "dev", "lo", "root", "netem", "delay", DELAY]);
    let slow = eventually("slow", COUNTED, || round_trip().filter(|milliseconds| *milliseconds > 100.0));
    let report = target.check();
    run("tc", &["qdisc", "del", "dev", "lo", "root"]);
    eprintln!("{slow} ms");
    assert!(slow < 1000.0, "{slow}");
    assert_eq!((report.get("status"), report.get("reason")), (&"available".into(), &"slow".into()), "{report:?}");
    assert!(report.message().contains("slow_after"), "{report:?}");
    eventually("fast again", COUNTED, || round_trip().filter(|milliseconds| *milliseconds < 20.0));
    assert!(target.is_available());
}

#[test]
fn retransmissions_are_counted() {
    let _machine = Machine::start(QUICK_RETRANSMISSION);
    let target = Target::create_available(EXPORT);
    let reported = || target.report().get("mount")["retransmissions"].as_u64();
    assert_eq!(reported(), Some(0));
    let file = mount_path(PATH).join("backup.img");
    // A running backup causes retransmissions. Probes do not access a mount whose server does not answer.
    black_hole("10.0.0.1");
    let writer = std::thread::spawn(move || fs::write(file, vec![7; 100_000]));
    target.wait_until_offline(&["connect_timed_out"], COUNTED);
    end_black_holes();
    target.wait_until_available(Duration::from_secs(20));
    writer.join().expect("joined").expect("written");
    fs::write(mount_path(PATH).join("more.img"), vec![7; 1000]).expect("written");
    let retransmissions = || {
        let [requests, transmissions, ..] = kernel_counters(PATH);
        transmissions - requests
    };
    let count =
        eventually("retransmissions counted", COUNTED, || reported().filter(|count| *count == retransmissions()));
    eprintln!("{count} retransmissions");
    assert!(count > 0);
    // They are counted from the time of the mount, so the number does not fall.
    target.wait_for_probes(5, COUNTED);
    assert_eq!(reported(), Some(retransmissions()));
}

#[test]
fn traffic_counters_are_reported_for_a_hanging_mount() {
    let _machine = Machine::start(HARD);
    let target = Target::create_available(EXPORT);
    fs::write(mount_path(PATH).join("backup.img"), vec![7; 10_000]).expect("written");
    black_hole_data("10.0.0.1");
    target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    let began = Instant::now();
    let [_, _, _, written] = kernel_counters(PATH);
    // A call on the mount itself would wait until the end of the test.
    assert!(began.elapsed() < UP_OR_DOWN, "the counters waited for the server: {:?}", began.elapsed());
    target.wait_for_probes(2, TIMED_OUT);
    assert_eq!(figure(target.report().get("mount"), "bytes_written"), written as f64);
}

/// Number of NFS mounts of a large host.
const MANY: usize = 1000;

#[test]
fn traffic_counters_of_many_mounts_delay_nothing() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let other = Target::create_available("10.0.0.2:/srv/exports/two");
    // The kernel prints all counters for each bind mount, although they are the same.
    let at = mount_path(PATH);
    for number in 0..MANY {
        let bound = Path::new("/srv/many").join(number.to_string());
        fs::create_dir_all(&bound).expect("created");
        mount(Some(&at), &bound, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bound");
    }
    let began = Instant::now();
    let text = fs::read("/proc/self/mountstats").expect("read");
    eprintln!("{} bytes in {:?}", text.len(), began.elapsed());
    assert!(text.len() > MANY * 1000, "{} bytes", text.len());
    let observer = Observer::start();
    for target in [&target, &other] {
        target.wait_for_probes(10, Duration::from_secs(30));
        assert!(target.report().get("mount")["round_trip_ms"].is_number());
    }
    observer.end().assert_bounded(&[&target, &other], Duration::from_secs(1), 0, false);
    for number in 0..MANY {
        umount2(&Path::new("/srv/many").join(number.to_string()), MntFlags::MNT_DETACH).expect("unbound");
    }
}
