//! States and their colours.

use comfy_table::{Cell, Color};

use crate::cli::exit::ExitState;
use crate::cli::terminal::{OutputStyle, escape_invisible};

/// Text instead of a table without targets.
pub const NO_TARGETS: &str = "there are no backup targets. Create one with `targetwatch target create`\n";

fn color(state: ExitState) -> Color {
    match state {
        ExitState::Available => Color::Green,
        ExitState::Warning => Color::Yellow,
        ExitState::Unknown => Color::Grey,
        ExitState::Offline => Color::Red,
    }
}

/// A cell with a status, in the colour of its state.
pub(super) fn state_cell(status: &str, state: ExitState, style: OutputStyle) -> Cell {
    let cell = Cell::new(escape_invisible(status));
    if style.has_color { cell.fg(color(state)) } else { cell }
}

/// Renders the outcome of a check as the first column of a line.
pub(in crate::cli) fn mark(outcome: &str, state: ExitState, style: OutputStyle) -> String {
    paint(&format!("{outcome:<9}"), color(state), style)
}

/// Renders a text in the colour for offline targets.
#[must_use]
pub fn bad(text: &str, style: OutputStyle) -> String {
    paint(text, Color::Red, style)
}

/// Renders a text in the colour of a state.
pub(super) fn painted(text: &str, state: ExitState, style: OutputStyle) -> String {
    paint(text, color(state), style)
}

fn paint(text: &str, color: Color, style: OutputStyle) -> String {
    let code = match color {
        Color::Green => 32,
        Color::Yellow => 33,
        Color::Red => 31,
        _ => 37,
    };
    if style.has_color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}
