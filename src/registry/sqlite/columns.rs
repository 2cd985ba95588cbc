//! Reading and writing columns. A value that its parser rejects is an error that names the column.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::Row;
use rusqlite::types::Type;
use serde::Serialize;

/// Reads a text column with the type's own parser.
///
/// # Errors
/// When the column is missing or the parser rejects it.
pub(super) fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: &'static str) -> rusqlite::Result<T> {
    read(row, column, T::from_str)
}

/// Reads a text column with this parser.
///
/// # Errors
/// As [`parsed`].
pub(super) fn read<T, E: Display>(
    row: &Row<'_>,
    column: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T> {
    parse(&row.get::<_, String>(column)?).map_err(|error| unreadable(column, error))
}

/// Returns the error of a column whose value is not valid.
pub(super) fn unreadable(column: &str, error: impl Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("{column}: {error}").into())
}

/// Returns the JSON text of a value for a column.
///
/// # Errors
/// When the value cannot be written as JSON.
pub(super) fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
