//! Fifty targets of a server that is dead, beside ten that are well.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::api::{Target, get};
use crate::machine::{
    Machine, black_hole, black_hole_data, end_black_holes, eventually, export_directory, is_long, main_pid, mount_path,
    run,
};
use crate::observer::Observer;
use crate::process::{Usage, processor_time};

pub const DEAD: usize = 50;
pub const WELL: usize = 10;
/// The agent's own. Each mount that hangs costs a worker an interval, and starting one is dear in the lab.
const INTERVAL: Duration = Duration::from_secs(10);
pub const CONFIG: &str = r#"
[mounts]
nfs_options = "nolock,hard,timeo=600,nfsvers=3,retrans=10"
"#;
/// How long all targets may take to be mounted, on one processor.
pub const MOUNTED: Duration = Duration::from_secs(60);
/// How long all of a dead server's targets may take to be offline: two probes with a deadline each.
pub const ALL_OFFLINE: Duration = Duration::from_secs(45);
/// How long TCP may wait before it sends again what was lost (`TCP_RTO_MAX` in `include/net/tcp.h`): so long
/// the kernel may leave a mount dead whose server is back, and the agent tells no better.
const SENT_AGAIN: Duration = Duration::from_secs(120);
/// How soon after that all targets are available.
const ALL_BACK: Duration = INTERVAL.saturating_mul(3);
/// How much of a processor the agent may use, in percent, its children counted, at the interval that
/// users have.
const PROCESSOR_MAX: f64 = 2.0;
/// The same while mounts hang, each of which costs a worker at each probe: starting a process takes many
/// system calls and page faults, each of which is some signals of the host to the lab. What it costs a host is
/// measured by `cargo bench --bench mounts`.
const PROCESSOR_HANGING_MAX: f64 = 50.0;

/// Creates this many targets of a server.
pub fn targets(address: &str, kind: &str, count: usize) -> Vec<Target> {
    let names: Vec<String> = (0..count).map(|number| format!("{kind}{number:02}")).collect();
    for name in &names {
        let directory = export_directory("one").join(name);
        fs::create_dir(&directory).expect("made");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("for the backup user");
    }
    names.iter().map(|name| Target::create(&format!("{address}:/srv/exports/one/{name}"))).collect()
}

/// How many targets have this status.
pub fn statuses(status: &str) -> usize {
    let list = get("/backup_targets");
    list["backup_targets"].as_array().map_or(0, |list| list.iter().filter(|target| target["status"] == status).count())
}

/// Fifty targets beside ten while `break_them` lasts. Tells how much of a processor the agent used.
fn crowd(break_them: impl FnOnce(&str), mounts_hang: bool) -> f64 {
    let _machine = Machine::start(CONFIG);
    let well = targets("10.0.0.1", "well", WELL);
    let _dead = targets("10.0.0.3", "dead", DEAD);
    eventually("all are available", MOUNTED, || (statuses("available") == WELL + DEAD).then_some(()));
    let (before, observer) = (Usage::now(), Observer::start());
    break_them("10.0.0.3");
    eventually("the dead are offline", ALL_OFFLINE, || (statuses("offline") == DEAD).then_some(()));
    let lasts = if is_long() { Duration::from_secs(300) } else { Duration::from_secs(20) };
    well[0].wait_for_probes(usize::try_from(lasts.as_secs() / INTERVAL.as_secs()).expect("few"), lasts * 2);
    let well: Vec<&Target> = well.iter().collect();
    let children = if mounts_hang { DEAD } else { 0 };
    observer.end().assert_bounded(&well, INTERVAL, children, mounts_hang);
    // Nobody asks meanwhile: what an answer costs is the asker's.
    let (pid, began, time_before) = (main_pid(), Instant::now(), processor_time(main_pid()));
    sleep(lasts);
    let (used, lasted) = (processor_time(pid) - time_before, began.elapsed());
    assert_eq!((statuses("available"), statuses("offline")), (WELL, DEAD));
    let observer = Observer::start();
    end_black_holes();
    let one_of_them = mount_path("/srv/exports/one/dead00");
    let look = ["--signal=KILL", "1", "stat", "--file-system", one_of_them.to_str().expect("text")];
    eventually("the kernel has its answer", SENT_AGAIN, || run("timeout", &look).status.success().then_some(()));
    eventually("all are back", ALL_BACK, || (statuses("available") == WELL + DEAD).then_some(()));
    observer.end().assert_bounded(&well, INTERVAL, DEAD, mounts_hang);
    let leftover = || {
        let now = Usage::now();
        let is_as_before = now.threads <= before.threads && now.files <= before.files + 4 && now.zombies == 0;
        (is_as_before && now.children <= before.children.max(4)).then_some(())
    };
    eventually("nothing is left of it", INTERVAL * 4, leftover);
    used.as_secs_f64() / lasted.as_secs_f64() * 100.0
}

#[test]
fn fifty_targets_on_a_dead_server_cost_little() {
    let used = crowd(black_hole, false);
    eprintln!("{used:.1} % of a processor");
    assert!(used < PROCESSOR_MAX, "{used:.1} %");
}

#[test]
fn fifty_hanging_mounts_delay_nothing() {
    let used = crowd(black_hole_data, true);
    eprintln!("{used:.1} % of a processor");
    assert!(used < PROCESSOR_HANGING_MAX, "{used:.1} %");
}
