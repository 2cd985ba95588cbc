//! Times on the wire, as the API guide has them: UTC, to the microsecond, without a zone.

use jiff::Timestamp;

/// A time as the guide writes it.
#[must_use]
pub fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

/// The time of a text that [`timestamp`] wrote.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    format!("{text}Z").parse().ok()
}
