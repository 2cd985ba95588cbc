//! Logging of the daemon: lines on standard error, for the journal or a terminal.
//!
//! The daemon never writes to standard error directly, because such a write may block for ever.
//! Log lines and panic messages go through a [`LogQueue`]. For the journal, they are records with fields
//! ([`journal`]).

mod journal;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::sys::{LogFormat, LogQueue};

/// Environment variable with the log filter, in the syntax of `tracing`'s `EnvFilter`: `debug`, or
/// `info,targetwatch::agent=debug`.
pub const FILTER_VARIABLE: &str = "TARGETWATCH_LOG";

/// Prefix of the names of the crates that handle credentials.
const CRATES_WITH_SECRETS: &str = "aws_";

/// Most verbose level of those crates, even if the filter selects a more verbose one. At more verbose levels they log
/// access keys, and requests with their signatures.
const LEVEL_WITHOUT_SECRETS: Level = Level::INFO;

/// Filter that applies when [`FILTER_VARIABLE`] is not set.
const DEFAULT_FILTER: &str = "info";

/// Starts logging, and returns the queue through which all lines go. Lines for the journal have no time, because the
/// journal adds its own.
///
/// # Errors
/// When standard error is closed, or the writer thread cannot be started.
pub fn start() -> io::Result<Arc<LogQueue>> {
    let (queue, format) = LogQueue::start_on_stderr()?;
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let (filter, filter_error) = match EnvFilter::builder().parse(&filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
    };
    let has_color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let without_secrets = filter_fn(|metadata| {
        *metadata.level() <= LEVEL_WITHOUT_SECRETS || !metadata.target().starts_with(CRATES_WITH_SECRETS)
    });
    let lines =
        fmt::layer().with_writer(queue.clone()).with_ansi(has_color).with_target(false).log_internal_errors(false);
    let lines = match format {
        LogFormat::Lines => lines.boxed(),
        LogFormat::Records => journal::layer(lines.without_time()).boxed(),
    };
    // Filters of the subscriber cost a request less than those of a layer. Tests call this function again, which has no
    // effect.
    let _ = tracing_subscriber::registry().with(filter).with(without_secrets).with(lines).try_init();
    panic::set_hook(Box::new(log_panic));
    if let Some(error) = filter_error {
        tracing::warn!("{FILTER_VARIABLE} is not a valid filter ({error}): logging at {DEFAULT_FILTER}");
    }
    Ok(queue)
}

/// Logs a panic. The default hook writes to standard error, which may block.
fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(tracing::field::display);
    tracing::error!(location, "panicked: {}", info.payload_as_str().unwrap_or("no message"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!("{backtrace}");
    }
}
