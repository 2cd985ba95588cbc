//! Adapters of request fields: how clients may write a value, and what the schema says about it.
//!
//! Clients send every key they know, so `null` means "not given", and for most fields an empty string does, too. Flags
//! are booleans, 0 or 1, or either in a string. Each limit is one constant, which the adapter enforces and the schema
//! states.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};

use crate::model::line::{LINE_MAX_CHARS, line_problem};
use crate::model::nfs_options::OPTIONS_MAX_BYTES;
use crate::model::secret_ref::SECRET_REF_MAX_BYTES;
use crate::model::target_type::{TYPE_PROJECTS_MAX, type_name_problem};
use crate::model::{MountMode, TargetKind};

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

/// Reads a string of one line. An empty one replaces the stored value.
pub(super) fn clearable_line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| if text.is_empty() { Ok(text) } else { checked(text, LINE_MAX_CHARS) }).transpose()
}

/// Reads the name of a target type.
pub(super) fn type_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
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

fn checked<E: Error>(text: String, max_chars: usize) -> Result<String, E> {
    line_problem(&text, max_chars).map_or(Ok(text), |problem| Err(E::custom(problem)))
}

/// Declares schemas of fields that an adapter reads: a name in the document, and the schema.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident => $schema:expr;)*) => {
        $(
            $(#[$doc])*
            pub enum $name {}

            impl utoipa::PartialSchema for $name {
                fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    $schema.into()
                }
            }

            impl utoipa::ToSchema for $name {}
        )*
    };
}

pub(super) use schemas;

schemas! {
    /// Schema of [`flag`].
    Flag => ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Boolean, Type::Integer, Type::String]))
        .enum_values(Some([json!(true), json!(false), json!(0), json!(1), json!("0"), json!("1"), json!("true"), json!("false")]));
    /// Schema of [`line()`] and [`type_name`].
    Line => string(1, LINE_MAX_CHARS);
    /// Schema of [`clearable_line`].
    ClearableLine => string(0, LINE_MAX_CHARS);
    /// Schema of the kind of a target.
    KindName => ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(kind_pattern()));
    /// Schema of mount options.
    MountOptions => string(0, OPTIONS_MAX_BYTES);
    /// Schema of the mode of an NFS target.
    MountModeName => ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(mode_pattern()));
    /// Schema of the URL of a secret.
    SecretUrl => string(0, SECRET_REF_MAX_BYTES);
    /// Schema of a list of project ids.
    ProjectIds => ArrayBuilder::new().items(string(32, 36)).max_items(Some(TYPE_PROJECTS_MAX));
}

/// Regular expression of the names of all kinds.
fn kind_pattern() -> String {
    let names: Vec<&str> = TargetKind::ALL.iter().map(|kind| kind.as_str()).collect();
    format!("^({})$", names.join("|"))
}

/// Regular expression of the names of all modes. An empty name removes a mode.
fn mode_pattern() -> String {
    let names: Vec<&str> = MountMode::ALL.iter().map(|mode| mode.as_str()).collect();
    format!("^({})?$", names.join("|"))
}

pub(super) fn string(min_chars: usize, max_chars: usize) -> ObjectBuilder {
    let string = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    string.min_length(Some(min_chars)).max_length(Some(max_chars))
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema as _;
    use utoipa::openapi::{RefOr, Schema};

    use super::*;
    use crate::api::wire::{NewTarget, NewType, TargetUpdate};

    #[test]
    fn schema_states_the_limits_that_the_decoder_enforces() {
        let name = |length: usize| json!({"btt_name": "x".repeat(length)});
        let decoded = |fields: Value| serde_json::from_value::<NewTarget>(fields).is_ok();
        assert_eq!((decoded(name(LINE_MAX_CHARS)), decoded(name(LINE_MAX_CHARS + 1))), (true, false));
        let schema = |schema: RefOr<Schema>| serde_json::to_value(schema).expect("JSON");
        assert_eq!(schema(Line::schema())["maxLength"], json!(LINE_MAX_CHARS));
        let kinds: Vec<_> = TargetKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(schema(KindName::schema())["pattern"], format!("^({})$", kinds.join("|")));
        assert_eq!(schema(MountOptions::schema())["maxLength"], json!(OPTIONS_MAX_BYTES));
        assert_eq!(schema(SecretUrl::schema())["maxLength"], json!(SECRET_REF_MAX_BYTES));
        let fields = [
            ("immutable", "Flag"),
            ("type", "KindName"),
            ("nfs_mount_opts", "MountOptions"),
            ("mount_mode", "MountModeName"),
            ("secret_ref", "SecretUrl"),
        ];
        for (field, name) in fields {
            for target in [NewTarget::schema(), TargetUpdate::schema()] {
                let property = schema(target)["properties"][field].to_string();
                assert!(property.contains(&format!("#/components/schemas/{name}")), "{property}");
            }
        }
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
