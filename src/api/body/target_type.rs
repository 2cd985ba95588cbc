//! What creates or changes a target type.
//!
//! Metadata comes in three spellings, of which clients of the field send all: a list of
//! `{"key": …, "value": …}` as in the guide, a list of objects of one pair, and one object of many.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{Fields, kind_of};
use crate::agent::{NewType, TypeUpdate};
use crate::api::fault::Fault;
use crate::model::target_type::TYPE_METADATA_MAX_BYTES;
use crate::model::{ProjectId, TargetId, TargetType};
use crate::registry::TypeChange;

const ENVELOPE: &str = "backup_target_type";

/// The two names of the metadata field: the guide's, and what an answer calls it.
const METADATA: [&str; 2] = ["metadata", "backup_target_type_metadata"];

/// What a list of metadata is made of.
const METADATA_EXPECTED: &str = "expected {\"key\": …, \"value\": …} or an object of one pair";

/// Keys and values; a value that was not given is `None`.
type Pairs = BTreeMap<String, Option<String>>;

/// What metadata is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be set.
    Set,
    /// To be removed: keys may be alone, and no entry has an empty value.
    Remove,
}

/// The body of a create.
pub(in crate::api) fn new_type(bytes: &[u8]) -> Result<NewType, Fault> {
    let mut fields = Fields::of(bytes, ENVELOPE)?;
    let missing = |what: &str| Fault::bad_request(format!("{what} is missing: a backup target type needs it"));
    let target_id = match fields.line("backup_targets_id")? {
        None => return Err(missing("backup_targets_id")),
        Some(text) => target_id(&text)?,
    };
    let new = NewType {
        target_id,
        name: fields.type_name("name")?.ok_or_else(|| missing("name"))?,
        description: fields.line("description")?,
        is_default: fields.flag("is_default")?.unwrap_or(false),
        is_public: fields.flag("is_public")?,
        projects: projects(&mut fields, "project_list")?.unwrap_or_default(),
        metadata: notes(&mut fields)?.unwrap_or_default(),
        user_id: None,
    };
    fields.end()?;
    Ok(new)
}

/// The body of a change of `target_type`.
pub(in crate::api) fn type_update(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let mut fields = Fields::of(bytes, ENVELOPE)?;
    same_type(&mut fields, target_type)?;
    if let Some(text) = fields.line("backup_targets_id")?
        && target_id(&text)? != target_type.target_id
    {
        let current = target_type.target_id;
        let message = format!(
            "backup_targets_id is {current} and cannot be changed to {text:?}: create another backup target type"
        );
        return Err(Fault::bad_request(message));
    }
    let update = TypeUpdate {
        add_projects: projects(&mut fields, "project_list")?.unwrap_or_default(),
        change: TypeChange {
            name: fields.new_type_name("name")?,
            description: fields.new_description("description")?,
            is_public: fields.flag("is_public")?,
            is_default: fields.flag("is_default")?,
            purge_projects: fields.flag("purge_projects")?.unwrap_or(false),
            purge_metadata: fields.flag("purge_metadata")?.unwrap_or(false),
            set_metadata: notes(&mut fields)?.unwrap_or_default(),
            ..TypeChange::default()
        },
    };
    fields.end()?;
    Ok(update)
}

/// The body of `add_projects`.
pub(in crate::api) fn projects_to_add(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let add_projects = project_list(bytes, target_type, "add_projects")?;
    Ok(TypeUpdate { add_projects, ..TypeUpdate::default() })
}

/// The body of `remove_projects`.
pub(in crate::api) fn projects_to_remove(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let remove_projects = project_list(bytes, target_type, "remove_projects")?;
    Ok(TypeUpdate { change: TypeChange { remove_projects, ..TypeChange::default() }, ..TypeUpdate::default() })
}

/// The body of `add_metadata`.
pub(in crate::api) fn metadata_to_add(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let mut fields = Fields::of(bytes, ENVELOPE)?;
    same_type(&mut fields, target_type)?;
    let set_metadata = notes(&mut fields)?.ok_or_else(no_metadata)?;
    fields.end()?;
    Ok(TypeUpdate { change: TypeChange { set_metadata, ..TypeChange::default() }, ..TypeUpdate::default() })
}

/// The body of `remove_metadata`: pairs, of which those go that are there. A key without a value, or
/// alone in the list, goes whatever its value is.
pub(in crate::api) fn metadata_to_remove(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let mut fields = Fields::of(bytes, ENVELOPE)?;
    same_type(&mut fields, target_type)?;
    let remove_metadata = pairs(&mut fields, Purpose::Remove)?.ok_or_else(no_metadata)?;
    fields.end()?;
    Ok(TypeUpdate { change: TypeChange { remove_metadata, ..TypeChange::default() }, ..TypeUpdate::default() })
}

fn target_id(text: &str) -> Result<TargetId, Fault> {
    let expected = "expected the id of a backup target (GET /backup_targets shows them)";
    text.parse().map_err(|_| Fault::bad_request(format!("backup_targets_id is {text:?}: {expected}")))
}

/// Refuses a body that names another type than the path does.
fn same_type(fields: &mut Fields, target_type: &TargetType) -> Result<(), Fault> {
    match fields.line("backup_target_type_id")? {
        Some(text) if text.parse() != Ok(target_type.id) => Err(Fault::bad_request(format!(
            "backup_target_type_id is {text:?} and the path says {}: send one of them twice or leave it out",
            target_type.id
        ))),
        _ => Ok(()),
    }
}

/// The projects under `project_list`, or under `bare` as some clients have it.
fn project_list(bytes: &[u8], target_type: &TargetType, bare: &'static str) -> Result<BTreeSet<ProjectId>, Fault> {
    let mut fields = Fields::of_either(bytes, ENVELOPE, bare)?;
    same_type(&mut fields, target_type)?;
    let found = match (projects(&mut fields, "project_list")?, projects(&mut fields, bare)?) {
        (Some(_), Some(_)) => {
            let message = format!("project_list and {bare} are two names of one field: send one of them");
            return Err(Fault::bad_request(message));
        }
        (guide, other) => guide.or(other),
    };
    fields.end()?;
    found.ok_or_else(|| Fault::bad_request("project_list is missing: expected a list of project ids"))
}

fn projects(fields: &mut Fields, field: &'static str) -> Result<Option<BTreeSet<ProjectId>>, Fault> {
    let items = match fields.take(field) {
        None => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(other) => {
            let message = format!("{field} is {}: expected a list of project ids", kind_of(&other));
            return Err(Fault::bad_request(message));
        }
    };
    let parsed = |(index, item): (usize, Value)| match item {
        Value::String(text) => text.parse().map_err(|error| Fault::bad_request(format!("{field}[{index}]: {error}"))),
        other => Err(Fault::bad_request(format!("{field}[{index}] is {}: expected a project id", kind_of(&other)))),
    };
    items.into_iter().enumerate().map(parsed).collect::<Result<_, _>>().map(Some)
}

fn no_metadata() -> Fault {
    Fault::bad_request("metadata is missing: expected a list of {\"key\": …, \"value\": …}")
}

/// Metadata that is to be set: every key has a value.
fn notes(fields: &mut Fields) -> Result<Option<BTreeMap<String, String>>, Fault> {
    let Some(pairs) = pairs(fields, Purpose::Set)? else {
        return Ok(None);
    };
    let with_value = |(key, value): (String, Option<String>)| match value {
        Some(value) => Ok((key, value)),
        None => Err(Fault::bad_request(format!("metadata: {key:?} has no value: expected a text"))),
    };
    pairs.into_iter().map(with_value).collect::<Result<_, _>>().map(Some)
}

fn pairs(fields: &mut Fields, purpose: Purpose) -> Result<Option<Pairs>, Fault> {
    let [guide, other] = METADATA;
    let (field, value) = match (fields.take(guide), fields.take(other)) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let message = format!("{guide} and {other} are two names of one field: send one of them");
            return Err(Fault::bad_request(message));
        }
        (Some(value), None) => (guide, value),
        (None, Some(value)) => (other, value),
    };
    let mut pairs = Pairs::new();
    match value {
        // One entry of the guide's form, without its list.
        Value::Object(entry) if entry.len() == 2 && entry.contains_key("key") && entry.contains_key("value") => {
            let (key, value) = pair(field, entry)?;
            put(&mut pairs, field, key, value, purpose)?;
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                put(&mut pairs, field, key, value, purpose)?;
            }
        }
        Value::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                let place = format!("{field}[{index}]");
                match item {
                    Value::Object(entry) => {
                        let (key, value) = pair(&place, entry)?;
                        put(&mut pairs, &place, key, value, purpose)?;
                    }
                    Value::String(key) if purpose == Purpose::Remove => {
                        put(&mut pairs, &place, key, Value::Null, purpose)?;
                    }
                    other => {
                        let message = format!("{place} is {}: {METADATA_EXPECTED}", kind_of(&other));
                        return Err(Fault::bad_request(message));
                    }
                }
            }
        }
        other => {
            let message = format!("{field} is {}: expected a list or an object of texts", kind_of(&other));
            return Err(Fault::bad_request(message));
        }
    }
    Ok(Some(pairs))
}

/// The pair that an object of the list stands for. One with a `key` is the guide's form.
fn pair(place: &str, mut entry: Map<String, Value>) -> Result<(String, Value), Fault> {
    match entry.remove("key") {
        Some(Value::String(key)) => {
            let value = entry.remove("value").unwrap_or(Value::Null);
            match entry.keys().next() {
                None => Ok((key, value)),
                Some(more) => Err(Fault::bad_request(format!(
                    "{place}: {more:?} is not one of key and value; {METADATA_EXPECTED}"
                ))),
            }
        }
        Some(other) => Err(Fault::bad_request(format!("{place}.key is {}: expected a text", kind_of(&other)))),
        None => {
            let count = entry.len();
            let mut entries = entry.into_iter();
            match (entries.next(), entries.next()) {
                (Some(pair), None) => Ok(pair),
                _ => Err(Fault::bad_request(format!("{place} has {count} fields: {METADATA_EXPECTED}"))),
            }
        }
    }
}

fn put(pairs: &mut Pairs, place: &str, key: String, value: Value, purpose: Purpose) -> Result<(), Fault> {
    check_bytes(&format!("{place}: the key"), &key)?;
    let value = match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() && purpose == Purpose::Remove => Some(text),
        Value::String(text) => {
            check_bytes(&format!("{place}: the value of {key:?}"), &text)?;
            Some(text)
        }
        other => {
            let message = format!("{place}: the value of {key:?} is {}: expected a text", kind_of(&other));
            return Err(Fault::bad_request(message));
        }
    };
    match pairs.insert(key.clone(), value.clone()) {
        Some(earlier) if earlier != value => {
            Err(Fault::bad_request(format!("{place}: {key:?} is there twice, with different values: send one of them")))
        }
        _ => Ok(()),
    }
}

fn check_bytes(what: &str, text: &str) -> Result<(), Fault> {
    if text.len() > TYPE_METADATA_MAX_BYTES {
        let message = format!("{what} has {} bytes: {TYPE_METADATA_MAX_BYTES} is the limit", text.len());
        return Err(Fault::bad_request(message));
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        let message =
            format!("{what} is {text:?}: expected 1 to {TYPE_METADATA_MAX_BYTES} bytes without control characters");
        return Err(Fault::bad_request(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
