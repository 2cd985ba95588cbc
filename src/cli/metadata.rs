//! Metadata entries on the command line.

/// Parses `KEY=VALUE`.
pub(super) fn metadata_entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}
