//! Targets on the wire, as the API guide has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Report, timestamp};
use crate::agent::{TargetView, View};
use crate::model;
use crate::model::capacity::format_bytes;
use crate::model::report::LockProofState;
use crate::model::{LockVerdict, TargetSpec, target::RESERVED_METADATA_KEYS};

/// A backup target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// `nfs` or `s3`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was created.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// The version of the agent that created it.
    pub version: String,
    /// `host:/path`, or `host[:port]/bucket`.
    pub filesystem_export: String,
    /// Where it is or would be mounted.
    pub filesystem_export_mount_path: String,
    /// `filesystem_export`, as earlier releases call it.
    pub nfs_export: String,
    /// `filesystem_export_mount_path`, as earlier releases call it.
    pub nfs_export_mount_path: String,
    /// Whether backups go here unless told otherwise.
    pub is_default: bool,
    /// Its size in 1024 steps, such as `2.4 TB`; `null` while or where it is not known.
    pub capacity: Option<String>,
    /// How much of it is used, likewise.
    pub used: Option<String>,
    /// `available` or `offline`.
    pub status: String,
    /// Its types, oldest first.
    pub backup_target_types: Vec<TargetType>,
    /// What its creator noted, and what the agent knows about a bucket: `bucket`, `immutable` (as
    /// declared), `object_lock` (1 as verified) and, of an immutable target, `object_lock_verdict`
    /// (what the proof found: `enforced`, `bypassable`, `not_enforced`, `unverifiable` or `pending`).
    pub backup_target_metadata: Vec<MetadataEntry>,
}

/// A type of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetType {
    /// When it was created.
    pub created_at: String,
    /// When it was changed, if ever.
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

/// One note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MetadataEntry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// One target: the plural key over a singular object, as the guide has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneTarget {
    /// The target.
    pub backup_targets: Target,
}

/// Targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetList {
    /// Oldest first.
    pub backup_targets: Vec<Target>,
}

/// A target with its latest report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetDetail {
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// The same as at `/backup_targets/{id}/checks`.
    pub report: Report,
}

/// Targets with their latest reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetDetailList {
    /// Oldest first.
    pub backup_targets: Vec<TargetDetail>,
}

/// What creates or changes a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewTargetBody {
    /// The fields; on a change, those to be changed.
    pub backup_target: NewTarget,
}

/// The fields of a new target. Flags may also be 0 or 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NewTarget {
    /// `nfs` or `s3`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `host:/path`, of an NFS target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_export: Option<String>,
    /// Where the S3 service is; AWS without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_endpoint_url: Option<String>,
    /// The bucket of an S3 target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_bucket: Option<String>,
    /// Whether it is to be the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// The name of its first type; the export if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub btt_name: Option<String>,
    /// Whether nobody with these keys can delete its backups: the bucket must have object lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Notes, texts under keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// On a change: whether all other notes are to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge_metadata: Option<bool>,
}

impl From<&TargetView> for Target {
    fn from(view: &TargetView) -> Self {
        let TargetView { target, types, mount_path, status, report } = view;
        let export = target.spec.export();
        let mount_path = mount_path.display().to_string();
        // Old figures beside "offline" would say that they were measured when they were not.
        let capacity = report.as_ref().and_then(|report| report.capacity);
        Self {
            id: target.id.to_string(),
            kind: target.spec.kind().as_str().to_owned(),
            created_at: timestamp(target.created_at),
            updated_at: timestamp(target.updated_at),
            version: target.version.clone(),
            filesystem_export: export.clone(),
            filesystem_export_mount_path: mount_path.clone(),
            nfs_export: export,
            nfs_export_mount_path: mount_path,
            is_default: target.is_default,
            capacity: capacity.and_then(|capacity| capacity.capacity_bytes).map(format_bytes),
            used: capacity.and_then(|capacity| capacity.used_bytes).map(format_bytes),
            status: status.status.as_str().to_owned(),
            backup_target_types: types.iter().map(TargetType::from).collect(),
            backup_target_metadata: metadata(view),
        }
    }
}

fn metadata(view: &TargetView) -> Vec<MetadataEntry> {
    let mut metadata = view.target.metadata.clone();
    metadata.retain(|key, _| !RESERVED_METADATA_KEYS.contains(&key.as_str()));
    let flag = |set: bool| u8::from(set).to_string();
    if let TargetSpec::S3 { location, immutable } = &view.target.spec {
        metadata.insert("bucket".to_owned(), location.bucket().to_owned());
        metadata.insert("immutable".to_owned(), flag(*immutable));
        let facts = view.report.as_ref().and_then(|report| report.bucket.as_ref());
        if let Some((facts, configured)) = facts.and_then(|facts| facts.object_lock.map(|lock| (facts, lock))) {
            let (verified, verdict) = match &facts.lock_proof {
                LockProofState::NotAsked => (configured, None),
                LockProofState::Pending => (false, Some("pending")),
                LockProofState::Found(proof) => (
                    matches!(proof.verdict, LockVerdict::Enforced | LockVerdict::Bypassable),
                    Some(proof.verdict.as_str()),
                ),
            };
            metadata.insert("object_lock".to_owned(), flag(verified));
            if let Some(verdict) = verdict {
                metadata.insert("object_lock_verdict".to_owned(), verdict.to_owned());
            }
        }
    }
    metadata.into_iter().map(|(key, value)| MetadataEntry { key, value }).collect()
}

impl From<&model::TargetType> for TargetType {
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

impl From<&TargetView> for OneTarget {
    fn from(view: &TargetView) -> Self {
        Self { backup_targets: Target::from(view) }
    }
}

impl From<&View> for TargetList {
    fn from(view: &View) -> Self {
        Self { backup_targets: view.targets.iter().map(|target| Target::from(&**target)).collect() }
    }
}

impl From<&View> for TargetDetailList {
    fn from(view: &View) -> Self {
        let detail = |target: &TargetView| TargetDetail { target: target.into(), report: target.into() };
        Self { backup_targets: view.targets.iter().map(|target| detail(target)).collect() }
    }
}
