//! A server that is up and down all the time.

use std::fs;
use std::time::{Duration, Instant};

use crate::api::Target;
use crate::machine::{Machine, black_hole, end_black_holes, eventually, is_of_a_stop};

/// A deadline that a silence of a second outlasts, and more timeouts for a status than fit into it.
const CONFIG: &str = r#"
[probe]
nfs_interval = "1s"
deadline = "500ms"
failures_before_offline = 6
"#;
const EXPORT: &str = "10.0.0.1:/srv/exports/one";
const ROUNDS: usize = 5;
const HALF: Duration = Duration::from_secs(1);
/// The kernel's client may take its time to connect again.
const BACK: Duration = Duration::from_secs(30);

fn flap(down: impl Fn(), up: impl Fn()) {
    for _ in 0..ROUNDS {
        for half in [&down as &dyn Fn(), &up] {
            let began = Instant::now();
            half();
            eventually("half a round", HALF * 2, || (began.elapsed() >= HALF).then_some(()));
        }
    }
}

#[test]
fn flapping_shorter_than_hysteresis_is_not_an_outage() {
    let _machine = Machine::start(CONFIG);
    let target = Target::create_available(EXPORT);
    let before = target.history();
    // Two probes fit into a second of silence, and the kernel's client takes another to notice its end.
    flap(|| black_hole("10.0.0.1"), end_black_holes);
    target.wait_until_available(BACK);
    assert_eq!(target.history(), before);
}

#[test]
fn flapping_refusals_are_each_in_the_history() {
    // So many in a row there never are: what is told counted at once.
    let _machine = Machine::start(&CONFIG.replace("offline = 6", "offline = 1000"));
    let target = Target::create_available(EXPORT);
    let before = target.history().len();
    flap(
        || fs::write("/proc/fs/nfsd/threads", "0").expect("stopped"),
        || {
            crate::machine::succeed("systemctl", &["restart", "lab-nfs-server.service"]);
        },
    );
    target.wait_until_available(BACK);
    let history = target.history();
    let new = &history[..history.len() - before];
    // A definite error counts at once, so each round is out and back at most once, and some are.
    assert!((2..=ROUNDS * 2).contains(&new.len()), "{history:?}");
    for pair in new.chunks(2) {
        let [(back, _), (out, reason)] = pair else { panic!("out and back: {history:?}") };
        assert_eq!((back.as_str(), out.as_str()), ("available", "offline"), "{history:?}");
        assert!(is_of_a_stop(reason.as_deref()), "{history:?}");
    }
}
