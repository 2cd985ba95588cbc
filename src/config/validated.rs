//! Results of validation, and rules that several sections share.

use std::fmt::Display;

use toml::Spanned;

use super::error::InvalidValue;

/// Largest number of entries in a list of tables.
const ENTRIES_MAX: usize = 10_000;

pub(super) type Validated<T> = Result<T, InvalidValue>;

/// Creates the error of a value at a position of the file.
pub(super) fn invalid(at: &Spanned<String>, key: &str, problem: impl Display) -> InvalidValue {
    InvalidValue::new(at.span(), key, problem)
}

/// Limits the number of entries of a list.
pub(super) fn limited<'a, T>(list: &'a [T], key: &str) -> Validated<&'a [T]> {
    if list.len() <= ENTRIES_MAX {
        Ok(list)
    } else {
        Err(InvalidValue::new(0..0, key, format!("{} entries, expected at most {ENTRIES_MAX}", list.len())))
    }
}
