//! The walls of the house: which module may use which, and where a path may be touched.
//!
//! The compiler would let any module use any other. `src/lib.rs` has the map that is held here.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "reads the sources")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module with those that it may use, besides itself. Everything may use `model`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("nfs", &["model"]),
    ("s3", &["model"]),
    ("sys", &["model"]),
    ("registry", &["model"]),
    ("config", &["model"]),
    ("check", &["nfs", "s3", "sys", "model"]),
    ("driver", &["check", "nfs", "s3", "sys", "model"]),
    ("agent", &["driver", "registry", "model"]),
    // Node facts are of this process, not of a target; registry errors have statuses of their own.
    ("api", &["agent", "registry", "sys", "model"]),
    ("cli", &["api", "agent", "config", "driver", "registry", "sys", "model"]),
];

/// Files outside of `sys` that may touch paths, each local and none below the mount root.
const MAY_TOUCH_PATHS: &[&str] = &[
    // The file of the Unix socket.
    "api/listen.rs",
    // The database file.
    "registry/sqlite/file.rs",
    "registry/sqlite/tests.rs",
];

/// Crates that are named in one place only, so that they can be replaced there.
const ONE_PLACE: &[(&str, &str)] = &[
    ("aws_sdk_s3", "s3/aws.rs"),
    ("rusqlite", "registry/sqlite"),
    ("sd_notify", "sys/systemd.rs"),
    ("toml::", "config"),
];

struct Source {
    /// Below `src`.
    path: PathBuf,
    text: String,
}

impl Source {
    fn module(&self) -> String {
        let first = self.path.components().next().expect("a component");
        Path::new(&first).file_stem().expect("a name").to_string_lossy().into_owned()
    }

    fn is_below(&self, place: &str) -> bool {
        self.path.starts_with(place) || self.path == Path::new(&format!("{place}.rs"))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let text = fs::read_to_string(&path).expect("read");
                let path = path.strip_prefix(&root).expect("below").to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    assert!(sources.len() > 50, "the sources were found");
    sources
}

/// The lines that are code, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The modules of the crate that a line names.
fn used(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|found: char| !found.is_alphanumeric() && found != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let (_, allowed) = MAY_USE.iter().find(|(name, _)| *name == module).expect("a module of the map");
        for (line, text) in code(&source.text) {
            let at = format!("src/{}:{line}: {}", source.path.display(), text.trim());
            // `use crate::{…}` would hide what is used.
            wrong.extend(text.contains("crate::{").then(|| at.clone()));
            // A path that leaves its module by `super` would, too.
            let depth = source.path.components().count();
            wrong.extend((text.matches("super::").count() > depth).then(|| at.clone()));
            wrong.extend(used(text).filter(|name| *name != module && !allowed.contains(name)).map(|_| at.clone()));
        }
    }
    assert!(wrong.is_empty(), "dependencies point downward only:\n{}", wrong.join("\n"));
}

#[test]
fn paths_are_touched_in_sys_and_where_they_are_known_to_be_local() {
    for source in sources().iter().filter(|source| source.module() != "sys") {
        let allows = source.text.contains("clippy::disallowed_methods");
        let may = MAY_TOUCH_PATHS.iter().any(|file| source.path == Path::new(file));
        assert_eq!(allows, may, "src/{}: see MAY_TOUCH_PATHS", source.path.display());
    }
}

#[test]
fn a_crate_that_may_be_replaced_is_named_in_one_place() {
    for source in sources() {
        for (name, place) in ONE_PLACE.iter().filter(|(_, place)| !source.is_below(place)) {
            let named = code(&source.text).find(|(_, line)| line.contains(name));
            assert_eq!(named, None, "src/{} names {name}, which belongs into src/{place}", source.path.display());
        }
    }
}
