//! The files of `packaging/container` agree with each other, with the unit and with Podman's documentation.
//!
//! `tests/lab/containers.rs` runs the image. Podman 4.3 of Debian 12, which it uses, has no quadlets.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::documents::{read, repository};

const QUADLET: &str = "packaging/container/targetwatch.container";
/// The unit for versions of Podman without quadlets.
const UNIT: &str = "packaging/container/targetwatch.service";

/// The keys of `[Container]` in podman-systemd.unit(5) of Podman 4.4. Podman refuses a file with an unknown key.
const KEYS: [&str; 27] = [
    "AddCapability",
    "AddDevice",
    "Annotation",
    "ContainerName",
    "DropCapability",
    "Environment",
    "EnvironmentFile",
    "EnvironmentHost",
    "Exec",
    "ExposeHostPort",
    "Group",
    "Image",
    "Label",
    "Network",
    "NoNewPrivileges",
    "Notify",
    "PodmanArgs",
    "PublishPort",
    "ReadOnly",
    "RunInit",
    "SeccompProfile",
    "SecurityLabelDisable",
    "SecurityLabelFileType",
    "SecurityLabelType",
    "User",
    "VolatileTmp",
    "Volume",
];

/// Podman's generator of units, which its package installs since version 4.4.
const GENERATOR: &str = "/usr/libexec/podman/quadlet";

/// The assignments of a section of a unit file, in their order. Continued lines are joined.
fn assignments(text: &str, section: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let mut current = "";
    let mut found = Vec::new();
    for line in joined.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            current = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once('=')
            && current == section
        {
            found.push((key.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

fn values(text: &str, section: &str, key: &str) -> Vec<String> {
    assignments(text, section).into_iter().filter(|(name, _)| name == key).map(|(_, value)| value).collect()
}

/// The settings of `[Service]` that both files have, without those that Podman generates.
fn service_settings(text: &str) -> BTreeSet<(String, String)> {
    const GENERATED: [&str; 9] = [
        "Delegate",
        "Environment",
        "ExecStart",
        "ExecStop",
        "ExecStopPost",
        "KillMode",
        "NotifyAccess",
        "SyslogIdentifier",
        "Type",
    ];
    assignments(text, "Service").into_iter().filter(|(key, _)| !GENERATED.contains(&key.as_str())).collect()
}

#[test]
fn quadlet_has_only_keys_of_podman_4_4() {
    let used: BTreeSet<String> = assignments(&read(QUADLET), "Container").into_iter().map(|(key, _)| key).collect();
    let unknown: Vec<&String> = used.iter().filter(|key| !KEYS.contains(&key.as_str())).collect();
    assert!(!used.is_empty() && unknown.is_empty(), "{unknown:?}");
}

#[test]
fn quadlet_grants_the_capabilities_of_the_unit() {
    let capabilities = |text: &str| -> BTreeSet<String> {
        text.split_whitespace().map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    };
    let granted = values(&read("systemd/targetwatch.service"), "Service", "CapabilityBoundingSet");
    assert_eq!(
        capabilities(&values(&read(QUADLET), "Container", "AddCapability").join(" ")),
        capabilities(&granted[0])
    );
    assert_eq!(values(&read(QUADLET), "Container", "DropCapability"), ["all"]);
}

#[test]
fn unit_for_old_podman_has_the_options_of_the_quadlet() {
    let (quadlet, unit) = (read(QUADLET), read(UNIT));
    assert_eq!(service_settings(&unit), service_settings(&quadlet));
    let run = &values(&unit, "Service", "ExecStart")[0];
    let container = |key| values(&quadlet, "Container", key);
    let mut expected = vec![format!(" --name {} ", container("ContainerName")[0])];
    expected.extend(container("Volume").iter().map(|volume| format!(" -v {volume} ")));
    expected.extend(container("Network").iter().map(|network| format!(" --network {network} ")));
    expected.extend(container("PodmanArgs").iter().map(|arguments| format!(" {arguments} ")));
    let capabilities = container("AddCapability").join(" ").to_lowercase();
    expected.extend(capabilities.split(' ').map(|name| format!(" --cap-add {name} ")));
    expected.push(" --cap-drop all ".to_owned());
    expected.push(" --read-only ".to_owned());
    expected.push(" --sdnotify=container ".to_owned());
    for option in &expected {
        assert!(run.contains(option.as_str()), "{option}: {run}");
    }
    assert!(run.ends_with(&format!(" {}", container("Image")[0])), "{run}");
    assert_eq!(run.matches(" --cap-add ").count(), capabilities.split(' ').count(), "{run}");
    assert_eq!(run.matches(" -v ").count(), container("Volume").len(), "{run}");
}

#[test]
fn unit_for_old_podman_is_what_podman_generates() {
    if !Path::new(GENERATOR).exists() {
        eprintln!("left out: {GENERATOR} is not installed");
        return;
    }
    let directory = repository().join("packaging/container");
    let output = Command::new(GENERATOR).arg("-dryrun").env("QUADLET_UNIT_DIRS", directory).output().expect("run");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && messages.lines().all(|line| line.contains("Loading source unit")), "{messages}");
    let generated = String::from_utf8_lossy(&output.stdout);
    let run = |text: &str| values(text, "Service", "ExecStart");
    assert_eq!(run(&read(UNIT)), run(&generated));
}

#[test]
fn image_version_is_the_version_of_the_package() {
    let image = format!("localhost/targetwatch:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(values(&read(QUADLET), "Container", "Image"), [image]);
}
