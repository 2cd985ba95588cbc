//! What creates or changes a target.

use super::fields::Fields;
use crate::agent::NewTarget;
use crate::api::fault::Fault;
use crate::model::{NfsExport, S3Endpoint, S3Location, Target, TargetKind, TargetSpec};
use crate::registry::TargetChange;

const ENVELOPE: &str = "backup_target";

/// The body of a create.
pub(in crate::api) fn new_target(bytes: &[u8]) -> Result<NewTarget, Fault> {
    let mut fields = Fields::of(bytes, ENVELOPE)?;
    let kind: TargetKind = match fields.text("type")? {
        Some(text) => text.parse().map_err(|error| Fault::bad_request(format!("type: {error}")))?,
        None => return Err(Fault::bad_request("type is missing: expected \"nfs\" or \"s3\"")),
    };
    let export = fields.export()?;
    let endpoint = fields.endpoint()?;
    let bucket = fields.text("s3_bucket")?;
    let immutable = fields.flag("immutable")?.unwrap_or(false);
    let spec = match kind {
        TargetKind::Nfs => nfs_spec(export, endpoint.is_some(), bucket.is_some(), immutable)?,
        TargetKind::S3 => s3_spec(export, endpoint, bucket, immutable)?,
    };
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

fn nfs_spec(
    export: Option<String>,
    has_endpoint: bool,
    has_bucket: bool,
    immutable: bool,
) -> Result<TargetSpec, Fault> {
    let not_of_nfs = [("s3_endpoint_url", has_endpoint), ("s3_bucket", has_bucket), ("immutable", immutable)];
    if let Some((field, _)) = not_of_nfs.iter().find(|(_, given)| *given) {
        return Err(Fault::bad_request(format!("{field}: a target of type nfs has none; leave it out")));
    }
    let export = export
        .ok_or_else(|| Fault::bad_request("filesystem_export is missing: a target of type nfs needs host:/path"))?;
    let parsed = NfsExport::parse(&export);
    parsed.map(TargetSpec::Nfs).map_err(|error| Fault::bad_request(format!("filesystem_export: {error}")))
}

fn s3_spec(
    export: Option<String>,
    endpoint: Option<S3Endpoint>,
    bucket: Option<String>,
    immutable: bool,
) -> Result<TargetSpec, Fault> {
    let bucket = bucket
        .ok_or_else(|| Fault::bad_request("s3_bucket is missing: a target of type s3 needs the name of its bucket"))?;
    let location =
        S3Location::new(endpoint, &bucket).map_err(|error| Fault::bad_request(format!("s3_bucket: {error}")))?;
    if let Some(export) = export.filter(|export| *export != location.to_string()) {
        let message = format!(
            "filesystem_export: {export:?} is not {location}, which s3_endpoint_url and s3_bucket say; leave it out"
        );
        return Err(Fault::bad_request(message));
    }
    Ok(TargetSpec::S3 { location, immutable })
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
                TargetSpec::S3 { location, .. } => location.bucket().to_owned(),
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
