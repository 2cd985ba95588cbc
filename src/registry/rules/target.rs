//! Rules of targets.

use std::sync::Arc;

use jiff::Timestamp;

use super::refusal::Refusal;
use super::{defaults, lookup, target_type};
use crate::model::{S3Endpoint, S3Location, Target, TargetId, TargetSpec, TargetType};
use crate::registry::change::TargetChange;
use crate::registry::limits::TARGETS_MAX;
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};

/// Decides `Change::CreateTarget`.
pub(super) fn create(snapshot: &Snapshot, target: &Target, first_type: &TargetType) -> Result<Vec<Write>, Refusal> {
    if snapshot.targets().len() >= TARGETS_MAX {
        return Err(Refusal::TooManyTargets);
    }
    let collides = |other: &&Arc<RegisteredTarget>| other.target.mount_name.collides_with(&target.mount_name);
    if let Some(other) = snapshot.targets().iter().find(collides) {
        return Err(Refusal::MountPathTaken {
            export: target.spec.export(),
            mount_name: target.mount_name.to_string(),
            other_id: other.target.id,
            other_export: other.target.spec.export(),
        });
    }
    target_type::check_new(snapshot, "btt_name", &first_type.name)?;
    let default = snapshot.default_target();
    if let Some(other) = default.filter(|_| target.is_default) {
        return Err(Refusal::DefaultTaken { other_id: other.target.id, other_export: other.target.spec.export() });
    }
    let is_default = default.is_none();
    Ok(vec![
        Write::PutTarget(Arc::new(Target { is_default, ..target.clone() })),
        Write::PutType(Arc::new(TargetType { is_default, target_id: target.id, ..first_type.clone() })),
    ])
}

/// Decides `Change::ModifyTarget`.
pub(super) fn modify(
    snapshot: &Snapshot,
    id: TargetId,
    change: &TargetChange,
    now: Timestamp,
) -> Result<Vec<Write>, Refusal> {
    let registered = lookup::target(snapshot, id)?;
    let before = &*registered.target;
    if before.is_default && change.is_default == Some(false) {
        return Err(Refusal::DefaultStays(id));
    }
    let mut target = before.clone();
    if let Some(declared) = change.immutable {
        match &mut target.spec {
            TargetSpec::S3(s3) => s3.immutable = declared,
            TargetSpec::Nfs(_) => return Err(Refusal::NotS3 { id, field: "immutable" }),
        }
    }
    if let Some(endpoint) = &change.endpoint {
        match &mut target.spec {
            TargetSpec::S3(s3) => s3.location = with_endpoint(id, &s3.location, endpoint)?,
            TargetSpec::Nfs(_) => return Err(Refusal::NotS3 { id, field: "s3_endpoint_url" }),
        }
    }
    if change.purge_metadata {
        target.metadata.clear();
    }
    target.metadata.extend(change.metadata.clone());

    let mut writes = Vec::new();
    if change.is_default == Some(true) {
        target.is_default = true;
        writes = defaults::move_to_target(snapshot, registered, now);
    }
    if target != *before {
        target.updated_at = now;
        writes.push(Write::PutTarget(Arc::new(target)));
    }
    Ok(writes)
}

/// Decides `Change::DeleteTarget`.
pub(super) fn delete(snapshot: &Snapshot, id: TargetId) -> Result<Vec<Write>, Refusal> {
    if lookup::target(snapshot, id)?.target.is_default && snapshot.targets().len() > 1 {
        return Err(Refusal::DefaultInUse(id));
    }
    Ok(vec![Write::DeleteTarget(id)])
}

/// Returns the same export at an endpoint with another scheme.
fn with_endpoint(id: TargetId, location: &S3Location, endpoint: &S3Endpoint) -> Result<S3Location, Refusal> {
    S3Location::new(Some(endpoint.clone()), location.bucket())
        .ok()
        .filter(|other| other.to_string() == location.to_string())
        .ok_or_else(|| Refusal::ExportFixed { id, given: endpoint.url(), export: location.to_string() })
}
