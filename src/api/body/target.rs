//! Requests that create or change a target.

use super::decode::decode;
use crate::agent::NewTarget;
use crate::api::fault::Fault;
use crate::api::wire::{NewTargetBody, TargetUpdateBody};
use crate::model::{S3Endpoint, SpecFields, Target, TargetKind, TargetSpec};
use crate::registry::TargetChange;

/// Decodes the body of a create.
pub(in crate::api) fn new_target(bytes: &[u8]) -> Result<NewTarget, Fault> {
    let NewTargetBody { backup_target: fields } = decode(bytes)?;
    let spec = TargetSpec::from_new_fields(SpecFields {
        kind: fields.kind.as_deref(),
        filesystem_export: export(fields.filesystem_export, fields.nfs_export)?.as_deref(),
        s3_endpoint_url: fields.s3_endpoint_url.as_deref(),
        s3_bucket: fields.s3_bucket.as_deref(),
        immutable: fields.immutable.unwrap_or(false),
    })
    .map_err(|error| Fault::bad_request(error.to_string()))?;
    Ok(NewTarget {
        spec,
        type_name: fields.btt_name.or(fields.name),
        is_default: fields.is_default.unwrap_or(false),
        metadata: fields.metadata,
        user_id: None,
    })
}

/// Decodes the body of a change of `target`.
pub(in crate::api) fn modification(bytes: &[u8], target: &Target) -> Result<TargetChange, Fault> {
    let TargetUpdateBody { backup_target: fields } = decode(bytes)?;
    let bucket = match &target.spec {
        TargetSpec::S3(s3) => s3.location.bucket(),
        TargetSpec::Nfs(_) => "",
    };
    let kind = target.spec.kind();
    for (field, given, current) in [
        ("type", fields.kind, kind.as_str()),
        ("filesystem_export", export(fields.filesystem_export, fields.nfs_export)?, &target.spec.export()),
        ("s3_bucket", fields.s3_bucket, bucket),
    ] {
        if let Some(given) = given.filter(|given| *given != current) {
            let message = format!("{field}: {current:?} cannot be changed to {given:?}, create another target");
            return Err(Fault::bad_request(message));
        }
    }
    let endpoint = fields.s3_endpoint_url.as_deref().map(S3Endpoint::parse).transpose();
    Ok(TargetChange {
        // Without object lock, an NFS target is not immutable anyway.
        immutable: fields.immutable.filter(|immutable| *immutable || kind == TargetKind::S3),
        endpoint: endpoint.map_err(|error| Fault::bad_request(format!("s3_endpoint_url: {error}")))?,
        metadata: fields.metadata,
        purge_metadata: fields.purge_metadata.unwrap_or(false),
        is_default: fields.is_default,
    })
}

/// The export, which earlier releases call `nfs_export`.
fn export(newer: Option<String>, older: Option<String>) -> Result<Option<String>, Fault> {
    match (newer, older) {
        (Some(newer), Some(older)) if newer != older => Err(Fault::bad_request(
            "filesystem_export and nfs_export are two names of one field and differ: send one of them",
        )),
        (newer, older) => Ok(newer.or(older)),
    }
}

#[cfg(test)]
mod tests;
