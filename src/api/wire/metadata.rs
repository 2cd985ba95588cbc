//! Metadata on the wire: how clients may write it, and what the schema says about it.
//!
//! Values are text. A number or a boolean is accepted as its text. Metadata of a target is an object. Metadata of
//! a type has three spellings: a list of `{"key": …, "value": …}`, a list of objects of one pair, and one object
//! of many pairs. On removal, a list may also contain keys alone.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};

use super::request::{schemas, string};
use crate::model::line::LINE_MAX_CHARS;
use crate::model::target::{METADATA_MAX, METADATA_VALUE_MAX_CHARS, metadata_problem};
use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_METADATA_MAX_BYTES};

/// The two forms of an entry of a list.
const ENTRY_FORMS: &str = "{\"key\": …, \"value\": …} or an object of one pair";

/// Metadata key and value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MetadataEntry {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// Metadata key, and its value where one is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetadataPair {
    /// Key.
    pub key: String,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Reads the metadata of a target: an object of scalars.
pub(super) fn target_metadata<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let metadata = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
    let metadata: BTreeMap<_, _> = metadata.into_iter().map(|(key, Scalar(value))| (key, value)).collect();
    metadata_problem(&metadata).map_or(Ok(metadata), |problem| Err(D::Error::custom(problem)))
}

/// Reads the metadata of a target type. Every key has a value.
pub(super) fn type_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MetadataEntry>, D::Error> {
    let with_value = |MetadataPair { key, value }| match value {
        Some(value) if !value.is_empty() => Ok(MetadataEntry { key, value }),
        Some(_) => Err(format!("the value of {key:?} is empty, expected 1 to {TYPE_METADATA_MAX_BYTES} bytes")),
        None => Err(format!("{key:?} has no value, expected {ENTRY_FORMS}")),
    };
    let entries: Result<_, String> = removed_metadata(deserializer)?.into_iter().map(with_value).collect();
    entries.map_err(D::Error::custom)
}

/// Reads the metadata to remove from a target type.
pub(super) fn removed_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MetadataPair>, D::Error> {
    deserializer.deserialize_any(TypeMetadataVisitor)
}

struct TypeMetadataVisitor;

impl<'de> Visitor<'de> for TypeMetadataVisitor {
    type Value = Vec<MetadataPair>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list or an object of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut pairs = BTreeMap::<String, (usize, Option<String>)>::new();
        let mut index = 0;
        while let Some(ListEntry(MetadataPair { key, value })) = list.next_element()? {
            let (first, earlier) = pairs.entry(key.clone()).or_insert_with(|| (index, value.clone()));
            if *earlier != value {
                return Err(A::Error::custom(format!(
                    "{key:?} is given twice with different values, at [{first}] and [{index}], send one of them"
                )));
            }
            index += 1;
        }
        Ok(pairs.into_iter().map(|(key, (_, value))| MetadataPair { key, value }).collect())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let entries = Entries::deserialize(MapAccessDeserializer::new(map))?;
        // One entry of a list, without the list.
        if entries.len() == 2
            && let (Some(Some(Scalar(key))), Some(value)) = (entries.get("key"), entries.get("value"))
        {
            return Ok(vec![checked_pair(key.clone(), value.clone())?]);
        }
        entries.into_iter().map(|(key, value)| checked_pair(key, value)).collect()
    }
}

type Entries = BTreeMap<String, Option<Scalar>>;

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
        formatter.write_str(ENTRY_FORMS)
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
                    Err(A::Error::custom(format!("an object of {count} pairs is not {ENTRY_FORMS}")))
                }
            };
        };
        let value = entries.remove("value").flatten();
        match (key, entries.into_keys().next()) {
            (Some(Scalar(key)), None) => checked_pair(key, value),
            (None, _) => Err(A::Error::custom("key is null, expected a string")),
            (_, Some(other)) => Err(A::Error::unknown_field(&other, &["key", "value"])),
        }
    }
}

fn checked_pair<E: Error>(key: String, value: Option<Scalar>) -> Result<MetadataPair, E> {
    let value = value.map(|Scalar(text)| text);
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

/// A string, or a number or a boolean as its JSON text. Metadata is text.
#[derive(Clone)]
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            scalar @ (Value::Bool(_) | Value::Number(_)) => Ok(Self(scalar.to_string())),
            other => {
                let found = match other {
                    Value::Null => Unexpected::Unit,
                    Value::Array(_) => Unexpected::Seq,
                    _ => Unexpected::Map,
                };
                Err(D::Error::invalid_type(found, &"a string, a number or a boolean"))
            }
        }
    }
}

schemas! {
    /// Schema of [`target_metadata`].
    TargetMetadata => ObjectBuilder::new()
        .property_names(Some(Schema::from(string(1, LINE_MAX_CHARS))))
        .additional_properties(Some(Schema::from(scalar(1, METADATA_VALUE_MAX_CHARS, &[]))))
        .max_properties(Some(METADATA_MAX));
    /// Schema of [`type_metadata`].
    TypeMetadata => type_metadata_schema(scalar(1, TYPE_METADATA_MAX_BYTES, &[]), None);
    /// Schema of [`removed_metadata`]. A key alone, or with `null`, matches any value.
    RemovedMetadata => type_metadata_schema(
        scalar(0, TYPE_METADATA_MAX_BYTES, &[Type::Null]),
        Some(string(1, TYPE_METADATA_MAX_BYTES)),
    );
}

/// Schema of a [`Scalar`], or of another type.
fn scalar(min: usize, max: usize, others: &[Type]) -> ObjectBuilder {
    let types = [Type::String, Type::Number, Type::Boolean].into_iter().chain(others.iter().cloned());
    string(min, max).schema_type(SchemaType::from_iter(types))
}

fn type_metadata_schema(value: ObjectBuilder, lone_key: Option<ObjectBuilder>) -> OneOfBuilder {
    let value = Schema::from(value);
    let pairs = || ObjectBuilder::new().additional_properties(Some(value.clone()));
    let entry = OneOfBuilder::new().item(pairs().min_properties(Some(1)).max_properties(Some(2)));
    let entry = lone_key.into_iter().fold(entry, OneOfBuilder::item);
    OneOfBuilder::new()
        .item(ArrayBuilder::new().items(entry).max_items(Some(TYPE_METADATA_MAX)))
        .item(pairs().max_properties(Some(TYPE_METADATA_MAX)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::PartialSchema as _;

    use super::*;
    use crate::api::wire::NewTarget;

    #[test]
    fn schema_of_target_metadata_states_the_limits_that_the_decoder_enforces() {
        let value = |length: usize| json!({"metadata": {"a": "x".repeat(length)}});
        let decoded = |fields: Value| serde_json::from_value::<NewTarget>(fields).is_ok();
        assert_eq!(
            (decoded(value(METADATA_VALUE_MAX_CHARS)), decoded(value(METADATA_VALUE_MAX_CHARS + 1))),
            (true, false)
        );
        let schema = serde_json::to_value(TargetMetadata::schema()).expect("JSON");
        assert_eq!(schema["additionalProperties"]["maxLength"], json!(METADATA_VALUE_MAX_CHARS));
        assert_eq!(schema["maxProperties"], json!(METADATA_MAX));
    }

    #[test]
    fn schema_of_metadata_removal_has_lone_keys_and_null() {
        let removed = serde_json::to_value(RemovedMetadata::schema()).expect("JSON");
        let added = serde_json::to_value(TypeMetadata::schema()).expect("JSON");
        let forms = |schema: &Value| schema["oneOf"][0]["items"]["oneOf"].as_array().expect("forms").len();
        assert_eq!((forms(&removed), forms(&added)), (2, 1));
        assert_eq!(removed["oneOf"][0]["items"]["oneOf"][1]["type"], json!("string"));
        let value = |schema: &Value| schema["oneOf"][1]["additionalProperties"]["type"].clone();
        assert_eq!(
            (value(&removed), value(&added)),
            (json!(["string", "number", "boolean", "null"]), json!(["string", "number", "boolean"]))
        );
    }
}
