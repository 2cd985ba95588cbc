//! The Ansible role: installation, the rules of Prometheus, and a second run, whose configuration has an error.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::machine::{
    CONFIG, EXPORT, FIRST_VERDICT, Machine, PATH, eventually, main_pid, mount_path, output, run, systemctl,
    unit_property,
};
use crate::packages::{PACKAGE, uninstall};

/// The playbook of `packaging/ansible`, which `tests/lab/boot` copies.
const PLAYBOOK: &str = "/lab/ansible/playbook.yml";
/// The variables of the inventory.
const VARIABLES: &str = "/root/variables.json";
const TOKEN: &str = "0123456789abcdef";

/// Runs the playbook with this machine in both groups of its inventory. Python starts slowly in the lab.
fn play(export: &str) -> Output {
    let host = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3";
    fs::write("/root/inventory", format!("[backup_hosts]\n{host}\n[prometheus]\n{host}\n")).expect("written");
    let variables = json!({
        "targetwatch_package": PACKAGE,
        "targetwatch_export": export,
        "targetwatch_token": TOKEN,
        "ansible_pipelining": true,
    });
    fs::write(VARIABLES, variables.to_string()).expect("written");
    run("ansible-playbook", &["--inventory", "/root/inventory", "--extra-vars", &format!("@{VARIABLES}"), PLAYBOOK])
}

#[test]
fn ansible_role_installs_and_configures_the_agent() {
    let _machine = Machine::stopped("");
    if !uninstall() {
        return;
    }

    let first = play(EXPORT);
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
    let second = play("no export");
    let text = String::from_utf8_lossy(&second.stdout);
    assert!(!second.status.success() && text.contains("no export"), "{text}");
    assert!(text.contains("changed=0"), "the tasks before the configuration change nothing: {text}");
    assert!(fs::read_to_string(CONFIG).expect("read").contains(EXPORT), "the former configuration stays");
    assert_eq!(main_pid(), pid, "the agent keeps running");
    systemctl("stop", "prometheus");
}
