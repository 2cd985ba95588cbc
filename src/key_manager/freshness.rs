//! How fresh a secret must be.

/// How current a secret must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// At most as old as the refresh interval.
    Cached,
    /// Read now.
    Now,
}
