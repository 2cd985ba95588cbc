//! A clock that is set an hour forward, and back: probes go on as before, and say the time that it is.

use std::time::{Duration, SystemTime};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::api::Target;
use crate::machine::{EVERY_SECOND, Machine, main_pid};

const HOUR: i64 = 3600;
/// Three intervals, with a tenth each, and the time to probe.
const PROBED: Duration = Duration::from_secs(5);
/// How far a time that was just noted may be from the clock.
const JUST_NOW: i64 = 3;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("a time")
}

/// Sets the clock, and sets it back when it is dropped.
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
    let target = Target::create_available("10.0.0.1:/srv/exports/one");
    target.wait_for_probes(2, PROBED);
    let (pid, history) = (main_pid(), target.history());
    let since = seconds(&target.report(), "since");
    for step in [HOUR, -2 * HOUR] {
        let stepped = Step::by(step);
        target.wait_for_probes(3, PROBED);
        let report = target.report();
        for key in ["checked_at", "last_available_at"] {
            let off = now() - seconds(&report, key);
            assert!((0..=JUST_NOW).contains(&off), "{key} is {off} s off after a step of {step} s: {report:?}");
        }
        assert_eq!(seconds(&report, "since"), since, "nothing became of it since");
        assert_eq!(target.history(), history);
        drop(stepped);
        target.wait_for_probes(2, PROBED);
    }
    assert_eq!((main_pid(), target.history()), (pid, history), "the watchdog is no friend of clocks either");
}
