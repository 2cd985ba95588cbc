//! A server that goes up and down every second.

use std::fs;
use std::time::{Duration, Instant};

use crate::api::Target;
use crate::machine::{
    EXPORT, Machine, NFS_SERVER, black_hole, end_black_holes, eventually, is_expected_after_stop, systemctl,
};

/// A configuration with a deadline shorter than an outage of one second, and more failures before offline than fit into
/// it.
const CONFIG: &str = r#"
[probe]
nfs_interval = "1s"
deadline = "500ms"
failures_before_offline = 6
"#;
/// Number of outages.
const ROUNDS: usize = 5;
/// Length of an outage, and of the time between two.
const HALF_ROUND: Duration = Duration::from_secs(1);
/// Time limit of recovery. The kernel's client reconnects after a delay.
const BACK: Duration = Duration::from_secs(30);

/// Takes the server down and up, for [`HALF_ROUND`] each.
fn flap(down: impl Fn(), up: impl Fn()) {
    for _ in 0..ROUNDS {
        for half in [&down as &dyn Fn(), &up] {
            let began = Instant::now();
            half();
            eventually("half a round", HALF_ROUND * 2, || (began.elapsed() >= HALF_ROUND).then_some(()));
        }
    }
}

#[test]
fn flapping_shorter_than_hysteresis_is_not_an_outage() {
    let _machine = Machine::start(CONFIG);
    let target = Target::create_available(EXPORT);
    let before = target.history();
    // An outage lasts for two probes, and the kernel's client needs one more to reconnect.
    flap(|| black_hole("10.0.0.1"), end_black_holes);
    target.wait_until_available(BACK);
    assert_eq!(target.history(), before);
}

#[test]
fn flapping_refusals_are_each_in_the_history() {
    // The test has fewer failures in a row than this. A refusal counts at once.
    let _machine = Machine::start(&CONFIG.replace("offline = 6", "offline = 1000"));
    let target = Target::create_available(EXPORT);
    let before = target.history().len();
    flap(
        || fs::write("/proc/fs/nfsd/threads", "0").expect("stopped"),
        || {
            systemctl("restart", NFS_SERVER);
        },
    );
    target.wait_until_available(BACK);
    let history = target.history();
    let new = &history[..history.len() - before];
    // A definite error counts at once, so a round has at most two transitions.
    assert!((2..=ROUNDS * 2).contains(&new.len()), "{history:?}");
    for pair in new.chunks(2) {
        let [(back, _), (out, reason)] = pair else { panic!("unpaired transitions: {history:?}") };
        assert_eq!((back.as_str(), out.as_str()), ("available", "offline"), "{history:?}");
        assert!(is_expected_after_stop(reason.as_deref()), "{history:?}");
    }
}
