//! A notification: the facts about one change of status, as JSON and as environment variables.
//!
//! `docs/notify.md` describes both. Fields are only added, unless `version` changes.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::agent::TargetView;
use crate::model::{PastFinding, Status, TargetId};

/// Version of the format.
const VERSION: u32 = 1;

/// One change of a target's status.
#[derive(Debug)]
pub(super) struct Notification {
    /// Id of the event, the same for all receivers and attempts.
    pub(super) id: String,
    pub(super) target_id: TargetId,
    pub(super) export: String,
    pub(super) to: Status,
    /// When it was queued. Its age limits the attempts.
    pub(super) queued_at: Instant,
    /// The event as JSON.
    pub(super) body: Bytes,
    /// The event as environment variables.
    pub(super) variables: Vec<(&'static str, String)>,
}

/// The event, in the form that Standard Webhooks recommends.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    version: u32,
    id: &'a str,
    host: &'a str,
    target: TargetFacts<'a>,
    from: Option<&'static str>,
    to: &'static str,
    reason: Option<&'a str>,
    message: Option<&'a str>,
    previous_since: Option<Timestamp>,
}

#[derive(Serialize)]
struct TargetFacts<'a> {
    id: TargetId,
    r#type: &'static str,
    export: &'a str,
    mount_path: &'a str,
}

impl Notification {
    /// Describes the latest change of a target. `from` is the status before it, and since when.
    ///
    /// # Errors
    /// None is known: every field is text.
    pub(super) fn new(
        host: &str,
        view: &TargetView,
        from: Option<(Status, Timestamp)>,
    ) -> Result<Self, serde_json::Error> {
        let id = Uuid::new_v4().to_string();
        let to = view.status.status;
        // Messages are shortened as in the history, because receivers store them.
        let finding = view.status.finding.clone().map(PastFinding::from);
        let (reason, message) = finding.as_ref().map(|found| (&*found.code, &*found.message)).unzip();
        let export = view.target.spec.export();
        let mount_path = view.mount_path.to_string_lossy();
        let data = Data {
            version: VERSION,
            id: &id,
            host,
            target: TargetFacts {
                id: view.target.id,
                r#type: view.target.spec.kind().as_str(),
                export: &export,
                mount_path: &mount_path,
            },
            from: from.map(|(from, _)| from.as_str()),
            to: to.as_str(),
            reason,
            message,
            previous_since: from.map(|(_, since)| to_microseconds(since)),
        };
        let r#type = match to {
            Status::Available => "target.available",
            Status::Offline => "target.offline",
        };
        // The status of a target that was never available dates from its creation.
        let timestamp = view.report.as_ref().map_or(view.status.since, |report| report.checked_at);
        let event = Event { r#type, timestamp: to_microseconds(timestamp), data };
        let body = serde_json::to_vec(&event)?.into();
        let variables = variables(&event);
        Ok(Self { target_id: view.target.id, to, queued_at: Instant::now(), body, variables, export, id })
    }
}

#[cfg(test)]
impl Notification {
    /// A notification with this number as its id, without facts.
    pub(super) fn sample(number: usize) -> Self {
        Self {
            id: number.to_string(),
            target_id: Uuid::nil(),
            export: String::new(),
            to: Status::Offline,
            queued_at: Instant::now(),
            body: Bytes::new(),
            variables: Vec::new(),
        }
    }
}

/// Cuts a time to microseconds, as the API shows it.
fn to_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Returns the facts for a command. A fact that is not known is an empty variable.
fn variables(event: &Event<'_>) -> Vec<(&'static str, String)> {
    let Event { timestamp, data, .. } = event;
    let text = |value: &str| value.replace(char::is_control, " ");
    vec![
        ("TARGETWATCH_EVENT_ID", data.id.to_owned()),
        ("TARGETWATCH_EVENT_TYPE", event.r#type.to_owned()),
        ("TARGETWATCH_TIMESTAMP", timestamp.to_string()),
        ("TARGETWATCH_HOST", text(data.host)),
        ("TARGETWATCH_TARGET_ID", data.target.id.to_string()),
        ("TARGETWATCH_TARGET_TYPE", data.target.r#type.to_owned()),
        ("TARGETWATCH_TARGET_EXPORT", text(data.target.export)),
        ("TARGETWATCH_TARGET_MOUNT_PATH", text(data.target.mount_path)),
        ("TARGETWATCH_FROM", data.from.unwrap_or_default().to_owned()),
        ("TARGETWATCH_TO", data.to.to_owned()),
        ("TARGETWATCH_REASON", text(data.reason.unwrap_or_default())),
        ("TARGETWATCH_MESSAGE", text(data.message.unwrap_or_default())),
        ("TARGETWATCH_PREVIOUS_SINCE", data.previous_since.map(|since| since.to_string()).unwrap_or_default()),
    ]
}
