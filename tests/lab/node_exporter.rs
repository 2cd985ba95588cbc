//! A comparison with Prometheus node_exporter: how long a client waits while mounts hang.
//!
//! ```text
//! apt-get install --no-install-recommends prometheus-node-exporter
//! cargo build --profile dist && cargo test --no-run --test lab
//! tests/lab/boot --binary target/dist/targetwatch --tests target/debug/deps/lab-… --filter node_exporter -- --ignored
//! ```

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::api::request;
use crate::machine::{Machine, UP_OR_DOWN, black_hole_data, end_black_holes, eventually};
use crate::many_targets::{ALL_OFFLINE, CONFIG, DEAD, HEALTHY, MOUNTED, count_status, create_targets};

const EXPORTER: &str = "127.0.0.1:9100";
/// Time limit of a scrape: Prometheus's default (`scrape_timeout`).
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of scrapes.
const SCRAPES: usize = 12;
/// Number of polls before each scrape.
const POLLS: usize = 50;
const POLL_EVERY: Duration = Duration::from_millis(50);

struct Exporter(Child);

impl Exporter {
    fn start() -> Self {
        let mut exporter = Command::new("/usr/bin/prometheus-node-exporter");
        exporter.args(["--collector.disable-defaults", "--collector.filesystem", "--log.level=error"]);
        exporter.arg(format!("--web.listen-address={EXPORTER}")).stdin(Stdio::null()).stderr(Stdio::null());
        let exporter = Self(exporter.spawn().expect("prometheus-node-exporter is installed"));
        eventually("the exporter listens", UP_OR_DOWN * 5, || TcpStream::connect(EXPORTER).ok().map(drop));
        exporter
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Scrapes the exporter. Returns how long it took, and whether there was an answer.
fn scrape() -> (Duration, bool) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(EXPORTER).expect("connected");
    stream.set_read_timeout(Some(SCRAPE_TIMEOUT)).expect("set");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    let is_answered = stream.read_to_string(&mut text).is_ok() && text.contains("node_filesystem_size_bytes");
    (began.elapsed(), is_answered)
}

fn summary(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    format!("median {:.1} ms, p99 {:.1} ms", at(50), at(99))
}

/// Polls and scrapes in turn. Returns the 99th percentile of the polls, and the number of answered scrapes.
fn poll_and_scrape(when: &str) -> (Duration, usize) {
    let (mut polls, mut scrapes, mut answered) = (Vec::new(), Vec::new(), 0);
    for _ in 0..SCRAPES {
        for _ in 0..POLLS {
            let answer = request("GET", "/backup_targets", None);
            assert_eq!(answer.code, 200, "{answer:?}");
            polls.push(answer.took);
            sleep(POLL_EVERY);
        }
        let (took, is_answered) = scrape();
        scrapes.push(took);
        answered += usize::from(is_answered);
    }
    let (ours, theirs) = (summary(&mut polls), summary(&mut scrapes));
    eprintln!("{when}: polls of the agent {ours}; scrapes of node_exporter {theirs}, {answered} of {SCRAPES} answered");
    (polls[polls.len() * 99 / 100], answered)
}

#[test]
#[ignore = "a comparison that needs prometheus-node-exporter and a few minutes"]
fn hanging_mounts_delay_node_exporter_but_not_polls() {
    let _machine = Machine::start(CONFIG);
    let _healthy = create_targets("10.0.0.1", "healthy", HEALTHY);
    let _dead = create_targets("10.0.0.3", "dead", DEAD);
    eventually("all are available", MOUNTED, || (count_status("available") == HEALTHY + DEAD).then_some(()));
    let _exporter = Exporter::start();
    let (_, answered) = poll_and_scrape("all targets are available");
    assert_eq!(answered, SCRAPES, "the exporter does not work");
    black_hole_data("10.0.0.3");
    eventually("the targets of the dead server are offline", ALL_OFFLINE, || {
        (count_status("offline") == DEAD).then_some(())
    });
    let (ours, _) = poll_and_scrape(&format!("{DEAD} mounts hang"));
    assert_eq!((count_status("available"), count_status("offline")), (HEALTHY, DEAD));
    assert!(ours < SCRAPE_TIMEOUT / 10, "{ours:?}");
    end_black_holes();
}
