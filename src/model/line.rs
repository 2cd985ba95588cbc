//! Text of one line: names, descriptions and metadata. Escaping of untrusted text for people.

use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

/// Largest length of a name, a description or a metadata key of a target, in characters.
pub const LINE_MAX_CHARS: usize = 255;

/// Line and paragraph separator. They end a line, and are not control characters.
const LINE_SEPARATORS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// Returns the problem of a text that must have one line of 1 to `max_chars` characters, if there is one.
#[must_use]
pub fn line_problem(text: &str, max_chars: usize) -> Option<String> {
    let found = match text.chars().count() {
        0 => "is empty".to_owned(),
        count if count > max_chars => format!("has {count} characters"),
        _ => return text.chars().any(char::is_control).then(|| format!("{text:?} contains a control character")),
    };
    Some(format!("{found}, expected 1 to {max_chars} characters"))
}

/// Returns the problem of a text that contains an invisible character, if it contains one.
#[must_use]
pub fn invisible_problem(text: &str) -> Option<String> {
    let found = text.chars().find(|character| is_invisible(*character))?;
    Some(format!("{text:?} contains U+{:04X}, which cannot be seen: leave it out", u32::from(found)))
}

/// Reports whether a character is invisible or changes the direction of the text around it.
///
/// Two texts that look the same must be the same, or a person picks the wrong one.
#[must_use]
pub fn is_invisible(character: char) -> bool {
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    character.is_control() || LINE_SEPARATORS.contains(&character) || ignorable.contains(character)
}

/// Escapes the control, invisible and bidirectional characters of untrusted text.
#[must_use]
pub fn escape_invisible(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_invisible(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        assert_eq!(escape_invisible("a\u{1b}[2Jb\r\nä"), "a\\u{1b}[2Jb\\r\\nä");
        assert_eq!(escape_invisible("a\u{202e}\u{200b}\u{2028}\u{e0001}"), "a\\u{202e}\\u{200b}\\u{2028}\\u{e0001}");
    }
}
