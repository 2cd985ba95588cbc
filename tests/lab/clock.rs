//! Steps of the clock: probes continue at their interval, and timestamps follow the clock.

use std::time::{Duration, SystemTime};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::api::Target;
use crate::machine::{EVERY_SECOND, EXPORT, Machine, main_pid};

const HOUR: i64 = 3600;
/// Time limit of three intervals, with a tenth of jitter each, and a probe.
const PROBED: Duration = Duration::from_secs(5);
/// Maximum age of a timestamp of the latest probe, in seconds.
const AGE_MAX: i64 = 3;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("a time")
}

/// A step of the clock, in seconds. Dropping it sets the clock back.
struct Step(i64);

impl Step {
    fn by(seconds: i64) -> Self {
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(now() + seconds, 0)).expect("set");
        Self(seconds)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let _ = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(now() - self.0, 0));
    }
}

fn seconds(report: &crate::api::Report, key: &str) -> i64 {
    let text = report.get(key).as_str().expect("a time");
    format!("{text}Z").parse::<jiff::Timestamp>().expect("a time").as_second()
}

#[test]
fn clock_step_neither_stops_probes_nor_invents_times() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    target.wait_for_probes(2, PROBED);
    let (pid, history) = (main_pid(), target.history());
    let since = seconds(&target.report(), "since");
    for step in [HOUR, -2 * HOUR] {
        let stepped = Step::by(step);
        target.wait_for_probes(3, PROBED);
        let report = target.report();
        for key in ["checked_at", "last_available_at"] {
            let age = now() - seconds(&report, key);
            assert!((0..=AGE_MAX).contains(&age), "{key} is {age} s old after a step of {step} s: {report:?}");
        }
        assert_eq!(seconds(&report, "since"), since, "the status did not change");
        assert_eq!(target.history(), history);
        drop(stepped);
        target.wait_for_probes(2, PROBED);
    }
    assert_eq!((main_pid(), target.history()), (pid, history), "the agent was restarted, or a status changed");
}
