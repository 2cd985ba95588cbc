//! Logs: lines on standard error, for the journal or a terminal.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// The environment variable that sets what is logged, in the syntax of `tracing`'s `EnvFilter`:
/// `debug`, or `info,targetwatch::agent=debug`.
pub const FILTER_VARIABLE: &str = "TARGETWATCH_LOG";

/// What is logged unless told otherwise.
const DEFAULT_FILTER: &str = "info";

/// Begins to log. The journal has its own clock, so lines that go there carry none.
pub fn start() {
    let filter = EnvFilter::builder()
        .parse(std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.to_owned()))
        .unwrap_or_else(|error| {
            eprintln!("{FILTER_VARIABLE} is not a filter ({error}); logging at {DEFAULT_FILTER}");
            EnvFilter::new(DEFAULT_FILTER)
        });
    let is_terminal = io::stderr().is_terminal();
    let has_color = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(has_color);
    // A second call, as a test makes, changes nothing.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().with_target(false).try_init()
    } else {
        lines.with_target(false).try_init()
    };
}
