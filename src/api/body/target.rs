//! What creates or changes a target.

use super::fields::Fields;
use crate::agent::NewTarget;
use crate::api::fault::Fault;
use crate::model::{SpecFields, Target, TargetKind, TargetSpec};
use crate::registry::TargetChange;

const ENVELOPE: &str = "backup_target";

/// The body of a create.
pub(in crate::api) fn new_target(bytes: &[u8]) -> Result<NewTarget, Fault> {
    let mut fields = Fields::of(bytes, ENVELOPE)?;
    let kind = fields.text("type")?;
    let export = fields.export()?;
    let endpoint = fields.text("s3_endpoint_url")?;
    let bucket = fields.text("s3_bucket")?;
    let spec = TargetSpec::from_fields(SpecFields {
        kind: kind.as_deref(),
        filesystem_export: export.as_deref(),
        s3_endpoint_url: endpoint.as_deref(),
        s3_bucket: bucket.as_deref(),
        immutable: fields.flag("immutable")?.unwrap_or(false),
    })
    .map_err(|error| Fault::bad_request(error.to_string()))?;
    let new = NewTarget {
        spec,
        type_name: fields.type_name("btt_name")?,
        is_default: fields.flag("is_default")?.unwrap_or(false),
        metadata: fields.metadata()?,
        user_id: None,
    };
    fields.end()?;
    Ok(new)
}

/// The body of a change of `target`.
pub(in crate::api) fn modification(bytes: &[u8], target: &Target) -> Result<TargetChange, Fault> {
    let mut fields = Fields::of(bytes, ENVELOPE)?;
    let fixed = [
        ("type", fields.text("type")?, target.spec.kind().as_str().to_owned()),
        ("filesystem_export", fields.export()?, target.spec.export()),
        (
            "s3_bucket",
            fields.text("s3_bucket")?,
            match &target.spec {
                TargetSpec::S3(s3) => s3.location.bucket().to_owned(),
                TargetSpec::Nfs(_) => String::new(),
            },
        ),
    ];
    for (field, given, current) in fixed {
        if let Some(given) = given.filter(|given| *given != current) {
            let message = format!("{field} is {current:?} and cannot be changed to {given:?}: create another target");
            return Err(Fault::bad_request(message));
        }
    }
    let change = TargetChange {
        // An nfs target that is said not to be immutable is told nothing new.
        immutable: fields.flag("immutable")?.filter(|immutable| *immutable || target.spec.kind() == TargetKind::S3),
        endpoint: fields.endpoint()?,
        metadata: fields.metadata()?,
        purge_metadata: fields.flag("purge_metadata")?.unwrap_or(false),
        is_default: fields.flag("is_default")?,
    };
    fields.end()?;
    Ok(change)
}

#[cfg(test)]
mod tests;
