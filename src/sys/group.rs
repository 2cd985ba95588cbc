//! Groups of this host, from `/etc/group`. A directory service is not used, because it may not answer and would then
//! delay the start.

#![allow(clippy::disallowed_methods, reason = "a local file, and a socket that the caller has just used")]

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The host's groups (group(5)).
const GROUP_FILE: &str = "/etc/group";

/// Maximum number of bytes that are read from it.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// Returns the id of a group that is given by name or by id.
///
/// # Errors
/// When no group has that name, or the file cannot be read.
pub fn group_id(name: &str) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    find(&groups()?, name).ok_or_else(|| {
        io::Error::other(format!(
            "there is no group {name:?} in {GROUP_FILE}: expected the name or the number of a group"
        ))
    })
}

/// Returns the group of a file: its name, or its id if it has no name. `None` if the file cannot be accessed.
#[must_use]
pub fn group_of(path: &Path) -> Option<String> {
    let id = std::fs::metadata(path).ok()?.gid();
    Some(groups().ok().and_then(|text| name_of(&text, id)).unwrap_or_else(|| id.to_string()))
}

fn groups() -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(GROUP_FILE)?.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn name_of(text: &str, id: u32) -> Option<String> {
    let id = id.to_string();
    text.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (rest.split(':').nth(1) == Some(id.as_str())).then(|| name.to_owned())
    })
}

fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1).and_then(|number| number.parse().ok())).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name_and_numbers_are_taken() {
        let text = "root:x:0:\nbackup:x:34:a,b\nback:x:7:\nbroken\nodd:x:y:\n";
        assert_eq!(find(text, "backup"), Some(34));
        assert_eq!(find(text, "back"), Some(7));
        for absent in ["bac", "", "broken", "odd"] {
            assert_eq!(find(text, absent), None, "{absent:?}");
        }
        assert_eq!((name_of(text, 34), name_of(text, 3)), (Some("backup".to_owned()), None));
        assert_eq!(group_of(Path::new("/")), Some("root".to_owned()));
        assert_eq!(group_of(Path::new("/nonexistent")), None);
        assert_eq!(group_id("1234").expect("a number"), 1234);
        assert_eq!(group_id("root").expect("everywhere"), 0);
        assert!(group_id("no-such-group").expect_err("absent").to_string().contains("no-such-group"));
    }
}
