//! The sample file of packages has every key with its default.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[test]
fn sample_file_has_the_defaults() {
    let sample = include_str!("../../../systemd/config.toml");
    // "#" comments out a key with its default. "# " starts prose or an example.
    let uncommented: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with([' ', '#']) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let as_shipped = parse(sample, Path::new("sample")).expect("as it is shipped");
    let with_all_keys = parse(&uncommented, Path::new("sample")).expect("with every key");
    let defaults = parse("", Path::new("c.toml")).expect("defaults");
    assert_eq!(as_shipped, defaults);
    assert_eq!(with_all_keys, defaults);
}

/// The keys of a section, as the error about an unknown key lists them.
fn keys_of(header: &str) -> Vec<String> {
    let error = refused(&format!("{header}\nno_such_key = 1\n"));
    let (_, keys) = error.split_once("expected").unwrap_or_else(|| panic!("{header}: {error}"));
    // The message may end with the line of the error, which is quoted too.
    keys.split('`').skip(1).step_by(2).filter(|key| !key.contains(' ')).map(str::to_owned).collect()
}

#[test]
fn sample_file_names_every_key() {
    let (mut headers, mut named, mut section) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in include_str!("../../../systemd/config.toml").lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned() + ".";
            headers.insert(section.clone(), line.to_owned());
        } else if let Some((key, _)) = line.split_once(" = ") {
            named.insert(format!("{section}{key}"));
        }
    }
    let (mut sections, mut keys) = (vec![String::new()], 0);
    while let Some(section) = sections.pop() {
        // Keys of the file itself have no header, and `[s3]` has only sections.
        let table = if section.is_empty() { String::new() } else { format!("[{}]", section.trim_end_matches('.')) };
        for key in keys_of(headers.get(&section).unwrap_or(&table)) {
            keys += 1;
            let key = format!("{section}{key}");
            let below = format!("{key}.");
            if headers.keys().any(|header| header.starts_with(&below)) {
                sections.push(below);
            } else {
                assert!(named.contains(&key), "{key} is not in systemd/config.toml");
            }
        }
    }
    assert!(keys > 60, "{keys} keys found");
}
