//! Output of list and show commands.
//!
//! Without options, a command prints a table or a report for people. `--json` prints the answer of the API.
//! `-f` and `-c` print columns in the formats of OpenStack's clients (cliff), for scripts that parse those.

use std::num::NonZeroUsize;

use anyhow::bail;
use clap::{Args, ValueEnum};
use comfy_table::{LineStyle, Table, presets};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::Answer;
use super::terminal::{OutputStyle, escape_invisible, escape_yaml, json_text, print, print_json};

/// Options of a command that lists or shows something.
#[derive(Debug, Default, Args)]
pub struct OutputOptions {
    /// Print the answer of the API as JSON
    #[arg(long, conflicts_with_all = ["format", "columns"])]
    json: bool,
    /// Print columns in a format of OpenStack's clients
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Print only this column; may be repeated
    #[arg(short, long = "column", value_name = "COLUMN")]
    columns: Vec<String>,
}

/// Options that select a page of a list.
#[derive(Debug, Args)]
pub struct PageOptions {
    /// Print at most this number of items
    #[arg(long, value_name = "NUMBER")]
    limit: Option<NonZeroUsize>,
    /// Continue after the item with this id
    #[arg(long, value_name = "ID")]
    marker: Option<Uuid>,
}

impl PageOptions {
    /// Returns the path of a list with the parameters of the page.
    pub(super) fn path(&self, list: &str) -> String {
        let limit = self.limit.map(|limit| format!("limit={limit}"));
        let marker = self.marker.map(|marker| format!("marker={marker}"));
        let parameters: Vec<String> = limit.into_iter().chain(marker).collect();
        if parameters.is_empty() { list.to_owned() } else { format!("{list}?{}", parameters.join("&")) }
    }
}

/// Format of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A list of objects, or one object
    Json,
    /// The same as YAML
    Yaml,
    /// Comma-separated values, with a header
    Csv,
    /// Values without names
    Value,
    /// A table with borders
    Table,
}

/// Column: its name, and its value in a row.
pub(super) type Column<T> = (&'static str, fn(&T) -> Value);

/// Rows that a command prints.
pub(super) enum Rows<T> {
    /// Rows of a list.
    List(Vec<T>),
    /// The one item that is shown.
    One(T),
}

impl OutputOptions {
    /// Prints an answer, and returns it decoded. `render` turns it into text for people, and `rows` into rows of
    /// `columns`.
    ///
    /// # Errors
    /// When the answer is not a `T`, or when a requested column does not exist.
    pub(super) fn show<T: DeserializeOwned, R>(
        &self,
        answer: &Answer,
        render: impl FnOnce(&T, OutputStyle) -> String,
        columns: &[Column<R>],
        rows: impl FnOnce(&T) -> Rows<R>,
    ) -> anyhow::Result<T> {
        let decoded = answer.decode()?;
        if self.json {
            print_json(&answer.decode::<Value>()?)?;
        } else if self.format.is_some() || !self.columns.is_empty() {
            print(&self.formatted(columns, &rows(&decoded))?);
        } else {
            print(&render(&decoded, OutputStyle::of_stdout()));
        }
        Ok(decoded)
    }

    fn formatted<R>(&self, columns: &[Column<R>], rows: &Rows<R>) -> anyhow::Result<String> {
        let columns = self.selected(columns)?;
        let (items, is_list) = match rows {
            Rows::List(items) => (&items[..], true),
            Rows::One(item) => (std::slice::from_ref(item), false),
        };
        let cells: Vec<Vec<Value>> =
            items.iter().map(|item| columns.iter().map(|(_, value)| value(item)).collect()).collect();
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        Ok(match self.format.unwrap_or(Format::Table) {
            Format::Json => json_output(&names, cells, is_list)?,
            Format::Yaml => yaml(&names, &cells, is_list),
            Format::Csv => {
                let header = names.iter().map(|name| json!(name)).collect();
                [header].iter().chain(&cells).map(|row| joined(row, ",", csv_cell)).collect()
            }
            Format::Value if is_list => cells.iter().map(|row| joined(row, " ", cell)).collect(),
            Format::Value => cells.iter().map(|row| joined(row, "\n", cell)).collect(),
            Format::Table if is_list => table(&names, cells.iter().map(|row| row.iter().map(cell).collect())),
            Format::Table => {
                let fields = names.iter().zip(cells.iter().flatten());
                table(&["Field", "Value"], fields.map(|(name, value)| vec![(*name).to_owned(), cell(value)]))
            }
        })
    }

    /// Returns the requested columns. Their order does not depend on the request. A name may be in lower case.
    fn selected<'a, R>(&self, columns: &'a [Column<R>]) -> anyhow::Result<Vec<&'a Column<R>>> {
        let is = |(name, _): &Column<R>, wanted: &String| name.eq_ignore_ascii_case(&wanted.replace('_', " "));
        for wanted in &self.columns {
            if !columns.iter().any(|column| is(column, wanted)) {
                let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
                bail!("{wanted:?} is not a column, expected one of: {}", names.join(", "));
            }
        }
        let is_selected =
            |column: &&Column<R>| self.columns.is_empty() || self.columns.iter().any(|wanted| is(column, wanted));
        Ok(columns.iter().filter(is_selected).collect())
    }
}

fn json_output(names: &[&str], cells: Vec<Vec<Value>>, is_list: bool) -> serde_json::Result<String> {
    let object = |row: Vec<Value>| -> Value {
        names.iter().map(|name| (*name).to_owned()).zip(row).collect::<Map<String, Value>>().into()
    };
    let mut objects = cells.into_iter().map(object);
    let value: Value = if is_list { objects.collect() } else { objects.next().unwrap_or_default() };
    json_text(&value).map(|text| text + "\n")
}

/// Formats rows as YAML. Each value is JSON, which is a subset of YAML 1.2.
fn yaml(names: &[&str], cells: &[Vec<Value>], is_list: bool) -> String {
    if cells.is_empty() {
        return "[]\n".to_owned();
    }
    let mut text = String::new();
    for row in cells {
        for (at, (name, value)) in names.iter().zip(row).enumerate() {
            let indent = match (is_list, at) {
                (false, _) => "",
                (true, 0) => "- ",
                (true, _) => "  ",
            };
            text += &format!("{indent}{name}: {}\n", escape_yaml(&value.to_string()));
        }
    }
    text
}

fn table(names: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED.header_separator(LineStyle::new('+', '-', '+', '+')));
    table.set_header(names);
    table.add_rows(rows);
    format!("{table}\n")
}

fn joined(row: &[Value], separator: &str, format: fn(&Value) -> String) -> String {
    row.iter().map(format).collect::<Vec<_>>().join(separator) + "\n"
}

/// Formats a value as clients of OpenStack do, which are written in Python.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => escape_invisible(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}='{}'", escape_invisible(key), cell(value)));
            entries.collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// Formats a value for CSV, with the quotes of RFC 4180. Only numbers have none, as in cliff (`QUOTE_NONNUMERIC`).
fn csv_cell(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Null => "\"\"".to_owned(),
        value => format!("\"{}\"", cell(value).replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (&'static str, Option<u64>, bool);

    const COLUMNS: &[Column<Item>] =
        &[("ID", |item| json!(item.0)), ("Used Bytes", |item| json!(item.1)), ("Tags", |item| json!([item.2, "a"]))];

    fn formatted(format: Option<Format>, columns: &[&str], rows: &Rows<Item>) -> anyhow::Result<String> {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        OutputOptions { json: false, format, columns }.formatted(COLUMNS, rows)
    }

    #[test]
    fn list_is_printed_in_each_format() {
        let rows = Rows::List(vec![("a \"b\"", Some(7), true), ("ü\u{202e}", None, false)]);
        for (format, expected) in [
            (
                Format::Json,
                r#"[
  {
    "ID": "a \"b\"",
    "Tags": [
      true,
      "a"
    ],
    "Used Bytes": 7
  },
  {
    "ID": "ü\u202e",
    "Tags": [
      false,
      "a"
    ],
    "Used Bytes": null
  }
]
"#,
            ),
            (
                Format::Yaml,
                r#"- ID: "a \"b\""
  Used Bytes: 7
  Tags: [true,"a"]
- ID: "ü\u202e"
  Used Bytes: null
  Tags: [false,"a"]
"#,
            ),
            (
                Format::Csv,
                "\"ID\",\"Used Bytes\",\"Tags\"\n\"a \"\"b\"\"\",7,\"True, a\"\n\"ü\\u{202e}\",\"\",\"False, a\"\n",
            ),
            (Format::Value, "a \"b\" 7 True, a\nü\\u{202e} None False, a\n"),
        ] {
            assert_eq!(formatted(Some(format), &[], &rows).expect("text"), expected, "{format:?}");
        }
        insta::assert_snapshot!(formatted(None, &["tags", "ID"], &rows).expect("a table"), @r#"
        +-----------+----------+
        | ID        | Tags     |
        +-----------+----------+
        | a "b"     | True, a  |
        | ü\u{202e} | False, a |
        +-----------+----------+
        "#);
    }

    #[test]
    fn yaml_quotes_every_text() {
        for (text, quoted) in [
            ("no", r#""no""#),
            ("1.0", r#""1.0""#),
            ("null", r#""null""#),
            ("- a: b # c", r#""- a: b # c""#),
            ("a\nb", r#""a\nb""#),
            ("\u{e0001}\u{7f}", r#""\U000e0001\u007f""#),
        ] {
            let rows = Rows::One((text, None, true));
            assert_eq!(formatted(Some(Format::Yaml), &["ID"], &rows).expect("text"), format!("ID: {quoted}\n"));
        }
    }

    #[test]
    fn one_item_is_printed_as_fields() {
        let rows = Rows::One(("a", Some(7), true));
        for (format, expected) in [
            (Format::Json, "{\n  \"ID\": \"a\",\n  \"Used Bytes\": 7\n}\n"),
            (Format::Yaml, "ID: \"a\"\nUsed Bytes: 7\n"),
            (Format::Csv, "\"ID\",\"Used Bytes\"\n\"a\",7\n"),
            (Format::Value, "a\n7\n"),
        ] {
            assert_eq!(formatted(Some(format), &["used_bytes", "ID"], &rows).expect("text"), expected, "{format:?}");
        }
        insta::assert_snapshot!(formatted(Some(Format::Table), &["ID"], &rows).expect("a table"), @r"
        +-------+-------+
        | Field | Value |
        +-------+-------+
        | ID    | a     |
        +-------+-------+
        ");
    }

    #[test]
    fn empty_list_is_valid_in_each_format() {
        let rows = Rows::List(Vec::new());
        for (format, expected) in
            [(Format::Json, "[]\n"), (Format::Yaml, "[]\n"), (Format::Csv, "\"ID\"\n"), (Format::Value, "")]
        {
            assert_eq!(formatted(Some(format), &["ID"], &rows).expect("text"), expected, "{format:?}");
        }
    }

    #[test]
    fn unknown_column_is_refused_with_the_known_names() {
        let error = formatted(None, &["ID", "Nme"], &Rows::List(Vec::new())).expect_err("refused").to_string();
        assert_eq!(error, "\"Nme\" is not a column, expected one of: ID, Used Bytes, Tags");
    }
}
