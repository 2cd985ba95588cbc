//! Log records for the journal: the line, its priority, and fields by which `journalctl` selects it.
//!
//! `journalctl TARGET=nas:/backups` shows all lines about a target, on every node the same. `REASON=export_denied`
//! selects changes of status by their reason code, and `MESSAGE_ID=` those to available or to offline. A record has
//! the fields of its event and of the spans around it ([`FIELDS`]), and `REQUEST_ID` if it is about a request.
//! [`crate::sys::Journal`] sends it.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::agent::{AVAILABLE_EVENT, OFFLINE_EVENT};
use crate::model::RequestId;

/// Fields of spans and events, each with the field of the journal that has the same value.
const FIELDS: [(&str, &str); 3] = [("export", "TARGET"), ("target_id", "TARGET_ID"), ("reason", "REASON")];

/// `MESSAGE_ID=` of events, by name. An id never changes and never gets a second meaning (systemd.journal-fields(7)).
const MESSAGE_IDS: [(&str, &str); 2] =
    [(AVAILABLE_EVENT, "e13fa96654d441ff87b8610907b1032d"), (OFFLINE_EVENT, "fd71c54a62744749a6d3ea5992764038")];

/// Returns a layer that writes the lines of `lines` as records.
pub(super) fn layer<S, N, E, W>(lines: tracing_subscriber::fmt::Layer<S, N, E, W>) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N> + 'static,
    W: for<'a> MakeWriter<'a> + 'static,
{
    SpanFields.and_then(lines.map_event_format(Records))
}

/// Fields of a record, each with its line break.
#[derive(Debug, Default)]
struct Fields(String);

impl Fields {
    /// Appends a field. A value without content says nothing. A line break would begin another field.
    fn put(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let value = value.chars().map(|char| if char.is_control() { ' ' } else { char });
            self.0.extend(name.chars().chain(['=']).chain(value).chain(['\n']));
        }
    }

    fn put_known(&mut self, field: &Field, value: &str) {
        if let Some((_, name)) = FIELDS.iter().find(|(known, _)| *known == field.name()) {
            self.put(name, value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_known(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_known(field, &format!("{value:?}"));
    }
}

/// Keeps the fields of each span for its records.
struct SpanFields;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanFields {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }
}

/// Formats an event as a record with the line of another format.
struct Records<F>(F);

impl<S, N, F> FormatEvent<S, N> for Records<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = constant_fields(event.metadata());
        event.record(&mut fields);
        if let Some(id) = RequestId::current() {
            fields.put("REQUEST_ID", &id.to_string());
        }
        for span in context.event_scope().into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.0.push_str(&of_span.0);
            }
        }
        writeln!(out, "{}", fields.0)?;
        self.0.format_event(context, out, event)
    }
}

/// Returns the fields that all records of an event have. The priorities are those of syslog(3).
fn constant_fields(metadata: &Metadata<'_>) -> Fields {
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let mut fields = Fields::default();
    fields.put("PRIORITY", priority);
    if let Some((_, id)) = MESSAGE_IDS.iter().find(|(name, _)| *name == metadata.name()) {
        fields.put("MESSAGE_ID", id);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Journal, LogQueue};
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// A journal whose records the test reads.
    struct FakeJournal(UnixDatagram);

    impl FakeJournal {
        /// Runs `log` with a subscriber that sends records to the returned journal.
        fn during(log: impl FnOnce()) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("socket");
            let socket = UnixDatagram::bind(&path).expect("bound");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
            let queue = LogQueue::start(Journal::for_test(&path)).expect("a thread");
            let lines = tracing_subscriber::fmt::layer().without_time().with_ansi(false).with_target(false);
            let subscriber = tracing_subscriber::registry().with(layer(lines.with_writer(queue.clone())));
            tracing::subscriber::with_default(subscriber, log);
            queue.flush(Duration::from_secs(10));
            Self(socket)
        }

        /// The fields of the next record before its message, and the message.
        fn next(&self) -> (Vec<String>, String) {
            let mut buffer = vec![0; 4096];
            let length = self.0.recv(&mut buffer).expect("a record");
            let marker = b"\nMESSAGE\n";
            let at = buffer.windows(marker.len()).position(|bytes| bytes == marker).expect("a message");
            let (length_at, message_at) = (at + marker.len(), at + marker.len() + 8);
            let declared = u64::from_le_bytes(buffer[length_at..message_at].try_into().expect("8 bytes"));
            assert_eq!(message_at as u64 + declared + 1, length as u64);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let fields = text(&buffer[..at]);
            let fields = fields.strip_suffix("\nSYSLOG_IDENTIFIER=targetwatch").expect("the program");
            let fields = fields.lines().map(ToOwned::to_owned).collect();
            (fields, text(&buffer[message_at..length - 1]))
        }
    }

    #[test]
    fn record_has_fields_of_its_event_and_its_spans() {
        let journal = FakeJournal::during(|| {
            let span = tracing::error_span!("target", target_id = %"0d51", export = "nas:/b\nPRIORITY=0", other = 1);
            let _entered = span.entered();
            tracing::warn!(name: OFFLINE_EVENT, reason = "export_denied", message = "denied:\n\nby nas", "offline");
            tracing::info!(name: AVAILABLE_EVENT, reason = "", message = "", "available");
        });
        let common = ["TARGET_ID=0d51", "TARGET=nas:/b PRIORITY=0"];
        let (fields, message) = journal.next();
        let id = "MESSAGE_ID=fd71c54a62744749a6d3ea5992764038";
        let own = ["PRIORITY=4", id, "REASON=export_denied"];
        assert_eq!(fields, [&own[..], &common].concat());
        assert!(
            message.starts_with("WARN target{target_id=0d51") && message.contains(": offline reason="),
            "{message}"
        );
        let (fields, _) = journal.next();
        let id = "MESSAGE_ID=e13fa96654d441ff87b8610907b1032d";
        assert_eq!(fields, [&["PRIORITY=6", id][..], &common].concat());
    }

    #[test]
    fn priority_is_that_of_the_level_and_lines_may_have_line_breaks() {
        let journal = FakeJournal::during(|| {
            tracing::error!(reason = "denied", "one\ntwo");
            tracing::debug!(reason = "denied", "three");
        });
        let (fields, message) = journal.next();
        assert_eq!(fields, ["PRIORITY=3", "REASON=denied"]);
        assert!(message.starts_with("ERROR one\ntwo"), "{message}");
        let (fields, _) = journal.next();
        assert_eq!(fields, ["PRIORITY=7", "REASON=denied"]);
    }

    #[tokio::test]
    async fn record_about_a_request_has_its_id() {
        let id = RequestId::random();
        let journal = id.during(async { FakeJournal::during(|| tracing::info!("created")) }).await;
        let (fields, _) = journal.next();
        assert_eq!(fields, ["PRIORITY=6".to_owned(), format!("REQUEST_ID={id}")]);
    }
}
