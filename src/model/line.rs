//! Text of one line: names, descriptions and metadata.

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
