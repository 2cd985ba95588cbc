//! Pages of a listing of a whole bucket: the totals of a page, and the marker of the next one.
//!
//! A page must say whether more pages follow and where they begin, and every entry must have a size. Any other page is
//! refused, because the totals would be wrong.

/// Most entries of a page (S3 API reference, ListObjectVersions).
pub const PAGE_ENTRIES_MAX: u16 = 1000;

/// Longest key, version or token that is kept, in bytes. A key has at most 1,024 (S3 user guide, "Naming
/// Amazon S3 objects"). A token contains a key, possibly encoded.
pub const MARKER_LIMIT_BYTES: usize = 4096;

/// Kind of the entries of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// All versions and delete markers.
    Versions,
    /// Current objects.
    Objects,
}

/// Marker of the beginning of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageMarker {
    /// The page follows this version, or this key if there is no version.
    Version {
        /// Key of an object.
        key: String,
        /// Version ID.
        version: Option<String>,
    },
    /// Continuation token, opaque to the client.
    Token(String),
}

impl PageMarker {
    /// Returns whether a part is longer than [`MARKER_LIMIT_BYTES`].
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        let is_too_long = |text: &String| text.len() > MARKER_LIMIT_BYTES;
        match self {
            Self::Version { key, version } => is_too_long(key) || version.as_ref().is_some_and(is_too_long),
            Self::Token(token) => is_too_long(token),
        }
    }
}

/// Totals of one page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedPage {
    /// Number of versions or objects.
    pub versions: u64,
    /// Number of delete markers.
    pub delete_markers: u64,
    /// Total size of the versions, in bytes.
    pub bytes: u64,
    /// First and last key in byte order. None on an empty page.
    pub keys: Option<(String, String)>,
    /// Marker of the next page. None on the last page.
    pub next: Option<PageMarker>,
}
