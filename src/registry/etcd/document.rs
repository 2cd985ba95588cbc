//! Targets and types as JSON. Fields that this version does not know are kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::project::NotAProjectId;
use crate::model::{
    MountName, NodeScope, SpecFields, Target, TargetId, TargetSpec, TargetType, TargetTypeId, TypeProject,
};

#[derive(Serialize, Deserialize)]
struct TargetDocument {
    id: TargetId,
    spec: SpecFields,
    mount_name: String,
    is_default: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    version: String,
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<NodeScope>,
}

#[derive(Serialize, Deserialize)]
struct TypeDocument {
    id: TargetTypeId,
    target_id: TargetId,
    name: String,
    description: Option<String>,
    is_public: bool,
    is_default: bool,
    user_id: Option<String>,
    created_at: Timestamp,
    updated_at: Option<Timestamp>,
    version: String,
    projects: Vec<ProjectDocument>,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct ProjectDocument {
    id: Uuid,
    project_id: String,
    created_at: Timestamp,
    updated_at: Option<Timestamp>,
    version: String,
}

impl From<&Target> for TargetDocument {
    fn from(target: &Target) -> Self {
        Self {
            id: target.id,
            spec: target.spec.to_fields(),
            mount_name: target.mount_name.to_string(),
            is_default: target.is_default,
            created_at: target.created_at,
            updated_at: target.updated_at,
            version: target.version.clone(),
            metadata: target.metadata.clone(),
            scope: target.scope.clone(),
        }
    }
}

impl From<&TargetType> for TypeDocument {
    fn from(from: &TargetType) -> Self {
        let project = |project: &TypeProject| ProjectDocument {
            id: project.id,
            project_id: project.project_id.to_string(),
            created_at: project.created_at,
            updated_at: project.updated_at,
            version: project.version.clone(),
        };
        Self {
            id: from.id,
            target_id: from.target_id,
            name: from.name.clone(),
            description: from.description.clone(),
            is_public: from.is_public,
            is_default: from.is_default,
            user_id: from.user_id.clone(),
            created_at: from.created_at,
            updated_at: from.updated_at,
            version: from.version.clone(),
            projects: from.projects.iter().map(project).collect(),
            metadata: from.metadata.clone(),
        }
    }
}

/// Parses a target.
///
/// # Errors
/// Problem, when it is not valid.
pub(super) fn decode_target(value: &[u8]) -> Result<Target, String> {
    let document: TargetDocument = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok(Target {
        id: document.id,
        spec: TargetSpec::from_fields(&document.spec).map_err(|error| error.to_string())?,
        mount_name: MountName::from_stored(&document.mount_name).map_err(|error| error.to_string())?,
        is_default: document.is_default,
        created_at: document.created_at,
        updated_at: document.updated_at,
        version: document.version,
        metadata: document.metadata,
        scope: document.scope,
    })
}

/// Parses a type.
///
/// # Errors
/// Problem, when it is not valid.
pub(super) fn decode_type(value: &[u8]) -> Result<TargetType, String> {
    let document: TypeDocument = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let project = |project: ProjectDocument| {
        Ok(TypeProject {
            id: project.id,
            project_id: project.project_id.parse().map_err(|error: NotAProjectId| error.to_string())?,
            created_at: project.created_at,
            updated_at: project.updated_at,
            version: project.version,
        })
    };
    Ok(TargetType {
        id: document.id,
        target_id: document.target_id,
        name: document.name,
        description: document.description,
        is_public: document.is_public,
        is_default: document.is_default,
        user_id: document.user_id,
        created_at: document.created_at,
        updated_at: document.updated_at,
        version: document.version,
        projects: document.projects.into_iter().map(project).collect::<Result<_, String>>()?,
        metadata: document.metadata,
    })
}

/// Returns the document of a target. It replaces `old`, whose unknown fields it keeps.
pub(super) fn encode_target(target: &Target, old: Option<&Bytes>) -> String {
    rewritten::<TargetDocument>(&target.into(), old)
}

/// Returns the document of a type. It replaces `old`, whose unknown fields it keeps.
pub(super) fn encode_type(from: &TargetType, old: Option<&Bytes>) -> String {
    rewritten::<TypeDocument>(&from.into(), old)
}

fn object(document: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(document) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

fn rewritten<T: Serialize + for<'de> Deserialize<'de>>(new: &T, old: Option<&Bytes>) -> String {
    let mut new = object(new);
    let parsed = old.and_then(|old| Some((serde_json::from_slice(old).ok()?, serde_json::from_slice::<T>(old).ok()?)));
    if let Some((old, known)) = parsed {
        keep_unknown(&mut new, old, &object(&known));
    }
    Value::Object(new).to_string()
}

/// Adds the fields of `old` that are not in `known`, which is what this version reads of it.
fn keep_unknown(new: &mut Map<String, Value>, old: Map<String, Value>, known: &Map<String, Value>) {
    for (name, value) in old {
        match (known.get(&name), new.get_mut(&name), value) {
            (None, None, value) => new.extend([(name, value)]),
            // All keys of the metadata are known.
            (Some(Value::Object(known)), Some(Value::Object(new)), Value::Object(old)) => keep_unknown(new, old, known),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fixtures::{new_type, nfs, project, s3, scope};

    #[test]
    fn documents_survive_and_unknown_fields_are_kept() {
        for (mut target, first_type) in [nfs("nas:/a"), s3("https://s3.example/bucket")] {
            let document = encode_target(&target, None);
            assert_eq!(decode_target(document.as_bytes()), Ok(target.clone()));
            let mut later: Value = serde_json::from_str(&document).expect("JSON");
            later["of_a_later_release"] = "all".into();
            later["spec"]["later"] = 1.into();
            target.metadata.clear();
            let rewritten = encode_target(&target, Some(&later.to_string().into()));
            assert_eq!(decode_target(rewritten.as_bytes()), Ok(target.clone()), "metadata that was removed stays so");
            let rewritten: Value = serde_json::from_str(&rewritten).expect("JSON");
            assert_eq!((&rewritten["of_a_later_release"], &rewritten["spec"]["later"]), (&"all".into(), &1.into()));

            let mut with_projects = TargetType { is_public: false, ..new_type(target.id, "weekly") };
            with_projects.projects = vec![project(1), project(2)];
            for expected in [first_type, with_projects] {
                assert_eq!(decode_type(encode_type(&expected, None).as_bytes()), Ok(expected));
            }
        }
    }

    #[test]
    fn scope_is_replaced_and_its_unknown_fields_are_kept() {
        let mut target = Target { scope: Some(scope(&["a"], &[("rack", "1")])), ..nfs("nas:/a").0 };
        let mut later: Value = serde_json::from_str(&encode_target(&target, None)).expect("JSON");
        later["scope"]["zones"] = 1.into();
        let later = Bytes::from(later.to_string());
        target.scope = Some(scope(&["b"], &[("room", "2")]));
        let rewritten = encode_target(&target, Some(&later));
        assert_eq!(decode_target(rewritten.as_bytes()), Ok(target.clone()));
        let rewritten: Value = serde_json::from_str(&rewritten).expect("JSON");
        assert_eq!(rewritten["scope"]["zones"], 1);
        target.scope = None;
        let rewritten: Value = serde_json::from_str(&encode_target(&target, Some(&later))).expect("JSON");
        assert_eq!(rewritten["scope"], Value::Null, "all nodes");
    }

    #[test]
    fn rewrite_of_an_older_agent_keeps_the_scope() {
        /// The fields of a target that an agent without scopes knows.
        #[derive(Serialize, Deserialize)]
        struct OlderDocument {
            id: TargetId,
            is_default: bool,
        }
        let target = Target { scope: Some(scope(&["a"], &[])), ..nfs("nas:/a").0 };
        let stored = Bytes::from(encode_target(&target, None));
        let older = rewritten::<OlderDocument>(&OlderDocument { id: target.id, is_default: true }, Some(&stored));
        assert_eq!(decode_target(older.as_bytes()), Ok(Target { is_default: true, ..target }));
    }
}
