//! Target types on the wire, as the API guide has them.
//!
//! They have three forms. A target contains its types without their ids, the answer to a change lacks
//! `updated_at`, and a type that is listed or shown is complete.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::metadata::{self, MetadataEntry, MetadataPair};
use super::request;
use super::timestamp::timestamp;
use crate::model::{self, Caller};

/// A type of a target, within that target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EmbeddedType {
    /// Time of the creation.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub created_at: String,
    /// Time of the last change.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub updated_at: Option<String>,
    /// Version of the agent that created it.
    pub version: String,
    /// User who created it, if the request had a token with a user.
    pub user_id: Option<String>,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub is_public: bool,
    /// Whether backups that name no type use this one.
    pub is_default: bool,
}

/// A backup target type that was just changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedType {
    /// Id.
    #[schema(value_type = Uuid)]
    pub id: String,
    /// Id of its target.
    #[schema(value_type = Uuid)]
    pub backup_targets_id: String,
    /// Time of the creation.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub created_at: String,
    /// Version of the agent that created it.
    pub version: String,
    /// User who created it, if the request had a token with a user.
    pub user_id: Option<String>,
    /// Name, unique among all types.
    pub name: String,
    /// Whether backups that name no type use this one.
    pub is_default: bool,
    /// Description.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub is_public: bool,
    /// Projects that see it, oldest first. Empty when it is public. A member sees only its own project.
    pub backup_target_type_projects: Vec<TypeProject>,
    /// Metadata, ordered by key.
    pub backup_target_type_metadata: Vec<MetadataEntry>,
}

/// A backup target type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetType {
    /// Fields that the answer to a change also has.
    #[serde(flatten)]
    pub target_type: ChangedType,
    /// Time of the last change. At first it is the time of the creation.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub updated_at: String,
}

/// Assignment of a type to a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypeProject {
    /// Time of the assignment.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub created_at: String,
    /// Time of the last change of the assignment.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub updated_at: Option<String>,
    /// Version of the agent that assigned it.
    pub version: String,
    /// Id of the assignment.
    #[schema(value_type = Uuid)]
    pub id: String,
    /// Id of the type.
    #[schema(value_type = Uuid)]
    pub backup_target_types_id: String,
    /// Project: 32 hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    pub project_id: String,
}

/// One type. The plural key contains a single object, as in the guide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneType {
    /// The type.
    pub backup_target_types: TargetType,
}

/// The changed type. The plural key contains a single object, as in the guide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneChangedType {
    /// The type.
    pub backup_target_types: ChangedType,
}

/// A list of types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypeList {
    /// Types that the caller may see, oldest first.
    pub backup_target_types: Vec<TargetType>,
}

/// Body of a request that creates a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {
    "name": "gold",
    "backup_targets_id": "7faeff0a-3b5a-43fc-8f2a-3dd5b7fa4a8b",
    "project_list": ["fc439373e340459fb28202b2412e26c0"],
    "metadata": [{"key": "tier", "value": "1"}],
}}))]
#[serde(deny_unknown_fields)]
pub struct NewTypeBody {
    /// Fields of the new type.
    pub backup_target_type: NewType,
}

/// Fields of a new type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewType {
    /// Name, unique among all types.
    #[serde(deserialize_with = "request::type_name")]
    #[schema(value_type = request::Line)]
    pub name: String,
    /// Id of the target that it uses.
    #[serde(deserialize_with = "request::required_line")]
    #[schema(value_type = Uuid)]
    pub backup_targets_id: String,
    /// Description.
    #[serde(default, deserialize_with = "request::line", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub description: Option<String>,
    /// Whether it, and its target, become the default.
    #[serde(default, deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub is_default: Option<bool>,
    /// Whether every project sees it. When absent, a type without a `project_list` is public.
    #[serde(default, deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub is_public: Option<bool>,
    /// Projects that see it: 32 hexadecimal digits or UUIDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = request::ProjectIds)]
    pub project_list: Vec<String>,
    /// Metadata. Also accepted under the name `backup_target_type_metadata`.
    #[serde(
        default,
        alias = "backup_target_type_metadata",
        deserialize_with = "metadata::type_metadata",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(value_type = metadata::TypeMetadata)]
    pub metadata: Vec<MetadataEntry>,
}

/// Body of a request that changes a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {"description": "on flash", "purge_metadata": true}}))]
#[serde(deny_unknown_fields)]
pub struct TypeUpdateBody {
    /// Fields to change.
    pub backup_target_type: TypeUpdate,
}

/// Fields of a type that a client can change, and fixed ones, which it may only repeat. Absent fields stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TypeUpdate {
    /// Id of the type, which the path names too. Fixed.
    #[serde(deserialize_with = "request::line", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub backup_target_type_id: Option<String>,
    /// Id of the target that it uses. Fixed.
    #[serde(deserialize_with = "request::line", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub backup_targets_id: Option<String>,
    /// Name, unique among all types.
    #[serde(deserialize_with = "request::changed_type_name", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub name: Option<String>,
    /// Description. An empty string removes it.
    #[serde(deserialize_with = "request::clearable_line", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::ClearableLine>)]
    pub description: Option<String>,
    /// Whether it, and its target, become the default.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub is_default: Option<bool>,
    /// Whether every project sees it. A type that becomes public loses its projects.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub is_public: Option<bool>,
    /// Projects to add. Only these projects see a type that was public before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = request::ProjectIds)]
    pub project_list: Vec<String>,
    /// Whether to remove all its projects first. This alone does not make the type public.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub purge_projects: Option<bool>,
    /// Metadata to set. Other keys stay. Also accepted under the name `backup_target_type_metadata`.
    #[serde(
        alias = "backup_target_type_metadata",
        deserialize_with = "metadata::type_metadata",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(value_type = metadata::TypeMetadata)]
    pub metadata: Vec<MetadataEntry>,
    /// Whether to remove all other metadata.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub purge_metadata: Option<bool>,
}

/// Body of a request that adds projects to a type or removes them. The routes `add_projects` and `remove_projects` also
/// accept the list under the name of the route, as a field of `backup_target_type` or instead of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {"project_list": ["fc439373e340459fb28202b2412e26c0"]}}))]
#[serde(deny_unknown_fields)]
pub struct ProjectsBody {
    /// Fields of the request.
    pub backup_target_type: ProjectList,
}

/// Projects of a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectList {
    /// Id of the type, which the path names too.
    #[serde(default, deserialize_with = "request::line", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub backup_target_type_id: Option<String>,
    /// Projects: 32 hexadecimal digits or UUIDs.
    #[schema(value_type = request::ProjectIds)]
    pub project_list: Vec<String>,
}

/// Body of a request that adds metadata to a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {"metadata": [{"key": "tier", "value": "1"}]}}))]
#[serde(deny_unknown_fields)]
pub struct MetadataBody {
    /// Fields of the request.
    pub backup_target_type: MetadataList,
}

/// Metadata of a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataList {
    /// Id of the type, which the path names too.
    #[serde(default, deserialize_with = "request::line", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub backup_target_type_id: Option<String>,
    /// Metadata to set. Also accepted under the name `backup_target_type_metadata`.
    #[serde(alias = "backup_target_type_metadata", deserialize_with = "metadata::type_metadata")]
    #[schema(value_type = metadata::TypeMetadata)]
    pub metadata: Vec<MetadataEntry>,
}

/// Body of a request that removes metadata from a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target_type": {"metadata": ["tier"]}}))]
#[serde(deny_unknown_fields)]
pub struct MetadataRemovalBody {
    /// Fields of the request.
    pub backup_target_type: MetadataRemoval,
}

/// Metadata to remove from a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataRemoval {
    /// Id of the type, which the path names too.
    #[serde(default, deserialize_with = "request::line", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub backup_target_type_id: Option<String>,
    /// Keys, each with the value that it must have to be removed. A key alone, or with `null`, is removed with any
    /// value. Also accepted under the name `backup_target_type_metadata`.
    #[serde(alias = "backup_target_type_metadata", deserialize_with = "metadata::removed_metadata")]
    #[schema(value_type = metadata::RemovedMetadata)]
    pub metadata: Vec<MetadataPair>,
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
        let entry = |(key, value): (&String, &String)| MetadataEntry { key: key.clone(), value: value.clone() };
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
            backup_target_type_metadata: from.metadata.iter().map(entry).collect(),
        }
    }
}

impl TargetType {
    /// A type as a caller may see it: members of a project see the id of their own project only.
    #[must_use]
    pub fn seen_by(caller: &Caller, from: &model::TargetType) -> Self {
        let mut target_type = ChangedType::from(from);
        if !caller.is_admin {
            let own = caller.project();
            target_type
                .backup_target_type_projects
                .retain(|assigned| own.as_ref().is_some_and(|own| assigned.project_id == own.as_str()));
        }
        Self { target_type, updated_at: timestamp(from.updated_at.unwrap_or(from.created_at)) }
    }
}

impl From<&model::TargetType> for OneChangedType {
    fn from(from: &model::TargetType) -> Self {
        Self { backup_target_types: from.into() }
    }
}
