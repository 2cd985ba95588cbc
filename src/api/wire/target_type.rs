//! Target types on the wire, as the API guide has them.
//!
//! It has them in three shapes: a target holds its types without an id, the answer to a change is
//! without `updated_at`, and whoever lists or shows a type gets all of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MetadataEntry, timestamp};
use crate::agent::View;
use crate::model::{self, Caller};

/// A type of a target, within that target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EmbeddedType {
    /// When it was created.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub created_at: String,
    /// When it was changed, if ever.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub updated_at: Option<String>,
    /// The version of the agent that created it.
    pub version: String,
    /// The user who created it, where authentication tells.
    pub user_id: Option<String>,
    /// Its name.
    pub name: String,
    /// What its creator says of it.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub is_public: bool,
    /// Whether it is used where no type is named.
    pub is_default: bool,
}

/// A backup target type that was just changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedType {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: String,
    /// The target that it uses.
    #[schema(value_type = Uuid)]
    pub backup_targets_id: String,
    /// When it was created.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub created_at: String,
    /// The version of the agent that created it.
    pub version: String,
    /// The user who created it, where authentication tells.
    pub user_id: Option<String>,
    /// Its name, unique among all types.
    pub name: String,
    /// Whether it is used where no type is named.
    pub is_default: bool,
    /// What its creator says of it.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub is_public: bool,
    /// The projects that see it, oldest first; none when it is public.
    pub backup_target_type_projects: Vec<TypeProject>,
    /// What was noted about it, by key.
    pub backup_target_type_metadata: Vec<MetadataEntry>,
}

/// A backup target type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetType {
    /// What the answer to a change has too.
    #[serde(flatten)]
    pub target_type: ChangedType,
    /// When it was last changed, which at first is when it was created.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub updated_at: String,
}

/// That a type is for a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypeProject {
    /// When it was assigned.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub created_at: String,
    /// When the assignment was changed, if ever.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub updated_at: Option<String>,
    /// The version of the agent that assigned it.
    pub version: String,
    /// The id of the assignment.
    #[schema(value_type = Uuid)]
    pub id: String,
    /// The type.
    #[schema(value_type = Uuid)]
    pub backup_target_types_id: String,
    /// The project: 32 hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    pub project_id: String,
}

/// One type: the plural key over a singular object, as the guide has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneType {
    /// The type.
    pub backup_target_types: TargetType,
}

/// The type that was changed, likewise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneChangedType {
    /// The type.
    pub backup_target_types: ChangedType,
}

/// Types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypeList {
    /// Those that the caller may see, oldest first.
    pub backup_target_types: Vec<TargetType>,
}

/// What creates a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {
    "name": "gold",
    "backup_targets_id": "7faeff0a-3b5a-43fc-8f2a-3dd5b7fa4a8b",
    "project_list": ["fc439373e340459fb28202b2412e26c0"],
    "metadata": [{"key": "tier", "value": "1"}],
}}))]
#[serde(deny_unknown_fields)]
pub struct NewTypeBody {
    /// The fields.
    pub backup_target_type: NewType,
}

/// The fields of a new type. Flags may also be 0 or 1, and metadata an object or objects of one pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewType {
    /// Its name, unique among all types.
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// The target that it uses.
    #[schema(value_type = Uuid)]
    pub backup_targets_id: String,
    /// What is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub description: Option<String>,
    /// Whether it, and its target, are to be the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// Whether every project sees it; if not given, it is public unless it has a `project_list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
    /// The projects that see it: 32 hexadecimal digits or UUIDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub project_list: Vec<String>,
    /// Notes; keys and values of 1 to 255 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub metadata: Vec<MetadataEntry>,
}

/// What changes a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {"description": "on flash", "purge_metadata": true}}))]
#[serde(deny_unknown_fields)]
pub struct TypeUpdateBody {
    /// The fields that are to be changed.
    pub backup_target_type: TypeUpdate,
}

/// The fields of a type that can be changed. What is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TypeUpdate {
    /// Its name, unique among all types.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub name: Option<String>,
    /// What is said of it; an empty text takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub description: Option<String>,
    /// Whether to make it, and its target, the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// Whether every project sees it. One that becomes public is no project's any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
    /// Projects to give it to, beside those that have it. A public type becomes theirs alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub project_list: Vec<String>,
    /// Whether to take it from all its projects first. It does not become public by that alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge_projects: Option<bool>,
    /// Notes to set; those with other keys stay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub metadata: Vec<MetadataEntry>,
    /// Whether all other notes are to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge_metadata: Option<bool>,
}

/// What gives a type to projects, or takes it from them. `{"add_projects": […]}` and
/// `{"remove_projects": […]}` are understood too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {"project_list": ["fc439373e340459fb28202b2412e26c0"]}}))]
#[serde(deny_unknown_fields)]
pub struct ProjectsBody {
    /// The fields.
    pub backup_target_type: ProjectList,
}

/// Projects of a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectList {
    /// The type, which the path names too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_target_type_id: Option<String>,
    /// The projects: 32 hexadecimal digits or UUIDs.
    pub project_list: Vec<String>,
}

/// What adds notes to a type, or removes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {"metadata": [{"key": "tier", "value": "1"}]}}))]
#[serde(deny_unknown_fields)]
pub struct MetadataBody {
    /// The fields.
    pub backup_target_type: MetadataList,
}

/// Notes of a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataList {
    /// The type, which the path names too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_target_type_id: Option<String>,
    /// The notes. To remove one whatever its value is, leave its value out.
    pub metadata: Vec<MetadataPair>,
}

/// A key, and a value where one is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataPair {
    /// Its key.
    #[schema(min_length = 1, max_length = 255)]
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub value: Option<String>,
}

impl From<&model::TargetType> for EmbeddedType {
    fn from(from: &model::TargetType) -> Self {
        Self {
            created_at: timestamp(from.created_at),
            updated_at: from.updated_at.map(timestamp),
            version: from.version.clone(),
            user_id: from.user_id.clone(),
            name: from.name.clone(),
            description: from.description.clone(),
            is_public: from.is_public,
            is_default: from.is_default,
        }
    }
}

impl From<&model::TargetType> for ChangedType {
    fn from(from: &model::TargetType) -> Self {
        let project = |assigned: &model::TypeProject| TypeProject {
            created_at: timestamp(assigned.created_at),
            updated_at: assigned.updated_at.map(timestamp),
            version: assigned.version.clone(),
            id: assigned.id.to_string(),
            backup_target_types_id: from.id.to_string(),
            project_id: assigned.project_id.to_string(),
        };
        let note = |(key, value): (&String, &String)| MetadataEntry { key: key.clone(), value: value.clone() };
        Self {
            id: from.id.to_string(),
            backup_targets_id: from.target_id.to_string(),
            created_at: timestamp(from.created_at),
            version: from.version.clone(),
            user_id: from.user_id.clone(),
            name: from.name.clone(),
            is_default: from.is_default,
            description: from.description.clone(),
            is_public: from.is_public,
            backup_target_type_projects: from.projects.iter().map(project).collect(),
            backup_target_type_metadata: from.metadata.iter().map(note).collect(),
        }
    }
}

impl From<&model::TargetType> for TargetType {
    fn from(from: &model::TargetType) -> Self {
        Self { target_type: from.into(), updated_at: timestamp(from.updated_at.unwrap_or(from.created_at)) }
    }
}

impl From<&model::TargetType> for OneType {
    fn from(from: &model::TargetType) -> Self {
        Self { backup_target_types: from.into() }
    }
}

impl From<&model::TargetType> for OneChangedType {
    fn from(from: &model::TargetType) -> Self {
        Self { backup_target_types: from.into() }
    }
}

impl TypeList {
    /// The types that a caller may see.
    #[must_use]
    pub fn seen_by(caller: &Caller, view: &View) -> Self {
        let types = view.target_types();
        let visible = types.into_iter().filter(|found| caller.may_see(found));
        Self { backup_target_types: visible.map(TargetType::from).collect() }
    }
}
