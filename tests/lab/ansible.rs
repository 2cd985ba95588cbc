//! The Ansible role: installation as a package and as a container, the rules of Prometheus, and a second run, whose
//! configuration has an error.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::containers::Podman;
use crate::machine::{
    CONFIG, EXPORT, FIRST_VERDICT, Machine, PATH, PREPARED, eventually, is_long, main_pid, mount_of, mount_path,
    output, run, systemctl, unit_property,
};
use crate::packages::{PACKAGE, uninstall};

/// The playbook of `packaging/ansible`, which `tests/lab/boot` copies.
const PLAYBOOK: &str = "/lab/ansible/playbook.yml";
/// The variables of the inventory.
const VARIABLES: &str = "/root/variables.json";
const TOKEN: &str = "0123456789abcdef";

/// Runs the playbook with this machine in both groups of its inventory. Python starts slowly in the lab.
fn play(groups: &str, variables: Value) -> Output {
    let host = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3";
    fs::write("/root/inventory", format!("[backup_hosts]\n{host}\n[prometheus]\n{host}\n")).expect("written");
    fs::write(VARIABLES, variables.to_string()).expect("written");
    let variables = format!("@{VARIABLES}");
    run(
        "ansible-playbook",
        &["--inventory", "/root/inventory", "--limit", groups, "--extra-vars", &variables, PLAYBOOK],
    )
}

fn play_package(export: &str) -> Output {
    let variables = json!({
        "targetwatch_package": PACKAGE,
        "targetwatch_export": export,
        "targetwatch_token": TOKEN,
        "ansible_pipelining": true,
    });
    play("all", variables)
}

#[test]
fn ansible_role_installs_and_configures_the_agent() {
    let _machine = Machine::stopped("");
    if !uninstall() {
        return;
    }

    let first = play_package(EXPORT);
    let text = String::from_utf8_lossy(&first.stdout);
    assert!(first.status.success() && !text.contains(TOKEN), "{text}");
    assert_eq!((unit_property("ActiveState"), unit_property("UnitFileState")), ("active".into(), "enabled".into()));
    let token_file = "/etc/targetwatch/api.token";
    eventually("the target is available", FIRST_VERDICT, || {
        let arguments = ["--token-file", token_file, "--api", "http://127.0.0.1:8781", "status"];
        run("targetwatch", &arguments).status.success().then_some(())
    });
    assert!(mount_path(PATH).exists());
    let mode = output("stat", &["--format=%a %U", token_file]);
    assert_eq!(mode.trim(), "600 root");

    assert!(Path::new("/etc/prometheus/rules/targetwatch.rules.yml").exists());

    let pid = main_pid();
    let second = play_package("no export");
    let text = String::from_utf8_lossy(&second.stdout);
    assert!(!second.status.success() && text.contains("no export"), "{text}");
    assert!(text.contains("changed=0"), "the tasks before the configuration change nothing: {text}");
    assert!(fs::read_to_string(CONFIG).expect("read").contains(EXPORT), "the former configuration stays");
    assert_eq!(main_pid(), pid, "the agent keeps running");
    systemctl("stop", "prometheus");
}

#[test]
fn ansible_role_runs_the_agent_in_a_container() {
    if !is_long() {
        eprintln!("left out: it takes over a minute (--long)");
        return;
    }
    let _machine = Machine::stopped("");
    let Some(_podman) = Podman::prepare() else {
        return;
    };
    let variables = json!({
        "targetwatch_install": "container",
        "targetwatch_export": EXPORT,
        "targetwatch_token": TOKEN,
        "ansible_pipelining": true,
    });
    let output = play("backup_hosts", variables);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains(TOKEN), "{text}");
    assert_eq!((unit_property("ActiveState"), unit_property("UnitFileState")), ("active".into(), "enabled".into()));
    assert!(unit_property("ExecStart").contains("podman"), "{}", unit_property("ExecStart"));
    eventually("the target is mounted on the host", PREPARED, || mount_of(PATH));
}
