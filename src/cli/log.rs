//! Logging of the daemon: lines on standard error, for the journal or a terminal.
//!
//! The daemon never writes to standard error directly, because such a write may block for ever.
//! Log lines and panic messages go through a [`LogQueue`]. For the journal, they are records with fields
//! ([`journal`]). A line about a request ends with its id.

mod journal;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::model::RequestId;
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
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(queue.clone())
        .with_ansi(has_color)
        .with_target(false)
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Lines => lines.map_event_format(|lines| WithRequestId(lines.with_ansi(has_color))).boxed(),
        LogFormat::Records => journal::layer(lines.without_time().map_event_format(WithRequestId)).boxed(),
    };
    // Filters of the subscriber cost a span less than those of a layer. Tests call this function again, which has no
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

/// Formats an event as a line, with the id of its request at the end.
struct WithRequestId<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithRequestId<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(id) = RequestId::current() else { return self.0.format_event(context, out, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(out, "{} request_id={id}", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn line_about_a_request_ends_with_its_id() {
        let captured = Captured::default();
        let writer = captured.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let _guard = tracing::subscriber::set_default(lines.map_event_format(WithRequestId).finish());
        let id = RequestId::random();
        id.during(async { tracing::error!(number = 1, "in a request\nwith two lines") }).await;
        tracing::error!(number = 2, "in no request");
        let log = String::from_utf8(captured.0.lock().expect("no panic").clone()).expect("text");
        let (of_request, other) = log.split_at(log.find("ERROR targetwatch::cli::log::tests: in no").expect("a line"));
        assert!(of_request.ends_with(&format!("with two lines number=1 request_id={id}\n")), "{log}");
        assert!(other.ends_with("in no request number=2\n"), "{log}");
    }
}
