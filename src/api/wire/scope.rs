//! Scopes on the wire: the nodes on which a target is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};

use super::request::{schemas, string};
use crate::model::node_scope::{LABEL_MAX_BYTES, NODE_NAME_MAX_BYTES, SCOPE_ENTRIES_MAX};
use crate::model::{LabeledNode, NodeScope};

/// The scope of a target that is expected on all nodes.
const ALL: &str = "all";

/// New scope of a target in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeRequest {
    /// All nodes.
    All,
    /// These nodes.
    Only(NodeScope),
}

impl From<ScopeRequest> for Option<NodeScope> {
    fn from(request: ScopeRequest) -> Self {
        match request {
            ScopeRequest::All => None,
            ScopeRequest::Only(scope) => Some(scope),
        }
    }
}

impl Serialize for ScopeRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str(ALL),
            Self::Only(scope) => scope.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ScopeRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScopeVisitor)
    }
}

struct ScopeVisitor;

/// The fields of a scope. A misspelt one must not widen the scope.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScopeFields {
    nodes: BTreeSet<String>,
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl<'de> Visitor<'de> for ScopeVisitor {
    type Value = ScopeRequest;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("\"all\" or an object of nodes and labels")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ScopeRequest, E> {
        match text {
            ALL => Ok(ScopeRequest::All),
            _ => Err(E::custom(format!("{text:?} is not a scope, expected \"all\" or an object of nodes and labels"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ScopeRequest, A::Error> {
        let ScopeFields { nodes, labels } = ScopeFields::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ScopeRequest::Only(NodeScope { nodes, labels }))
    }
}

/// A node of a fleet, as the scopes of targets name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetNode {
    /// Name of the node.
    pub node: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl From<&LabeledNode> for FleetNode {
    fn from(LabeledNode { name, labels }: &LabeledNode) -> Self {
        Self { node: name.clone(), labels: labels.clone() }
    }
}

impl From<FleetNode> for LabeledNode {
    fn from(FleetNode { node, labels }: FleetNode) -> Self {
        Self { name: node, labels }
    }
}

schemas! {
    /// Schema of [`NodeScope`].
    ScopeObject => scope_object();
    /// Schema of [`ScopeRequest`].
    ScopeValue => OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).enum_values(Some([ALL])))
        .item(scope_object().min_properties(Some(1)));
}

fn scope_object() -> ObjectBuilder {
    let list = |item: ObjectBuilder| ArrayBuilder::new().items(item).max_items(Some(SCOPE_ENTRIES_MAX));
    let values = list(string(1, LABEL_MAX_BYTES).pattern(Some("^[A-Za-z0-9_./-]+$"))).min_items(Some(1));
    let labels = ObjectBuilder::new()
        .property_names(Some(Schema::from(string(1, LABEL_MAX_BYTES).pattern(Some("^[A-Za-z0-9_./-]+$")))))
        .additional_properties(Some(Schema::from(values)));
    ObjectBuilder::new()
        .property("nodes", list(string(1, NODE_NAME_MAX_BYTES).pattern(Some("^[A-Za-z0-9_.-]+$"))))
        .property("labels", labels)
}
