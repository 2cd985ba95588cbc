//! Layout of tables.

use comfy_table::{Cell, ContentArrangement, Table, presets};

use crate::cli::terminal::OutputStyle;

/// Smallest width of a table with capacity bars, in columns. Narrower tables use the space for exports.
pub(super) const WIDE_COLUMNS: u16 = 110;

/// An empty table with a header, as wide as the output.
pub(super) fn table(style: OutputStyle, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(style.width);
    if style.has_color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(Cell::new));
    table
}

/// Renders a table without spaces at the ends of its lines.
pub(super) fn finish(table: &mut Table) -> String {
    let gap = gap(table.width().unwrap_or(WIDE_COLUMNS));
    for column in table.column_iter_mut() {
        column.set_padding((0, gap));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Columns between two columns of a table.
pub(super) fn gap(width: u16) -> u16 {
    if width < WIDE_COLUMNS { 1 } else { 2 }
}
