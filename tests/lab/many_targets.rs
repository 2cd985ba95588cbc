//! Fifty targets of a dead server and ten of a healthy one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::api::{Target, get};
use crate::machine::{
    Machine, black_hole, black_hole_data, end_black_holes, eventually, export_directory, is_long, main_pid, mount_path,
    run,
};
use crate::observer::Observer;
use crate::process::{Usage, processor_time};

/// Number of targets of the dead server.
pub const DEAD: usize = 50;
/// Number of targets of the healthy server.
pub const HEALTHY: usize = 10;
/// The default probe interval. Each hanging mount costs one worker per interval, and starting one is slow in the lab.
const INTERVAL: Duration = Duration::from_secs(10);
/// A configuration with hard mounts.
pub const CONFIG: &str = r#"
[mounts]
nfs_options = "nolock,hard,timeo=600,nfsvers=3,retrans=10"
"#;
/// Time limit until all targets are mounted, on one processor.
pub const MOUNTED: Duration = Duration::from_secs(60);
/// Time limit until all targets of the dead server are offline: two probes, each until its deadline.
pub const ALL_OFFLINE: Duration = Duration::from_secs(45);
/// Maximum time until TCP retransmits (`TCP_RTO_MAX` in `include/net/tcp.h`). A mount may hang for this long after its
/// server is back, and the agent cannot shorten it.
const RETRANSMITTED: Duration = Duration::from_secs(120);
/// Time limit from the first answer of a mount until all targets are available.
const ALL_BACK: Duration = INTERVAL.saturating_mul(3);
/// Shortest measurement of the processor use. The probes of the dead targets come in bursts, one per interval, and a
/// measurement contains one burst more or less.
const MEASURED_MIN: Duration = INTERVAL.saturating_mul(6);
/// Maximum processor time while a server is dead, divided by that before. A probe of a dead server opens a connection
/// and starts no worker, so it costs no more than one of a server that answers: the ratio was 0.75 and 1.03. If it did
/// start one, the ratio would be about ten.
const DEAD_BY_HEALTHY_MAX: f64 = 2.0;
/// Maximum processor time of the agent and its children for each probe of a mount that hangs, divided by the time for
/// a bare start of a worker. Such a probe starts one worker, in which the call hangs, and kills it. How long a start
/// takes in user-mode-linux depends on the host at the moment, so the test measures both in the same minute. The ratio
/// was 1.9 and 2.5. `cargo bench --bench mounts` measures the cost on a real host.
const STARTS_PER_HANGING_PROBE_MAX: f64 = 4.0;

/// Creates this many targets of a server, each with its own export.
pub fn create_targets(address: &str, kind: &str, count: usize) -> Vec<Target> {
    let names: Vec<String> = (0..count).map(|number| format!("{kind}{number:02}")).collect();
    for name in &names {
        let directory = export_directory("one").join(name);
        fs::create_dir(&directory).expect("created");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("writable for the backup user");
    }
    names.iter().map(|name| Target::create(&format!("{address}:/srv/exports/one/{name}"))).collect()
}

/// Number of targets with this status.
pub fn count_status(status: &str) -> usize {
    let list = get("/backup_targets");
    list["backup_targets"].as_array().map_or(0, |list| list.iter().filter(|target| target["status"] == status).count())
}

/// Ten targets of a healthy server, and fifty of one that is going to break.
struct TwoServers {
    _machine: Machine,
    healthy: Vec<Target>,
    /// Whether mounts hang when the server breaks.
    mounts_hang: bool,
}

impl TwoServers {
    /// Creates the targets, and waits until all are available.
    fn start(mounts_hang: bool) -> Self {
        let machine = Machine::start(CONFIG);
        let healthy = create_targets("10.0.0.1", "healthy", HEALTHY);
        create_targets("10.0.0.3", "dead", DEAD);
        eventually("all are available", MOUNTED, || (count_status("available") == HEALTHY + DEAD).then_some(()));
        Self { _machine: machine, healthy, mounts_hang }
    }

    /// Breaks the server of the fifty. Asserts that the others are not delayed, and that the agent needs few resources.
    fn break_one(&self, break_server: impl FnOnce(&str)) {
        let observer = Observer::start();
        break_server("10.0.0.3");
        eventually("the targets of the dead server are offline", ALL_OFFLINE, || {
            (count_status("offline") == DEAD).then_some(())
        });
        let lasts = lasts_at_least(INTERVAL * 2);
        let probes = usize::try_from(lasts.as_secs() / INTERVAL.as_secs()).expect("few");
        self.healthy[0].wait_for_probes(probes, lasts * 2);
        self.assert_bounded(observer, if self.mounts_hang { DEAD } else { 0 });
    }

    /// Repairs the server. Asserts the same, and that the agent needs no more resources than `before`.
    fn repair(&self, before: Usage) {
        assert_eq!((count_status("available"), count_status("offline")), (HEALTHY, DEAD));
        let observer = Observer::start();
        end_black_holes();
        let dead_path = mount_path("/srv/exports/one/dead00");
        let statvfs = ["--signal=KILL", "1", "stat", "--file-system", dead_path.to_str().expect("text")];
        eventually("the mount answers", RETRANSMITTED, || run("timeout", &statvfs).status.success().then_some(()));
        eventually("all are available again", ALL_BACK, || (count_status("available") == HEALTHY + DEAD).then_some(()));
        self.assert_bounded(observer, DEAD);
        let is_released = || {
            let now = Usage::now();
            let is_as_before = now.threads <= before.threads && now.files <= before.files + 4 && now.zombies == 0;
            (is_as_before && now.children <= before.children.max(4)).then_some(())
        };
        eventually("resources released", INTERVAL * 4, is_released);
    }

    fn assert_bounded(&self, observer: Observer, children: usize) {
        let healthy: Vec<&Target> = self.healthy.iter().collect();
        observer.end().assert_bounded(&healthy, INTERVAL, children, self.mounts_hang);
    }
}

/// This time, or five minutes in the long tests.
fn lasts_at_least(short: Duration) -> Duration {
    if is_long() { Duration::from_secs(300) } else { short }
}

/// Processor time of the agent and its children for each second, in seconds, while no client polls.
fn processor_time_each_second(mut every_second: impl FnMut()) -> f64 {
    let (pid, began, before) = (main_pid(), Instant::now(), processor_time(main_pid()));
    while began.elapsed() < lasts_at_least(MEASURED_MIN) {
        every_second();
        sleep(Duration::from_secs(1));
    }
    (processor_time(pid) - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

#[test]
fn fifty_targets_on_a_dead_server_cost_little() {
    let servers = TwoServers::start(false);
    let healthy = processor_time_each_second(|| {});
    let before = Usage::now();
    servers.break_one(black_hole);
    let broken = processor_time_each_second(|| {});
    servers.repair(before);
    eprintln!("{:.2} % of a processor, {:.2} % before", broken * 100.0, healthy * 100.0);
    assert!(broken < healthy * DEAD_BY_HEALTHY_MAX, "{:.2} times the processor time before", broken / healthy);
}

#[test]
fn fifty_hanging_mounts_delay_nothing() {
    let servers = TwoServers::start(true);
    let before = Usage::now();
    servers.break_one(black_hole_data);
    let mut starts = Vec::new();
    let processor = processor_time_each_second(|| starts.push(bare_start()));
    servers.repair(before);
    let probe = processor * INTERVAL.as_secs_f64() / DEAD as f64;
    let start = starts.iter().sum::<f64>() / starts.len() as f64;
    eprintln!("{:.1} ms of a processor for each probe, {:.1} ms for a bare start", probe * 1e3, start * 1e3);
    assert!(probe < start * STARTS_PER_HANGING_PROBE_MAX, "{:.2} bare starts for each probe", probe / start);
}

/// Processor time of a worker that starts and ends at once, in seconds.
fn bare_start() -> f64 {
    let children = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
        Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds() as u64)
    };
    let before = children();
    let ended = Command::new("targetwatch").arg("probe-worker").stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(ended.expect("started").success());
    (children() - before).as_secs_f64()
}
