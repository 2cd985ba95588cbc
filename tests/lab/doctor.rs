//! `targetwatch doctor` beside the agent's unit, and with paths on storage that does not answer.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::Target;
use crate::machine::{
    CONFIG, EXPORT, HARD, Machine, PATH, SERVICE, black_hole, change_unit, main_pid, mount_path, run, systemctl,
};

/// Longest time of the command: three checks one after another, and the others at the same time, 10 s each.
const LIMIT: Duration = Duration::from_secs(45);

fn doctor(config: &Path) -> Value {
    let began = Instant::now();
    let output = run("targetwatch", &["doctor", "--json", "--config", config.to_str().expect("text")]);
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{:?} {text}", output.status);
    serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))["checks"].take()
}

#[track_caller]
fn assert_outcome(checks: &Value, name: &str, outcome: &str, words: &[&str]) {
    let check = checks.as_array().expect("a list").iter().find(|check| check["name"] == name).expect("the check");
    let text = check.to_string();
    assert!(check["outcome"] == outcome && words.iter().all(|word| text.contains(word)), "{words:?}: {check:#}");
}

#[test]
fn doctor_finds_no_problem_of_the_unit_as_shipped() {
    let _machine = Machine::start("");
    Target::create_available(EXPORT);
    let agent = format!("process {}", main_pid());
    let checks = doctor(Path::new(CONFIG));
    assert_outcome(&checks, "configuration", "passed", &[]);
    assert_outcome(&checks, "registry", "passed", &["1 target", &agent]);
    assert_outcome(&checks, "mount_helper", "passed", &["nfs-utils"]);
    assert_outcome(&checks, "mount_root", "passed", &[]);
    assert_outcome(&checks, "propagation", "passed", &[&agent]);
    assert_outcome(&checks, "capabilities", "passed", &[&agent]);
}

#[test]
fn doctor_finds_settings_of_the_unit_that_prevent_mounting() {
    let _machine = Machine::stopped("");
    change_unit("[Service]\nPrivateMounts=yes\nCapabilityBoundingSet=~CAP_SETUID\n");
    systemctl("start", SERVICE);
    let checks = doctor(Path::new(CONFIG));
    assert_outcome(&checks, "propagation", "failed", &["mount namespace of its own", "PrivateMounts="]);
    assert_outcome(&checks, "capabilities", "failed", &["CAP_SETUID is missing"]);
}

#[test]
fn doctor_ends_when_its_paths_are_on_a_dead_server() {
    let _machine = Machine::start(HARD);
    Target::create_available(EXPORT);
    let mount = mount_path(PATH);
    let mount = mount.display();
    let config = Path::new("/tmp/doctor.toml");
    let text = format!(
        "[registry]\nurl = \"sqlite://{mount}/registry.db\"\n[mounts]\nroot = \"{mount}/mounts\"\n[metrics]\ntoken_file = \"{mount}/token\"\n[[notify.webhook]]\nurl = \"https://10.0.0.1/\"\nsecret_file = \"{mount}/secret\"\n"
    );
    fs::write(config, text).expect("written");
    black_hole("10.0.0.1");
    let checks = doctor(config);
    assert_outcome(&checks, "configuration", "passed", &[]);
    assert_outcome(&checks, "files", "failed", &["/token was not read within 5 s", "/secret was not read within 5 s"]);
    assert_outcome(&checks, "registry", "unknown", &["no result within 10 s"]);
    assert_outcome(&checks, "mount_root", "failed", &[]);
    assert_outcome(&checks, "capabilities", "passed", &[]);
}
