//! The cause of an error, for the messages of targets and of Keystone.

use std::error::Error;

/// Largest length of the text of a cause, in characters. A library may repeat data of a server.
pub const CAUSE_MAX_CHARS: usize = 300;

/// Returns the text of the innermost error of a chain. The outer errors mostly name libraries.
///
/// Control characters are left out and a text of more than [`CAUSE_MAX_CHARS`] is cut, so it is safe to print.
#[must_use]
pub fn innermost_cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let mut printable = text.chars().filter(|char| !char.is_control());
    let mut shown: String = printable.by_ref().take(CAUSE_MAX_CHARS).collect();
    if printable.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_cut_and_has_no_control_characters() {
        let shown = innermost_cause(&std::io::Error::other(format!("\u{1b}[31mé{}", "x".repeat(1 << 20))));
        assert_eq!(shown.chars().count(), CAUSE_MAX_CHARS + 1);
        assert!(shown.starts_with("[31mé") && shown.ends_with("x…"), "{shown}");
        assert_eq!(innermost_cause(&std::io::Error::other("as it is")), "as it is");
    }
}
