//! Fields: the one object of a body, from which each decoder takes what it knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::fault::Fault;
use crate::model::S3Endpoint;
use crate::model::target::RESERVED_METADATA_KEYS;
use crate::model::target_type::type_name_problem;

/// The most metadata keys of a target in one request.
const METADATA_MAX: usize = 64;

/// The longest name, description or metadata key, in characters.
const NAME_MAX_CHARS: usize = 255;

/// The longest metadata value of a target, in characters.
const VALUE_MAX_CHARS: usize = 4096;

/// The fields of a body's one object, each to be taken once.
pub(super) struct Fields {
    /// The name that the object has in the body.
    envelope: &'static str,
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    /// The fields of `{"envelope": {…}}`.
    pub(super) fn of(bytes: &[u8], envelope: &'static str) -> Result<Self, Fault> {
        Self::within(object(bytes, envelope)?, envelope)
    }

    /// The same, or `{"bare": […]}` without an envelope: the one field `bare`.
    pub(super) fn of_either(bytes: &[u8], envelope: &'static str, bare: &'static str) -> Result<Self, Fault> {
        let body = object(bytes, envelope)?;
        let is_given = |key: &str| body.get(key).is_some_and(|value| !value.is_null());
        if is_given(bare) && !is_given(envelope) {
            return Ok(Self { envelope: "the body", left: body, known: Vec::new() });
        }
        Self::within(body, envelope)
    }

    fn within(mut body: Map<String, Value>, envelope: &'static str) -> Result<Self, Fault> {
        let expected = expected(envelope);
        let left = match body.remove(envelope) {
            Some(Value::Object(left)) => left,
            Some(other) => return Err(Fault::bad_request(format!("{envelope} is {}; {expected}", kind_of(&other)))),
            None => return Err(Fault::bad_request(format!("{envelope} is missing; {expected}"))),
        };
        // A field that stands beside the others would be lost without a word.
        match body.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(Self { envelope, left, known: Vec::new() }),
            Some((field, _)) => {
                Err(Fault::bad_request(format!("{field:?} is beside {envelope} and not within it; {expected}")))
            }
        }
    }

    /// The value of a field, if there is one.
    pub(super) fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.remove(field).filter(|value| !value.is_null())
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        Ok(self.any_text(field)?.filter(|text| !text.is_empty()))
    }

    fn any_text(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Fault::bad_request(format!("{field} is {}: expected a text", kind_of(&other)))),
        }
    }

    /// A text in one line, such as an id.
    pub(super) fn line(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        let line = self.text(field)?;
        if let Some(line) = &line {
            check_text(field, line, NAME_MAX_CHARS)?;
        }
        Ok(line)
    }

    /// The name of a target type.
    pub(super) fn type_name(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        let name = self.text(field)?;
        name.map(|name| checked_name(field, name)).transpose()
    }

    /// Another name of a target type: an empty one is none.
    pub(super) fn new_type_name(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        let name = self.any_text(field)?;
        name.map(|name| checked_name(field, name)).transpose()
    }

    /// Another description: an empty one takes the place of what there is.
    pub(super) fn new_description(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        let text = self.any_text(field)?;
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            check_text(field, text, NAME_MAX_CHARS)?;
        }
        Ok(text)
    }

    /// `filesystem_export`, or `nfs_export` as earlier releases call it.
    pub(super) fn export(&mut self) -> Result<Option<String>, Fault> {
        let (newer, older) = (self.text("filesystem_export")?, self.text("nfs_export")?);
        match (newer, older) {
            (Some(newer), Some(older)) if newer != older => Err(Fault::bad_request(
                "filesystem_export and nfs_export are two names of one field and differ: send one of them",
            )),
            (newer, older) => Ok(newer.or(older)),
        }
    }

    /// `s3_endpoint_url`.
    pub(super) fn endpoint(&mut self) -> Result<Option<S3Endpoint>, Fault> {
        let parse = |text: String| {
            S3Endpoint::parse(&text).map_err(|error| Fault::bad_request(format!("s3_endpoint_url: {error}")))
        };
        self.text("s3_endpoint_url")?.map(parse).transpose()
    }

    /// A flag, as a boolean, as 0 or 1, or as either in a text.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        let flag = match &value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => match number.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "0" | "false" => Some(false),
                "1" | "true" => Some(true),
                "" => return Ok(None),
                _ => None,
            },
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        let refused = || Fault::bad_request(format!("{field} is {}: expected 0, 1, true or false", shown(&value)));
        flag.map(Some).ok_or_else(refused)
    }

    /// The notes of a target: an object of texts.
    pub(super) fn metadata(&mut self) -> Result<BTreeMap<String, String>, Fault> {
        let entries = match self.take("metadata") {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(entries)) => entries,
            Some(other) => {
                return Err(Fault::bad_request(format!(
                    "metadata is {}: expected an object of texts",
                    kind_of(&other)
                )));
            }
        };
        if entries.len() > METADATA_MAX {
            return Err(Fault::bad_request(format!(
                "metadata has {} keys: {METADATA_MAX} is the limit",
                entries.len()
            )));
        }
        let mut metadata = BTreeMap::new();
        for (key, value) in entries {
            check_text("metadata key", &key, NAME_MAX_CHARS)?;
            if RESERVED_METADATA_KEYS.contains(&key.as_str()) {
                return Err(Fault::bad_request(format!(
                    "metadata.{key} is answered by the agent itself: leave it out"
                )));
            }
            let Value::String(value) = value else {
                return Err(Fault::bad_request(format!("metadata.{key} is {}: expected a text", kind_of(&value))));
            };
            check_text(&format!("metadata.{key}"), &value, VALUE_MAX_CHARS)?;
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    /// Refuses what nobody has taken.
    pub(super) fn end(self) -> Result<(), Fault> {
        match self.left.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((field, _)) => {
                let message =
                    format!("{field:?} is not a field of {} here: expected {}", self.envelope, self.known.join(", "));
                Err(Fault::bad_request(message))
            }
        }
    }
}

fn expected(envelope: &str) -> String {
    format!("expected {{\"{envelope}\": {{…}}}}")
}

fn object(bytes: &[u8], envelope: &str) -> Result<Map<String, Value>, Fault> {
    let expected = expected(envelope);
    let body: Value = serde_json::from_slice(bytes)
        .map_err(|error| Fault::bad_request(format!("the body is not JSON: {error}; {expected}")))?;
    match body {
        Value::Object(object) => Ok(object),
        other => Err(Fault::bad_request(format!("the body is {}; {expected}", kind_of(&other)))),
    }
}

/// Refuses a text that is empty, too long or not for people.
pub(super) fn check_text(field: &str, text: &str, max_chars: usize) -> Result<(), Fault> {
    if text.chars().any(char::is_control) {
        return Err(Fault::bad_request(format!("{field} contains a control character: {text:?}")));
    }
    let count = text.chars().count();
    if count == 0 || count > max_chars {
        return Err(Fault::bad_request(format!("{field} has {count} characters: expected 1 to {max_chars}")));
    }
    Ok(())
}

fn checked_name(field: &str, name: String) -> Result<String, Fault> {
    check_text(field, &name, NAME_MAX_CHARS)?;
    match type_name_problem(&name) {
        None => Ok(name),
        Some(problem) => Err(Fault::bad_request(format!("{field} {problem}"))),
    }
}

/// What a value is.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
        plain => plain.to_string().chars().take(NAME_MAX_CHARS).collect(),
    }
}
