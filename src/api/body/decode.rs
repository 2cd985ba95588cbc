//! Decoding: from the bytes of a body to the type that the OpenAPI document describes.
//!
//! A refusal names the field, what was found and what was expected. An unknown field is refused wherever it is. If a
//! misspelt `immutable` were ignored, the lock of the bucket would not be verified.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use super::json;
use crate::api::fault::Fault;
use crate::api::wire::{
    MetadataBody, MetadataRemovalBody, NewTargetBody, NewTypeBody, ProjectsBody, TargetUpdateBody, TypeUpdateBody,
};

/// A body: one object under its envelope's name.
pub(super) trait RequestBody: DeserializeOwned {
    /// Name of the only top-level field.
    const ENVELOPE: &'static str;
    /// What a required field is expected to contain.
    const REQUIRED: &'static str;
}

macro_rules! request_bodies {
    ($($body:ty: $envelope:literal, $required:literal;)*) => {
        $(impl RequestBody for $body {
            const ENVELOPE: &'static str = $envelope;
            const REQUIRED: &'static str = $required;
        })*
    };
}

request_bodies! {
    NewTargetBody: "backup_target", "";
    TargetUpdateBody: "backup_target", "";
    NewTypeBody: "backup_target_type", "a name and the id of a backup target";
    TypeUpdateBody: "backup_target_type", "";
    ProjectsBody: "backup_target_type", "a list of project ids";
    MetadataBody: "backup_target_type", "a list of {\"key\": …, \"value\": …}";
    MetadataRemovalBody: "backup_target_type", "a list of {\"key\": …, \"value\": …}";
}

/// Decodes a body.
pub(super) fn decode<T: RequestBody>(bytes: &[u8]) -> Result<T, Fault> {
    decode_object(object(bytes, T::ENVELOPE)?)
}

/// Decodes a list of projects, which may also be called `alias`, in the envelope or instead of it.
pub(super) fn decode_projects(bytes: &[u8], alias: &'static str) -> Result<ProjectsBody, Fault> {
    const FIELD: &str = "project_list";
    let envelope = ProjectsBody::ENVELOPE;
    let mut body = object(bytes, envelope)?;
    if body.get(envelope).is_none_or(Value::is_null)
        && let Some(list) = body.remove(alias)
    {
        body.insert(envelope.to_owned(), Value::Object(Map::from_iter([(FIELD.to_owned(), list)])));
    }
    if let Some(Value::Object(fields)) = body.get_mut(envelope)
        && let Some(list) = fields.remove(alias).filter(|list| !list.is_null())
        && !fields.insert(FIELD.to_owned(), list).unwrap_or_default().is_null()
    {
        return Err(Fault::bad_request(format!("{FIELD} and {alias} are two names of one field, send one of them")));
    }
    decode_object(body)
}

fn decode_object<T: RequestBody>(mut body: Map<String, Value>) -> Result<T, Fault> {
    let envelope = T::ENVELOPE;
    let expected = expected(envelope);
    match body.get_mut(envelope) {
        Some(Value::Object(fields)) => fields.retain(|_, value| !value.is_null()),
        Some(other) => return Err(Fault::bad_request(format!("{envelope} is {}, {expected}", kind_of(other)))),
        None => return Err(Fault::bad_request(format!("{envelope} is missing, {expected}"))),
    }
    if let Some(field) = body.keys().find(|field| *field != envelope) {
        return Err(Fault::bad_request(format!(
            "unexpected top-level field {field:?}: move it inside {envelope}, {expected}"
        )));
    }
    let body = Value::Object(body);
    serde_path_to_error::deserialize(&body).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.inner().to_string();
        let named = |prefix: &str| problem.strip_prefix(prefix)?.split('`').next();
        if let Some(field) = named("missing field `") {
            return Fault::bad_request(format!("{field}: missing, expected {}", T::REQUIRED));
        }
        if let Some(field) = named("duplicate field `") {
            return Fault::bad_request(format!("{field}: given under two names of one field, send one of them"));
        }
        // The path of an unknown field ends in its name, which the text repeats.
        let unknown = named("unknown field `").unwrap_or_default();
        let field =
            path.strip_suffix(unknown).unwrap_or(&path).strip_prefix(envelope).unwrap_or(&path).trim_matches('.');
        let field = if field.is_empty() { envelope } else { field };
        match problem.strip_prefix("invalid type: ").and_then(|problem| problem.rsplit_once(", expected ")) {
            Some((_, expected)) => {
                let found = shown(value_at(&body, error.path()));
                Fault::bad_request(format!("{field}: {found} is not {}", json_term(expected)))
            }
            None => Fault::bad_request(format!("{field}: {problem}")),
        }
    })
}

/// The value at a path of the body.
fn value_at<'a>(body: &'a Value, path: &Path) -> &'a Value {
    path.iter().fold(body, |value, segment| match segment {
        Segment::Map { key } => value.get(key).unwrap_or(value),
        Segment::Seq { index } => value.get(index).unwrap_or(value),
        _ => value,
    })
}

/// A value in a message: a list or an object as such, anything else as it was sent.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
        scalar => scalar.to_string(),
    }
}

/// JSON's term for a type that serde expects.
fn json_term(expected: &str) -> &str {
    match expected {
        "a map" => "an object",
        "a sequence" => "a list",
        other => other,
    }
}

/// The top-level object of a body, without fields that are `null`.
fn object(bytes: &[u8], envelope: &str) -> Result<Map<String, Value>, Fault> {
    let expected = expected(envelope);
    match json::parse(bytes) {
        Ok(Value::Object(mut object)) => {
            object.retain(|field, value| field == envelope || !value.is_null());
            Ok(object)
        }
        Ok(other) => Err(Fault::bad_request(format!("the body is {}, {expected}", kind_of(&other)))),
        Err(error) => Err(Fault::bad_request(format!("the body is not JSON: {error}, {expected}"))),
    }
}

fn expected(envelope: &str) -> String {
    format!("expected {{\"{envelope}\": {{…}}}}")
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
