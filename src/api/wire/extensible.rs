//! Enums on the wire: closed for the agent that writes them, open for the client that reads them.
//!
//! A release may add a value that an older command line must still show. So a client reads [`Extensible`], which
//! keeps an unknown value as text. The schema lists the values of this release.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::model;

/// A set of values, each with a stable text.
pub trait Vocabulary: Copy + PartialEq + fmt::Debug + 'static {
    /// Name of the schema.
    const NAME: &'static str;
    /// Every value of this release.
    const ALL: &'static [Self];
    /// The stable text of a value.
    fn text(self) -> &'static str;
}

/// A value of a [`Vocabulary`], or the text of one that this release does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extensible<T> {
    /// A value of this release.
    Known(T),
    /// Text of a value that another release added.
    Unknown(String),
}

impl<T: Vocabulary> Extensible<T> {
    /// The text of the value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(value) => value.text(),
            Self::Unknown(text) => text,
        }
    }
}

/// Dereferences to the text, so that known and unknown values are shown in the same way.
impl<T: Vocabulary> Deref for Extensible<T> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<T: Vocabulary> From<T> for Extensible<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: Vocabulary> From<Cow<'_, str>> for Extensible<T> {
    fn from(text: Cow<'_, str>) -> Self {
        let known = T::ALL.iter().find(|value| value.text() == text);
        known.map_or_else(|| Self::Unknown(text.into_owned()), |value| Self::Known(*value))
    }
}

impl<T: Vocabulary> PartialEq<T> for Extensible<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(value) if value == other)
    }
}

impl<T: Vocabulary> fmt::Display for Extensible<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl<T: Vocabulary> Serialize for Extensible<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Vocabulary> Deserialize<'de> for Extensible<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Cow::<str>::deserialize(deserializer)?.into())
    }
}

impl<T: Vocabulary> PartialSchema for Extensible<T> {
    fn schema() -> RefOr<Schema> {
        let texts = T::ALL.iter().map(|value| value.text());
        ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).enum_values(Some(texts)).into()
    }
}

impl<T: Vocabulary> ToSchema for Extensible<T> {
    fn name() -> Cow<'static, str> {
        T::NAME.into()
    }
}

// Aliases, because for a generic type the schema derive would require a schema of its parameter.

/// Status of a target.
pub type Status = Extensible<model::Status>;
/// Outcome of a check.
pub type Outcome = Extensible<model::Outcome>;
/// Name of a check.
pub type CheckName = Extensible<model::CheckName>;
/// Reason code of a finding.
pub type Reason = Extensible<model::Reason>;
/// Severity of a finding.
pub type Severity = Extensible<model::report::Severity>;
/// How an NFS target is verified.
pub type MountMode = Extensible<model::MountMode>;
/// Kind of a target.
pub type TargetKind = Extensible<model::TargetKind>;
/// Whether the other nodes of a fleet see a node.
pub type NodePresence = Extensible<model::NodePresence>;
/// Verdict of one probe.
pub type ProbeVerdict = Extensible<model::report::ProbeVerdict>;
/// Verdict about an object lock.
pub type ProofVerdict = Extensible<model::report::ProofVerdict>;

macro_rules! vocabulary {
    ($($name:ident: $type:ty,)*) => {
        $(impl Vocabulary for $type {
            const NAME: &'static str = stringify!($name);
            const ALL: &'static [Self] = Self::ALL;

            fn text(self) -> &'static str {
                self.as_str()
            }
        })*
    };
}

vocabulary! {
    Status: model::Status,
    Verdict: model::report::ProbeVerdict,
    LockVerdict: model::report::ProofVerdict,
    Outcome: model::Outcome,
    CheckName: model::CheckName,
    Reason: model::Reason,
    Severity: model::report::Severity,
    MountMode: model::MountMode,
    TargetKind: model::TargetKind,
    NodePresence: model::NodePresence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_value_of_a_newer_agent_is_kept_as_text() {
        for (text, value) in [
            ("\"offline\"", Extensible::Known(model::Status::Offline)),
            ("\"degraded\"", Extensible::Unknown("degraded".to_owned())),
        ] {
            assert_eq!(serde_json::from_str::<Status>(text).expect(text), value);
            assert_eq!(serde_json::to_string(&value).expect(text), text);
        }
        assert!(serde_json::from_str::<Status>("7").is_err());
    }

    #[test]
    fn schema_lists_every_value() {
        let schema = serde_json::to_value(ProofVerdict::schema()).expect("JSON");
        let expected = ["pending", "enforced", "bypassable", "not_enforced", "unverifiable"];
        assert_eq!(schema, serde_json::json!({"type": "string", "enum": expected}));
    }
}
