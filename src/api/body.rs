//! What clients send, decoded field by field, so that a refusal names the field, what was found
//! and what was expected.
//!
//! A field that is `null`, and a text that is empty, count as not given: the clients of the field
//! send every key they know. A key that is not known is refused: a misspelt `immutable` that is
//! ignored would be a bucket that is not watched for its lock.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::fault::Fault;
use crate::agent::NewTarget;
use crate::model::target::RESERVED_METADATA_KEYS;
use crate::model::{NfsExport, S3Endpoint, S3Location, Target, TargetKind, TargetSpec};
use crate::registry::TargetChange;

/// How long a client may take to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The most metadata keys in one request.
const METADATA_MAX: usize = 64;

/// The longest name, description or metadata key, in characters.
const NAME_MAX_CHARS: usize = 255;

/// The longest metadata value, in characters.
const VALUE_MAX_CHARS: usize = 4096;

/// A request body, whole and of a bounded size.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        // What is announced as too large is not waited for.
        if request.body().size_hint().lower() > super::BODY_MAX_BYTES as u64 {
            return Err(too_large());
        }
        match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(rejection)) => Err(unread(&rejection)),
            Err(_) => Err(Fault::bad_request(format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()))),
        }
    }
}

fn unread(rejection: &BytesRejection) -> Fault {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    Fault::bad_request(format!("the body could not be read: {}", rejection.body_text()))
}

fn too_large() -> Fault {
    let message = format!("the body is larger than {} bytes, which is the limit", super::BODY_MAX_BYTES);
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// What a client wants changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Modification {
    pub(super) change: TargetChange,
    pub(super) make_default: bool,
}

/// The body of a create.
pub(super) fn new_target(bytes: &[u8]) -> Result<NewTarget, Fault> {
    let mut fields = Fields::of(bytes)?;
    let kind: TargetKind = match fields.text("type")? {
        Some(text) => text.parse().map_err(|error| Fault::bad_request(format!("type: {error}")))?,
        None => return Err(Fault::bad_request("type is missing: expected \"nfs\" or \"s3\"")),
    };
    let export = fields.export()?;
    let endpoint = fields.endpoint()?;
    let bucket = fields.text("s3_bucket")?;
    let immutable = fields.flag("immutable")?.unwrap_or(false);
    let spec = match kind {
        TargetKind::Nfs => nfs_spec(export, endpoint.is_some(), bucket.is_some(), immutable)?,
        TargetKind::S3 => s3_spec(export, endpoint, bucket, immutable)?,
    };
    let new = NewTarget {
        spec,
        type_name: fields.name("btt_name")?,
        is_default: fields.flag("is_default")?.unwrap_or(false),
        metadata: fields.metadata()?,
        user_id: None,
    };
    fields.end()?;
    Ok(new)
}

fn nfs_spec(
    export: Option<String>,
    has_endpoint: bool,
    has_bucket: bool,
    immutable: bool,
) -> Result<TargetSpec, Fault> {
    let not_of_nfs = [("s3_endpoint_url", has_endpoint), ("s3_bucket", has_bucket), ("immutable", immutable)];
    if let Some((field, _)) = not_of_nfs.iter().find(|(_, given)| *given) {
        return Err(Fault::bad_request(format!("{field}: a target of type nfs has none; leave it out")));
    }
    let export = export
        .ok_or_else(|| Fault::bad_request("filesystem_export is missing: a target of type nfs needs host:/path"))?;
    let parsed = NfsExport::parse(&export);
    parsed.map(TargetSpec::Nfs).map_err(|error| Fault::bad_request(format!("filesystem_export: {error}")))
}

fn s3_spec(
    export: Option<String>,
    endpoint: Option<S3Endpoint>,
    bucket: Option<String>,
    immutable: bool,
) -> Result<TargetSpec, Fault> {
    let bucket = bucket
        .ok_or_else(|| Fault::bad_request("s3_bucket is missing: a target of type s3 needs the name of its bucket"))?;
    let location =
        S3Location::new(endpoint, &bucket).map_err(|error| Fault::bad_request(format!("s3_bucket: {error}")))?;
    if let Some(export) = export.filter(|export| *export != location.to_string()) {
        let message = format!(
            "filesystem_export: {export:?} is not {location}, which s3_endpoint_url and s3_bucket say; leave it out"
        );
        return Err(Fault::bad_request(message));
    }
    Ok(TargetSpec::S3 { location, immutable })
}

/// The body of a change of `target`.
pub(super) fn modification(bytes: &[u8], target: &Target) -> Result<Modification, Fault> {
    let mut fields = Fields::of(bytes)?;
    let fixed = [
        ("type", fields.text("type")?, target.spec.kind().as_str().to_owned()),
        ("filesystem_export", fields.export()?, target.spec.export()),
        (
            "s3_bucket",
            fields.text("s3_bucket")?,
            match &target.spec {
                TargetSpec::S3 { location, .. } => location.bucket().to_owned(),
                TargetSpec::Nfs(_) => String::new(),
            },
        ),
    ];
    for (field, given, current) in fixed {
        if let Some(given) = given.filter(|given| *given != current) {
            let message = format!("{field} is {current:?} and cannot be changed to {given:?}: create another target");
            return Err(Fault::bad_request(message));
        }
    }
    let make_default = fields.flag("is_default")?;
    if make_default == Some(false) && target.is_default {
        return Err(Fault::bad_request(
            "is_default: there is always a default target; make another one the default instead",
        ));
    }
    let modification = Modification {
        change: TargetChange {
            // An nfs target that is said not to be immutable is told nothing new.
            immutable: fields.flag("immutable")?.filter(|immutable| *immutable || target.spec.kind() == TargetKind::S3),
            endpoint: fields.endpoint()?,
            metadata: fields.metadata()?,
            purge_metadata: fields.flag("purge_metadata")?.unwrap_or(false),
        },
        make_default: make_default == Some(true),
    };
    fields.end()?;
    Ok(modification)
}

/// The fields of `backup_target`, each to be taken once.
struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    fn of(bytes: &[u8]) -> Result<Self, Fault> {
        const EXPECTED: &str = "expected {\"backup_target\": {…}}";
        let body: Value = serde_json::from_slice(bytes)
            .map_err(|error| Fault::bad_request(format!("the body is not JSON: {error}; {EXPECTED}")))?;
        let Value::Object(mut body) = body else {
            return Err(Fault::bad_request(format!("the body is {}; {EXPECTED}", kind_of(&body))));
        };
        match body.remove("backup_target") {
            Some(Value::Object(left)) => Ok(Self { left, known: Vec::new() }),
            Some(other) => Err(Fault::bad_request(format!("backup_target is {}; {EXPECTED}", kind_of(&other)))),
            None => Err(Fault::bad_request(format!("backup_target is missing; {EXPECTED}"))),
        }
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.remove(field).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => Err(Fault::bad_request(format!("{field} is {}: expected a text", kind_of(&other)))),
        }
    }

    fn name(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        let name = self.text(field)?;
        if let Some(name) = &name {
            check_text(field, name, NAME_MAX_CHARS)?;
        }
        Ok(name)
    }

    /// `filesystem_export`, or `nfs_export` as earlier releases call it.
    fn export(&mut self) -> Result<Option<String>, Fault> {
        let (newer, older) = (self.text("filesystem_export")?, self.text("nfs_export")?);
        match (newer, older) {
            (Some(newer), Some(older)) if newer != older => Err(Fault::bad_request(
                "filesystem_export and nfs_export are two names of one field and differ: send one of them",
            )),
            (newer, older) => Ok(newer.or(older)),
        }
    }

    fn endpoint(&mut self) -> Result<Option<S3Endpoint>, Fault> {
        let parse = |text: String| {
            S3Endpoint::parse(&text).map_err(|error| Fault::bad_request(format!("s3_endpoint_url: {error}")))
        };
        self.text("s3_endpoint_url")?.map(parse).transpose()
    }

    /// A flag, as a boolean, as 0 or 1, or as either in a text.
    fn flag(&mut self, field: &'static str) -> Result<Option<bool>, Fault> {
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

    fn metadata(&mut self) -> Result<BTreeMap<String, String>, Fault> {
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
    fn end(self) -> Result<(), Fault> {
        match self.left.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((field, _)) => {
                let message =
                    format!("{field:?} is not a field of backup_target here: expected {}", self.known.join(", "));
                Err(Fault::bad_request(message))
            }
        }
    }
}

fn check_text(field: &str, text: &str, max_chars: usize) -> Result<(), Fault> {
    if text.chars().any(char::is_control) {
        return Err(Fault::bad_request(format!("{field} contains a control character: {text:?}")));
    }
    let count = text.chars().count();
    if count == 0 || count > max_chars {
        return Err(Fault::bad_request(format!("{field} has {count} characters: expected 1 to {max_chars}")));
    }
    Ok(())
}

fn kind_of(value: &Value) -> &'static str {
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

#[cfg(test)]
mod tests;
