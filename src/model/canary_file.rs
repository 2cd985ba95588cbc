//! The canary file: its name and content. A probe worker writes it through a mount, and [`crate::nfs`] over the wire.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fnv::{FNV_OFFSET_BASIS, fnv1a};

/// Size of a canary file, in bytes: one page, the smallest size for `O_DIRECT`.
pub const CANARY_FILE_BYTES: usize = 4096;

/// Minimum age of a leftover, in seconds. A `targetwatch check` that runs beside the daemon may still be writing a
/// younger file.
pub const LEFTOVER_AGE_S: i64 = 600;

/// Maximum number of leftovers that one canary removes.
pub const LEFTOVERS_MAX: u32 = 16;

/// Maximum number of directory entries that are searched for leftovers.
pub const LEFTOVER_SEARCH_MAX: usize = 4096;

/// Prefix of the names of all canary files.
const PREFIX: &str = ".targetwatch-canary-";

/// Name of a canary, and prefix of this node's canaries. Many nodes write to one export, and each removes only its
/// own leftovers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryFileNames {
    /// Name of the file, unique for each canary.
    pub name: String,
    /// Prefix of the names of this node's canaries.
    pub leftover_prefix: String,
}

impl CanaryFileNames {
    /// Returns names for a new canary of this node: `.targetwatch-canary-<node>-<uuid>`.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        let node = fnv1a(FNV_OFFSET_BASIS, hostname.as_bytes());
        let leftover_prefix = format!("{PREFIX}{node:016x}-");
        Self { name: format!("{leftover_prefix}{}", Uuid::new_v4()), leftover_prefix }
    }

    /// Whether both names have the form of [`Self::new`]. Verified because a worker removes files by these names.
    #[must_use]
    pub fn are_sound(&self) -> bool {
        let node = self.leftover_prefix.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix('-'));
        node.is_some_and(|node| node.len() == 16 && node.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && self.is_of_node(&self.name)
    }

    /// Whether this is the name of a canary of this node.
    #[must_use]
    pub fn is_of_node(&self, name: &str) -> bool {
        name.strip_prefix(&self.leftover_prefix).is_some_and(|id| Uuid::try_parse(id).is_ok())
    }
}

/// Whether a regular file with the name of a canary is a leftover, by the server's clock. Times are in seconds.
#[must_use]
pub fn is_leftover(bytes: u64, modified: i64, now: i64) -> bool {
    bytes <= CANARY_FILE_BYTES as u64 && modified.saturating_add(LEFTOVER_AGE_S) <= now
}

/// Fills a page with bytes that no earlier canary had, so that stale data does not match.
pub fn fill(page: &mut [u8; CANARY_FILE_BYTES]) {
    let seed = Uuid::new_v4().as_u64_pair();
    let mut state = seed.0 ^ seed.1;
    for chunk in page.chunks_exact_mut(8) {
        // SplitMix64. It only has to make each word different.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
}

/// Describes bytes that were read back and differ from those that were written. `None` if they are the same.
#[must_use]
pub fn mismatch(written: &[u8], read: &[u8]) -> Option<String> {
    let differing = written.iter().zip(read).filter(|(written, read)| written != read).count();
    (written != read).then(|| {
        let (written, read) = (written.len(), read.len());
        format!("{written} bytes were written, {read} were read back, and {differing} differ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_name_identifies_its_node() {
        let (one, again, other) = (CanaryFileNames::new("a"), CanaryFileNames::new("a"), CanaryFileNames::new("b"));
        assert!(one.are_sound());
        assert_eq!(one.leftover_prefix, again.leftover_prefix);
        assert_eq!(one.leftover_prefix, ".targetwatch-canary-af63dc4c8601ec8c-", "the same in every release");
        assert_ne!(one.name, again.name);
        assert!(one.is_of_node(&again.name) && !one.is_of_node(&other.name));
        for (name, prefix) in [("x", ""), ("../x", ".."), (one.name.as_str(), ".targetwatch-canary-"), ("b", "b")] {
            assert!(!CanaryFileNames { name: name.into(), leftover_prefix: prefix.into() }.are_sound(), "{prefix}");
        }
    }

    #[test]
    fn leftover_is_old_and_small() {
        for (bytes, modified, expected) in
            [(4096, 400, true), (4096, 401, false), (4097, 0, false), (0, i64::MAX, false)]
        {
            assert_eq!(is_leftover(bytes, modified, 1000), expected, "{bytes} B of {modified}");
        }
    }

    #[test]
    fn mismatch_counts_the_differing_bytes() {
        let (mut one, mut other) = ([0; CANARY_FILE_BYTES], [0; CANARY_FILE_BYTES]);
        fill(&mut one);
        assert_eq!(mismatch(&one, &one.clone()), None);
        fill(&mut other);
        assert!(mismatch(&one, &other).is_some_and(|text| text.starts_with("4096 bytes were written, 4096 were read")));
        assert!(mismatch(&one, &one[..7]).is_some_and(|text| text.ends_with("7 were read back, and 0 differ")));
    }
}
