//! Targets on the wire, in the form of the API guide.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extensible::{MountMode, Status, TargetKind};
use super::metadata::{self, MetadataEntry};
use super::report::Report;
use super::request;
use super::scope::{ScopeObject, ScopeRequest, ScopeValue};
use super::target_type::EmbeddedType;
use super::timestamp::timestamp;
use crate::agent::{TargetView, View};
use crate::model::capacity::format_bytes;
use crate::model::report::{BucketFacts, ProofVerdict};
use crate::model::{Caller, NodeScope, S3Target, SpecFields, TargetSpec, target::RESERVED_METADATA_KEYS};

/// A backup target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Id.
    #[schema(value_type = Uuid)]
    pub id: String,
    /// Kind of the target.
    #[serde(rename = "type")]
    pub kind: TargetKind,
    /// Time of the creation.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub created_at: String,
    /// Time of the last change.
    #[schema(pattern = "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}$")]
    pub updated_at: String,
    /// Version of the agent that created the target.
    pub version: String,
    /// `host:/path`, or `host[:port]/bucket`.
    pub filesystem_export: String,
    /// Path at which the target is mounted, or would be.
    pub filesystem_export_mount_path: String,
    /// `filesystem_export` under its earlier name.
    pub nfs_export: String,
    /// `filesystem_export_mount_path` under its earlier name.
    pub nfs_export_mount_path: String,
    /// URL of the S3 service. `null` for AWS and for NFS.
    pub s3_endpoint_url: Option<String>,
    /// Bucket of an S3 target. `null` for NFS.
    pub s3_bucket: Option<String>,
    /// Mount options of an NFS target. `null` if it uses those of the configuration, and for S3.
    pub nfs_mount_opts: Option<String>,
    /// How an NFS target is verified: `kernel`, `observe` or `none`. `null` if it is verified as the configuration
    /// says, and for S3.
    #[serde(default)]
    pub mount_mode: Option<MountMode>,
    /// URL of the secret that contains the credentials of an S3 target, as a client gave it. `null` for NFS.
    pub secret_ref: Option<String>,
    /// The nodes on which the target is expected: those that `nodes` names, and those with one of the values of
    /// `labels`. `null` for all nodes.
    #[serde(default)]
    #[schema(value_type = Option<ScopeObject>)]
    pub scope: Option<NodeScope>,
    /// Whether this is the default target.
    pub is_default: bool,
    /// Size in units of 1024, such as `2.4 TB`. `null` if it is not known.
    #[schema(pattern = "^\\d+(\\.\\d)? [KMGTPE]?B$")]
    pub capacity: Option<String>,
    /// Used space, in the same form.
    #[schema(pattern = "^\\d+(\\.\\d)? [KMGTPE]?B$")]
    pub used: Option<String>,
    /// Whether backups can be written to the target from this node.
    pub status: Status,
    /// Types of the target that the caller may see, oldest first.
    pub backup_target_types: Vec<EmbeddedType>,
    /// Metadata of the client. For a bucket the agent adds `bucket`, `immutable` (as declared), `object_lock` (1 if
    /// verified) and, for an immutable target, `object_lock_verdict` (`enforced`, `bypassable`, `not_enforced`,
    /// `unverifiable` or `pending`).
    pub backup_target_metadata: Vec<MetadataEntry>,
}

/// One target. The plural key contains a single object, as in the guide.
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
    /// Report, as at `/backup_targets/{id}/checks`.
    pub report: Report,
}

/// Targets with their latest reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetDetailList {
    /// Oldest first.
    pub backup_targets: Vec<TargetDetail>,
}

/// Body of a request that creates a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target": {
    "type": "nfs",
    "filesystem_export": "192.168.1.34:/mnt/tvault/162",
    "btt_name": "nightly",
    "metadata": {"rack": "12"},
}}))]
#[serde(deny_unknown_fields)]
pub struct NewTargetBody {
    /// Fields of the new target.
    pub backup_target: NewTarget,
}

/// Fields of a new target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewTarget {
    /// `nfs` or `s3`.
    #[serde(rename = "type", deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::KindName>)]
    pub kind: Option<String>,
    /// Export of an NFS target, `host:/path`.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub filesystem_export: Option<String>,
    /// `filesystem_export` under its earlier name.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub nfs_export: Option<String>,
    /// URL of the S3 service. When absent, the service is AWS.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub s3_endpoint_url: Option<String>,
    /// Bucket of an S3 target.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub s3_bucket: Option<String>,
    /// Mount options of an NFS target, as in nfs(5). When absent, those of the configuration apply.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::MountOptions>)]
    pub nfs_mount_opts: Option<String>,
    /// How an NFS target is verified. When absent, as the configuration says.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::MountModeName>)]
    pub mount_mode: Option<String>,
    /// URL of the secret that contains the credentials of an S3 target. The agent reads it if `[key_manager]` is
    /// enabled.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::SecretUrl>)]
    pub secret_ref: Option<String>,
    /// Whether to make it the default target. When absent, it becomes the default if there is none.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub is_default: Option<bool>,
    /// Name of the first target type. Defaults to `name`, and then to the export.
    #[serde(deserialize_with = "request::optional_type_name", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub btt_name: Option<String>,
    /// `btt_name`, under the name that clients of later releases use.
    #[serde(deserialize_with = "request::optional_type_name", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub name: Option<String>,
    /// Whether it is declared immutable: these credentials must not be able to delete its backups.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub immutable: Option<bool>,
    /// The nodes on which it is expected: names of nodes and values of labels. When absent, all nodes. Needs a registry
    /// that the nodes share.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ScopeValue>)]
    pub scope: Option<ScopeRequest>,
    /// Metadata.
    #[serde(deserialize_with = "metadata::target_metadata", skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = metadata::TargetMetadata)]
    pub metadata: BTreeMap<String, String>,
}

/// Body of a request that changes a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"backup_target": {"metadata": {"rack": "12"}, "purge_metadata": true}}))]
#[serde(deny_unknown_fields)]
pub struct TargetUpdateBody {
    /// Fields to change.
    pub backup_target: TargetUpdate,
}

/// Fields of a target that a client can change, and fixed ones, which it may only repeat. Absent fields stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TargetUpdate {
    /// Kind of the target. Fixed.
    #[serde(rename = "type", deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::KindName>)]
    pub kind: Option<String>,
    /// Export of the target. Fixed.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub filesystem_export: Option<String>,
    /// `filesystem_export` under its earlier name. Fixed.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub nfs_export: Option<String>,
    /// URL of the S3 service. Only its scheme can change.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub s3_endpoint_url: Option<String>,
    /// Bucket of an S3 target. Fixed.
    #[serde(deserialize_with = "request::text", skip_serializing_if = "Option::is_none")]
    pub s3_bucket: Option<String>,
    /// Mount options of an NFS target. The next mount uses them. An empty string removes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::MountOptions>)]
    pub nfs_mount_opts: Option<String>,
    /// How an NFS target is verified. An empty string removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::MountModeName>)]
    pub mount_mode: Option<String>,
    /// URL of the secret that contains the credentials of an S3 target. An empty string removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::SecretUrl>)]
    pub secret_ref: Option<String>,
    /// New name of its first target type.
    #[serde(deserialize_with = "request::optional_type_name", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Line>)]
    pub name: Option<String>,
    /// Whether to make it the default target.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub is_default: Option<bool>,
    /// Whether it is declared immutable.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub immutable: Option<bool>,
    /// The nodes on which it is expected, which replace the former ones. `"all"` for all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ScopeValue>)]
    pub scope: Option<ScopeRequest>,
    /// Metadata to set. Other keys stay.
    #[serde(deserialize_with = "metadata::target_metadata", skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = metadata::TargetMetadata)]
    pub metadata: BTreeMap<String, String>,
    /// Whether to remove all other metadata.
    #[serde(deserialize_with = "request::flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<request::Flag>)]
    pub purge_metadata: Option<bool>,
}

/// Implements `spec` for a request whose storage has the fields of [`SpecFields`].
macro_rules! storage_fields {
    ($($request:ty),*) => {
        $(impl $request {
            /// Returns the fields of the storage.
            pub(in crate::api) fn spec(&self) -> SpecFields {
                SpecFields {
                    kind: self.kind.clone(),
                    filesystem_export: self.filesystem_export.clone().or_else(|| self.nfs_export.clone()),
                    s3_endpoint_url: self.s3_endpoint_url.clone(),
                    s3_bucket: self.s3_bucket.clone(),
                    immutable: self.immutable,
                    nfs_mount_opts: self.nfs_mount_opts.clone(),
                    mount_mode: self.mount_mode.clone(),
                    secret_ref: self.secret_ref.clone(),
                }
            }
        })*
    };
}

storage_fields!(NewTarget, TargetUpdate);

impl Target {
    /// A target as a caller may see it.
    #[must_use]
    pub fn seen_by(caller: &Caller, view: &TargetView) -> Self {
        let TargetView { target, types, mount_path, status, report, .. } = view;
        let export = target.spec.export();
        let mount_path = mount_path.display().to_string();
        // Old figures beside "offline" would say that they were measured when they were not.
        let capacity = report.as_ref().and_then(|report| report.capacity);
        // Names every field, so that a new one is shown or left out deliberately.
        let SpecFields {
            kind: _,
            filesystem_export: _,
            s3_endpoint_url,
            s3_bucket,
            immutable: _,
            nfs_mount_opts,
            mount_mode: _,
            secret_ref,
        } = target.spec.to_fields();
        Self {
            id: target.id.to_string(),
            kind: target.spec.kind().into(),
            created_at: timestamp(target.created_at),
            updated_at: timestamp(target.updated_at),
            version: target.version.clone(),
            filesystem_export: export.clone(),
            filesystem_export_mount_path: mount_path.clone(),
            nfs_export: export,
            nfs_export_mount_path: mount_path,
            s3_endpoint_url,
            s3_bucket,
            nfs_mount_opts,
            mount_mode: target.spec.mount_mode().map(MountMode::from),
            secret_ref,
            scope: target.scope.clone(),
            is_default: target.is_default,
            capacity: capacity.and_then(|capacity| capacity.capacity_bytes).map(format_bytes),
            used: capacity.and_then(|capacity| capacity.used_bytes).map(format_bytes),
            status: status.status.into(),
            backup_target_types: types
                .iter()
                .map(|found| &**found)
                .filter(|found| caller.may_see(found))
                .map(EmbeddedType::from)
                .collect(),
            backup_target_metadata: shown_metadata(view),
        }
    }
}

fn shown_metadata(view: &TargetView) -> Vec<MetadataEntry> {
    let mut metadata = view.target.metadata.clone();
    metadata.retain(|key, _| !RESERVED_METADATA_KEYS.contains(&key.as_str()));
    match &view.target.spec {
        TargetSpec::Nfs(_) => {}
        TargetSpec::S3(bucket) => {
            let facts = view.report.as_ref().and_then(|report| report.facts.as_ref()?.bucket());
            metadata.extend(bucket_metadata(bucket, facts).map(|(key, value)| (key.to_owned(), value)));
        }
    }
    metadata.into_iter().map(|(key, value)| MetadataEntry { key, value }).collect()
}

/// Returns what the agent adds to the metadata of a bucket.
fn bucket_metadata(bucket: &S3Target, facts: Option<&BucketFacts>) -> impl Iterator<Item = (&'static str, String)> {
    let flag = |set: bool| u8::from(set).to_string();
    let verdict = facts.and_then(|facts| facts.lock_proof.verdict());
    // A proof counts even if the configuration could not be read this time.
    let verified = match verdict {
        None => facts.and_then(|facts| facts.object_lock),
        Some(verdict) => Some(matches!(verdict, ProofVerdict::Enforced | ProofVerdict::Bypassable)),
    };
    let entries = [
        ("bucket", Some(bucket.location.bucket().to_owned())),
        ("immutable", Some(flag(bucket.immutable))),
        ("object_lock", verified.map(flag)),
        ("object_lock_verdict", verdict.map(|verdict| verdict.to_string())),
    ];
    entries.into_iter().filter_map(|(key, value)| Some((key, value?)))
}

impl OneTarget {
    /// A target as a caller may see it.
    #[must_use]
    pub fn seen_by(caller: &Caller, view: &TargetView) -> Self {
        Self { backup_targets: Target::seen_by(caller, view) }
    }
}

impl TargetDetail {
    /// A target as a caller may see it, with its report.
    #[must_use]
    pub fn seen_by(caller: &Caller, view: &TargetView) -> Self {
        Self { target: Target::seen_by(caller, view), report: Report::from(view) }
    }
}

impl TargetDetailList {
    /// All targets as a caller may see them.
    #[must_use]
    pub fn seen_by(caller: &Caller, view: &View) -> Self {
        Self { backup_targets: view.targets.iter().map(|target| TargetDetail::seen_by(caller, target)).collect() }
    }
}
