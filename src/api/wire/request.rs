//! Adapters of request fields: how clients may write a value, and what the schema says about it.
//!
//! Clients send every key they know, so `null` and mostly an empty string mean "not given". Flags are booleans, 0 or 1,
//! or either in a string. Metadata of a type has three spellings. Each limit is one constant, which the adapter
//! enforces and the schema states.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::MetadataPair;
use crate::model::target::RESERVED_METADATA_KEYS;
use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_METADATA_MAX_BYTES, TYPE_PROJECTS_MAX, type_name_problem};

/// Metadata keys of a target in one request, at most.
const TARGET_METADATA_MAX: usize = 64;

/// Length of a name, a description or a metadata key of a target, in characters, at most.
const LINE_MAX_CHARS: usize = 255;

/// Length of a metadata value of a target, in characters, at most.
const VALUE_MAX_CHARS: usize = 4096;

/// Reads a string. An empty one means not given.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Reads a string of one line. An empty one means not given.
pub(super) fn line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer)?.map(|text| checked(text, LINE_MAX_CHARS)).transpose()
}

/// Reads a string of one line that must not be empty.
pub(super) fn required_line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(String::deserialize(deserializer)?, LINE_MAX_CHARS)
}

/// Reads a string of one line. An empty one replaces what there is.
pub(super) fn clearable_line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| if text.is_empty() { Ok(text) } else { checked(text, LINE_MAX_CHARS) }).transpose()
}

/// Reads the name of a target type.
pub(super) fn type_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = required_line(deserializer)?;
    type_name_problem(&name).map_or(Ok(name), |problem| Err(D::Error::custom(problem)))
}

/// Reads the name of a target type, if there is one.
pub(super) fn optional_type_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer)?.map(|name| type_name(Value::String(name))).transpose().map_err(D::Error::custom)
}

/// Reads the new name of a target type, if there is one. An empty name is refused.
pub(super) fn changed_type_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    name.map(|name| type_name(Value::String(name))).transpose().map_err(D::Error::custom)
}

/// Reads a flag: a boolean, 0 or 1, or either in a string. An empty string means not given.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = match &value {
        Value::Null => return Ok(None),
        Value::String(text) => text.to_ascii_lowercase(),
        other => other.to_string(),
    };
    match text.as_str() {
        "" => Ok(None),
        "0" | "false" => Ok(Some(false)),
        "1" | "true" => Ok(Some(true)),
        _ => Err(D::Error::custom(format!("{value} is not a flag, expected 0, 1, true or false"))),
    }
}

/// Reads the metadata of a target: an object of strings.
pub(super) fn target_metadata<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let metadata = BTreeMap::<String, String>::deserialize(deserializer)?;
    if metadata.len() > TARGET_METADATA_MAX {
        let problem = format!("{} keys, {TARGET_METADATA_MAX} is the limit", metadata.len());
        return Err(D::Error::custom(problem));
    }
    for (key, value) in &metadata {
        if RESERVED_METADATA_KEYS.contains(&key.as_str()) {
            return Err(D::Error::custom(format!("key {key:?} is set by the agent itself, leave it out")));
        }
        if let Some(problem) = line_problem(key, LINE_MAX_CHARS) {
            return Err(D::Error::custom(format!("key {key:?}: {problem}")));
        }
        if let Some(problem) = line_problem(value, VALUE_MAX_CHARS) {
            return Err(D::Error::custom(format!("value of {key:?}: {problem}")));
        }
    }
    Ok(metadata)
}

/// Reads the metadata of a target type: a list of `{"key": …, "value": …}`, a list of objects of one pair, or one
/// object of many pairs. A list may also hold keys alone, for removal.
pub(super) fn type_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MetadataPair>, D::Error> {
    deserializer.deserialize_any(TypeMetadataVisitor)
}

struct TypeMetadataVisitor;

impl<'de> Visitor<'de> for TypeMetadataVisitor {
    type Value = Vec<MetadataPair>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list or an object of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(ListEntry(pair)) = list.next_element()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let entries = Entries::deserialize(MapAccessDeserializer::new(map))?;
        // One entry of the guide's form, without its list.
        if entries.len() == 2
            && let (Some(Some(key)), Some(value)) = (entries.get("key"), entries.get("value"))
        {
            return Ok(vec![checked_pair(key.clone(), value.clone())?]);
        }
        entries.into_iter().map(|(key, value)| checked_pair(key, value)).collect()
    }
}

type Entries = BTreeMap<String, Option<String>>;

/// One entry of a list of metadata.
struct ListEntry(MetadataPair);

impl<'de> Deserialize<'de> for ListEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListEntryVisitor).map(Self)
    }
}

struct ListEntryVisitor;

impl<'de> Visitor<'de> for ListEntryVisitor {
    type Value = MetadataPair;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("{\"key\": …, \"value\": …} or an object of one pair")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<MetadataPair, E> {
        checked_pair(key.to_owned(), None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MetadataPair, A::Error> {
        let mut entries = Entries::deserialize(MapAccessDeserializer::new(map))?;
        let Some(key) = entries.remove("key") else {
            return match entries.pop_first() {
                Some((key, value)) if entries.is_empty() => checked_pair(key, value),
                first => {
                    let count = entries.len() + usize::from(first.is_some());
                    Err(A::Error::invalid_length(count, &self))
                }
            };
        };
        let value = entries.remove("value").flatten();
        match (key, entries.into_keys().next()) {
            (Some(key), None) => checked_pair(key, value),
            (None, _) => Err(A::Error::custom("key is null, expected a string")),
            (_, Some(other)) => Err(A::Error::unknown_field(&other, &["key", "value"])),
        }
    }
}

fn checked_pair<E: Error>(key: String, value: Option<String>) -> Result<MetadataPair, E> {
    if key.is_empty() {
        return Err(E::custom(format!("key \"\" is empty, expected 1 to {TYPE_METADATA_MAX_BYTES} bytes")));
    }
    for (what, text) in [("key", Some(&key)), ("value of", value.as_ref())] {
        let Some(text) = text else { continue };
        if text.len() > TYPE_METADATA_MAX_BYTES {
            let found = text.len();
            let problem = format!("{what} {key:?} has {found} bytes, {TYPE_METADATA_MAX_BYTES} is the limit");
            return Err(E::custom(problem));
        }
        if text.chars().any(char::is_control) {
            return Err(E::custom(format!("{what} {key:?} contains control characters: {text:?}")));
        }
    }
    Ok(MetadataPair { key, value })
}

fn checked<E: Error>(text: String, max_chars: usize) -> Result<String, E> {
    line_problem(&text, max_chars).map_or(Ok(text), |problem| Err(E::custom(problem)))
}

fn line_problem(text: &str, max_chars: usize) -> Option<String> {
    let count = text.chars().count();
    if count == 0 || count > max_chars {
        return Some(format!("{count} characters, expected 1 to {max_chars}"));
    }
    text.chars().any(char::is_control).then(|| format!("{text:?} contains a control character"))
}

/// Declares schemas of fields that an adapter reads: a name in the document, and the schema.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident => $schema:expr;)*) => {
        $(
            $(#[$doc])*
            pub enum $name {}

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    $schema.into()
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

schemas! {
    /// Schema of [`flag`].
    Flag => ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Boolean, Type::Integer, Type::String]))
        .enum_values(Some([json!(true), json!(false), json!(0), json!(1), json!("0"), json!("1"), json!("true"), json!("false")]));
    /// Schema of [`line()`] and [`type_name`].
    Line => string(1, LINE_MAX_CHARS);
    /// Schema of [`clearable_line`].
    ClearableLine => string(0, LINE_MAX_CHARS);
    /// Schema of [`target_metadata`].
    TargetMetadata => ObjectBuilder::new()
        .property_names(Some(Schema::from(string(1, LINE_MAX_CHARS))))
        .additional_properties(Some(Schema::from(string(1, VALUE_MAX_CHARS))))
        .max_properties(Some(TARGET_METADATA_MAX));
    /// Schema of [`type_metadata`].
    TypeMetadata => OneOfBuilder::new()
        .item(ArrayBuilder::new().items(pairs()).max_items(Some(TYPE_METADATA_MAX)))
        .item(pairs().max_properties(Some(TYPE_METADATA_MAX)));
    /// Schema of a list of project ids.
    ProjectIds => ArrayBuilder::new().items(string(32, 36)).max_items(Some(TYPE_PROJECTS_MAX));
}

fn string(min_chars: usize, max_chars: usize) -> ObjectBuilder {
    let string = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    string.min_length(Some(min_chars)).max_length(Some(max_chars))
}

fn pairs() -> ObjectBuilder {
    ObjectBuilder::new().additional_properties(Some(Schema::from(string(0, TYPE_METADATA_MAX_BYTES))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{NewTarget, NewType};

    #[test]
    fn schema_states_the_limits_that_the_decoder_enforces() {
        let value = |length: usize| NewTarget {
            metadata: [("a".to_owned(), "x".repeat(length))].into(),
            ..NewTarget::default()
        };
        let decoded =
            |fields: &NewTarget| serde_json::to_value(fields).and_then(serde_json::from_value::<NewTarget>).is_ok();
        assert_eq!((decoded(&value(VALUE_MAX_CHARS)), decoded(&value(VALUE_MAX_CHARS + 1))), (true, false));
        let schema = |schema: RefOr<Schema>| serde_json::to_value(schema).expect("JSON");
        let metadata = schema(TargetMetadata::schema());
        assert_eq!(metadata["additionalProperties"]["maxLength"], json!(VALUE_MAX_CHARS));
        assert_eq!(metadata["maxProperties"], json!(TARGET_METADATA_MAX));
        let immutable = schema(NewTarget::schema())["properties"]["immutable"].to_string();
        assert!(immutable.contains("#/components/schemas/Flag"), "{immutable}");
        assert_eq!(schema(NewType::schema())["required"], json!(["name", "backup_targets_id"]));
    }

    #[test]
    fn every_flag_of_the_schema_is_decoded() {
        let schema = serde_json::to_value(Flag::schema()).expect("JSON");
        for value in schema["enum"].as_array().expect("a list") {
            assert!(flag(value).expect("a flag").is_some(), "{value}");
        }
    }
}
