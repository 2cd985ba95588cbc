//! Pages of a listing of a whole bucket: what a page adds up to, and where the next one begins.
//!
//! A page says whether more follow and where they begin, and both count: one that says neither, or
//! names an entry without a size, is no page, since what is added up of such would be wrong.

/// How many entries a page has at most (S3 API reference, ListObjectVersions).
pub const PAGE_ENTRIES_MAX: u16 = 1000;

/// The longest key, version or token that is kept, in bytes. A key has at most 1,024 (S3 user guide, "Naming
/// Amazon S3 objects"); a token holds one, perhaps encoded.
pub const MARKER_LIMIT_BYTES: usize = 4096;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// All versions, and delete markers.
    Versions,
    /// Objects as they are now.
    Objects,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageMarker {
    /// After a version of a key; without one, after the key.
    Version {
        /// The key.
        key: String,
        /// The version.
        version: Option<String>,
    },
    /// Where the service knows.
    Token(String),
}

impl PageMarker {
    /// Whether a part of it is longer than [`MARKER_LIMIT_BYTES`].
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        let is_too_long = |text: &String| text.len() > MARKER_LIMIT_BYTES;
        match self {
            Self::Version { key, version } => is_too_long(key) || version.as_ref().is_some_and(is_too_long),
            Self::Token(token) => is_too_long(token),
        }
    }
}

/// What is on one page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedPage {
    /// How many versions, or objects.
    pub versions: u64,
    /// How many delete markers.
    pub delete_markers: u64,
    /// The sizes of the versions together, in bytes.
    pub bytes: u64,
    /// The keys of its first and of its last entry; none on an empty page.
    pub keys: Option<(String, String)>,
    /// Where the next page begins; none after the last one.
    pub next: Option<PageMarker>,
}
