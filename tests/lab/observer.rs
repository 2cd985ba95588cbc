//! An observer that runs during a scenario. It polls the API and samples the agent's process. Its
//! observations define what "bounded" means ([`Observations::assert_bounded`]).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::getppid;
use serde_json::Value;

use crate::api::{Client, Target};
use crate::machine::main_pid;
use crate::process::Usage;

/// Time between two ticks of a thread that only sleeps.
const TICK: Duration = Duration::from_millis(2);

/// Delay of a tick that counts as a stall of the lab: its processor does something that cannot be interrupted, such as
/// the start of a program, or the host has other work.
const STALL_MIN: Duration = Duration::from_millis(2);

/// How often the API is polled.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Number of polls between two samples of the reports and the process.
const LOOK_EVERY: u32 = 10;

/// Median time of an [`Echo`] on the machine for which the bounds of answer times are meant, which has no other load.
/// On a slower one, they are longer in proportion.
const ECHO_TIME: Duration = Duration::from_micros(400);

/// Maximum of the median answer time, whatever storage does.
const MEDIAN_MAX: Duration = Duration::from_millis(10);

/// Maximum of the 99th percentile of answer times, in excess of that of an [`Echo`].
const P99_MAX: Duration = Duration::from_millis(10);

/// The same while many mounts hang. Workers are then killed and restarted all the time, and each start occupies the
/// lab's only processor. On an otherwise idle host it is below 10 ms too.
const P99_MANY_MAX: Duration = Duration::from_millis(50);

/// Number of targets with a hanging child from which [`P99_MANY_MAX`] applies.
const MANY: usize = 10;

/// Number of slow answers that are always allowed, because the host of the lab has other work.
const SLOW_MAX: usize = 3;

/// Maximum time of a slow answer. An answer that waited for storage would take seconds.
const SLOW_ANSWER_MAX: Duration = Duration::from_millis(50);

/// The same while workers are killed and restarted.
const SLOW_ANSWER_STARTING_MAX: Duration = Duration::from_millis(400);

/// Maximum number of additional threads of the main process. They resolve names.
const THREADS_MORE: usize = 2;

/// Maximum number of additional open files of the main process, apart from those for children. They are connections
/// to storage servers and of clients.
const FILES_MORE: usize = 8;

/// Number of files that the main process has open for each child: the ends of two pipes and a handle.
const FILES_PER_CHILD: usize = 5;

/// A client that polls the API in its own thread.
pub struct Observer {
    ends: Arc<AtomicBool>,
    polling: JoinHandle<Observations>,
}

/// The observations of one scenario.
#[derive(Debug)]
pub struct Observations {
    /// Time of each answer, without the stalls of the lab, in ascending order.
    answers: Vec<Duration>,
    /// The same for an [`Echo`], as a measure of the machine.
    echoes: Vec<Duration>,
    /// Total time of the stalls, and that of the observation.
    stalled: Duration,
    lasted: Duration,
    before: Usage,
    highest: Usage,
    /// The longest time between two reports of each target, by target id.
    gaps: BTreeMap<String, Duration>,
}

impl Observer {
    /// Starts to poll the running agent.
    pub fn start() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let polling = thread::spawn({
            let ends = ends.clone();
            move || poll(&ends)
        });
        Self { ends, polling }
    }

    /// Stops, and returns the observations.
    pub fn end(self) -> Observations {
        self.ends.store(true, Ordering::Relaxed);
        let seen = self.polling.join().expect("the agent answered the observer all the time");
        eprintln!(
            "{} answers, median {:.1} ms, p95 {:.1} ms, p99 {:.1} ms longest {:.1} ms, without {:.0} ms of stalls; an echo: median {:.1} ms, p99 {:.1} ms; before {:?}, highest {:?}",
            seen.answers.len(),
            percentile(&seen.answers, 50).as_secs_f64() * 1e3,
            percentile(&seen.answers, 95).as_secs_f64() * 1e3,
            percentile(&seen.answers, 99).as_secs_f64() * 1e3,
            percentile(&seen.answers, 100).as_secs_f64() * 1e3,
            seen.stalled.as_secs_f64() * 1e3,
            percentile(&seen.echoes, 50).as_secs_f64() * 1e3,
            percentile(&seen.echoes, 99).as_secs_f64() * 1e3,
            seen.before,
            seen.highest,
        );
        seen
    }
}

impl Observations {
    /// Asserts that nothing was delayed and nothing grew. The API answered. The reports of `others`, which
    /// do not depend on the broken storage, were at most one interval late. Threads and open files of the main
    /// process stayed constant. Each of `targets_broken` may have one child, which may hang.
    pub fn assert_bounded(&self, others: &[&Target], interval: Duration, targets_broken: usize, children_hang: bool) {
        assert!(
            self.stalled < self.lasted / 2,
            "stalled for {:?} of {:?}: this lab shows nothing",
            self.stalled,
            self.lasted
        );
        let has_many = children_hang && targets_broken >= MANY;
        let p99_max = if has_many { P99_MANY_MAX } else { P99_MAX };
        let slow_answer_max = if children_hang { SLOW_ANSWER_STARTING_MAX } else { SLOW_ANSWER_MAX };
        for (limit, percent, slow_max) in [(MEDIAN_MAX, 50, 0), (p99_max, 99, SLOW_MAX), (slow_answer_max, 99, 0)] {
            let limit = limit.mul_f64(self.slowness()) + percentile(&self.echoes, percent);
            let slow = self.answers.iter().rev().take_while(|answer| **answer >= limit).count();
            let count = self.answers.len();
            assert!(
                slow <= slow_max.max(count - 1 - position(count, percent)),
                "the API was slow: p{percent} of {count}, {limit:?} and more: {:?}",
                &self.answers[count - slow..]
            );
        }
        for other in others {
            self.assert_checked_within(other, interval * 2);
        }
        let (before, highest) = (self.before, self.highest);
        assert!(highest.threads <= before.threads + THREADS_MORE, "{before:?} {highest:?}");
        let children_max = before.children + targets_broken + others.len();
        assert!(highest.children <= children_max, "{before:?} {highest:?}");
        let files_max = before.files + FILES_MORE + FILES_PER_CHILD * (targets_broken + others.len());
        assert!(highest.files <= files_max, "{before:?} {highest:?}");
    }

    /// How much longer an [`Echo`] takes than on the machine for which the bounds are meant, at least 1. The median
    /// contains the load of the host, and not that of the agent, which interrupts few of the echoes.
    fn slowness(&self) -> f64 {
        (percentile(&self.echoes, 50).as_secs_f64() / ECHO_TIME.as_secs_f64()).max(1.0)
    }

    /// Asserts that reports of this target were never further apart than `limit`, plus a tenth of it for the
    /// jitter of intervals, plus the time between two samples.
    pub fn assert_checked_within(&self, target: &Target, limit: Duration) {
        let gap = self.gaps[&target.id];
        let limit = limit + limit / 10 + POLL_EVERY * LOOK_EVERY;
        assert!(gap < limit, "{} was not checked for {gap:?}", target.export);
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[position(sorted.len(), percent)]
}

fn position(count: usize, percent: usize) -> usize {
    (count * percent / 100).min(count - 1)
}

fn poll(ends: &Arc<AtomicBool>) -> Observations {
    let pid = main_pid();
    let mut client = Client::connect().expect("connected");
    let mut get = |path| {
        let (code, body) = client.send("GET", path, None).expect("an answer");
        assert_eq!(code, 200, "{path}");
        body
    };
    let mut echo = Echo::start();
    let usage = Usage::of(pid);
    let (mut answers, mut echoes) = (Vec::new(), Vec::new());
    let mut seen = Observations {
        answers: Vec::new(),
        echoes: Vec::new(),
        stalled: Duration::ZERO,
        lasted: Duration::ZERO,
        before: usage,
        highest: usage,
        gaps: BTreeMap::new(),
    };
    let started = Instant::now();
    let stalls = thread::spawn({
        let ends = ends.clone();
        move || stalls(&ends)
    });
    let mut latest: BTreeMap<String, (Value, Instant)> = BTreeMap::new();
    for number in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        get("/backup_targets");
        answers.push(began..Instant::now());
        echoes.push(echo.time());
        if number % LOOK_EVERY == 0 {
            let usage = Usage::of(pid);
            seen.highest.threads = seen.highest.threads.max(usage.threads);
            seen.highest.files = seen.highest.files.max(usage.files);
            seen.highest.children = seen.highest.children.max(usage.children);
            let detail: Value = serde_json::from_slice(&get("/backup_targets/detail")).expect("JSON");
            for target in detail["backup_targets"].as_array().into_iter().flatten() {
                let id = target["id"].as_str().unwrap_or_default().to_owned();
                let report = latest.entry(id.clone()).or_insert((Value::Null, Instant::now()));
                let gap = seen.gaps.entry(id).or_default();
                *gap = (*gap).max(report.1.elapsed());
                if report.0 != target["report"]["checked_at"] {
                    *report = (target["report"]["checked_at"].clone(), Instant::now());
                }
            }
        }
        thread::sleep(POLL_EVERY.saturating_sub(began.elapsed()));
    }
    let stalls = stalls.join().expect("the ticks");
    seen.lasted = started.elapsed();
    seen.stalled = stalls.iter().map(|stall| stall.end - stall.start).sum();
    seen.answers = answers.iter().map(|answer| without(&stalls, answer)).collect();
    seen.echoes = echoes.iter().map(|echo| without(&stalls, echo)).collect();
    seen.answers.sort_unstable();
    seen.echoes.sort_unstable();
    seen
}

/// Returns when the lab was stalled, until the end of the observation.
fn stalls(ends: &AtomicBool) -> Vec<Range<Instant>> {
    let (mut stalls, mut due) = (Vec::new(), Instant::now() + TICK);
    while !ends.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        if now > due + STALL_MIN {
            stalls.push(due..now);
        }
        due = now + TICK;
    }
    stalls
}

/// Returns the length of a time, without the stalls in it.
fn without(stalls: &[Range<Instant>], time: &Range<Instant>) -> Duration {
    let overlap =
        |stall: &Range<Instant>| stall.end.min(time.end).saturating_duration_since(stall.start.max(time.start));
    (time.end - time.start).saturating_sub(stalls.iter().map(overlap).sum())
}

/// What the machine needs for a request and its answer without the agent: a byte to a thread and back, and some work.
struct Echo(UnixStream);

impl Echo {
    /// Number of system calls of the work. In user-mode-linux each is two switches between processes of the host, and
    /// most of the time of an answer of the API is such switches.
    const SYSTEM_CALLS: usize = 50;

    /// Starts a thread that returns every byte until the other end is closed.
    fn start() -> Self {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        thread::spawn(move || {
            let mut byte = [0];
            while theirs.read_exact(&mut byte).and_then(|()| theirs.write_all(&byte)).is_ok() {}
        });
        Self(ours)
    }

    /// Time of an echo.
    fn time(&mut self) -> Range<Instant> {
        let began = Instant::now();
        self.0.write_all(&[0]).and_then(|()| self.0.read_exact(&mut [0])).expect("an echo");
        for _ in 0..Self::SYSTEM_CALLS {
            let _ = getppid();
        }
        began..Instant::now()
    }
}
