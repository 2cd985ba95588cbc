//! Requests that create or change a target.

use super::decode::decode;
use crate::agent::NewTarget;
use crate::api::fault::Fault;
use crate::api::wire::{NewTargetBody, TargetUpdateBody};
use crate::model::TargetSpec;
use crate::registry::TargetChange;

/// Decodes the body of a create.
pub(in crate::api) fn new_target(bytes: &[u8]) -> Result<NewTarget, Fault> {
    let NewTargetBody { backup_target: fields } = decode(bytes)?;
    check_export(&fields.filesystem_export, &fields.nfs_export)?;
    let spec = TargetSpec::from_fields(&fields.spec()).map_err(|error| Fault::bad_request(error.to_string()))?;
    Ok(NewTarget {
        spec,
        type_name: fields.btt_name.or(fields.name),
        is_default: fields.is_default,
        metadata: fields.metadata,
        scope: fields.scope.and_then(Into::into),
        user_id: None,
    })
}

/// Decodes the body of a change.
pub(in crate::api) fn modification(bytes: &[u8]) -> Result<TargetChange, Fault> {
    let TargetUpdateBody { backup_target: fields } = decode(bytes)?;
    check_export(&fields.filesystem_export, &fields.nfs_export)?;
    Ok(TargetChange {
        fields: fields.spec(),
        metadata: fields.metadata,
        purge_metadata: fields.purge_metadata.unwrap_or(false),
        type_name: fields.name,
        is_default: fields.is_default,
        scope: fields.scope.map(Into::into),
    })
}

/// Refuses two different exports. Earlier releases call the field `nfs_export`.
fn check_export(newer: &Option<String>, older: &Option<String>) -> Result<(), Fault> {
    if newer.is_some() && older.is_some() && newer != older {
        return Err(Fault::bad_request(
            "filesystem_export and nfs_export are two names of one field and differ: send one of them",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
