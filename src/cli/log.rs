//! Logs: lines on standard error, for the journal or a terminal.

use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// The environment variable that sets what is logged, in the syntax of `tracing`'s `EnvFilter`:
/// `debug`, or `info,targetwatch::agent=debug`.
pub const FILTER_VARIABLE: &str = "TARGETWATCH_LOG";

/// The crates that handle credentials, by the beginning of their names.
const CRATES_WITH_SECRETS: &str = "aws_";

/// The most that those say, whatever the filter asks for: below it they log access keys, and requests
/// with their signatures.
const LEVEL_WITHOUT_SECRETS: Level = Level::INFO;

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
    let without_secrets = filter_fn(|metadata| {
        *metadata.level() <= LEVEL_WITHOUT_SECRETS || !metadata.target().starts_with(CRATES_WITH_SECRETS)
    });
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(has_color).with_target(false);
    let lines = if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().boxed() } else { lines.boxed() };
    // A second call, as a test makes, changes nothing.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter.and(without_secrets))).try_init();
}
