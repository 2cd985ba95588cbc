//! Declared targets (`[[target]]`): their keys, and the validation of their values.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::error::InvalidValue;
use super::validated::{Validated, invalid, limited};
use crate::model::settings::DeclaredTarget;
use crate::model::target::metadata_problem;
use crate::model::target_spec::{SpecError, SpecField};
use crate::model::target_type::type_name_problem;
use crate::model::{MountName, PathKey, SpecFields, TargetSpec};

/// One `[[target]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetEntry {
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) filesystem_export: Option<Spanned<String>>,
    pub(super) s3_endpoint_url: Option<Spanned<String>>,
    pub(super) s3_bucket: Option<Spanned<String>>,
    pub(super) immutable: Option<Spanned<bool>>,
    pub(super) nfs_mount_opts: Option<Spanned<String>>,
    pub(super) mount_mode: Option<Spanned<String>>,
    pub(super) secret_ref: Option<Spanned<String>>,
    pub(super) btt_name: Option<Spanned<String>>,
    pub(super) is_default: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, Spanned<String>>,
}

/// Validates each declared target, and that all of them can exist together.
pub(super) fn validate(raw: &[TargetEntry], path_key: PathKey) -> Validated<Vec<DeclaredTarget>> {
    let mut declared: Vec<DeclaredTarget> = Vec::new();
    let mut names: Vec<(MountName, String)> = Vec::new();
    for entry in limited(raw, "[[target]]")? {
        let target = self::target(entry)?;
        let name = MountName::derive(&target.spec, path_key)
            .map_err(|error| invalid(&entry.kind, "[[target]] filesystem_export", error))?;
        if let Some((_, other)) = names.iter().find(|(other, _)| other.collides_with(&name)) {
            let problem = format!(
                "{} would use the mount path of {other}, expected exports with different paths",
                target.spec.export()
            );
            return Err(invalid(&entry.kind, "[[target]]", problem));
        }
        if let Some(is_default) = entry.is_default.as_ref().filter(|is_default| *is_default.get_ref())
            && declared.iter().any(|other| other.is_default == Some(true))
        {
            let problem = "another [[target]] is the default already, expected exactly one default";
            return Err(InvalidValue::new(is_default.span(), "[[target]] is_default", problem));
        }
        if let Some(other) = declared.iter().find(|other| other.spec.is_same_storage(&target.spec)) {
            let problem = format!(
                "{} is the same storage as {}, expected one entry for it",
                target.spec.export(),
                other.spec.export()
            );
            return Err(invalid(&entry.kind, "[[target]]", problem));
        }
        names.push((name, target.spec.export()));
        declared.push(target);
    }
    Ok(declared)
}

fn target(raw: &TargetEntry) -> Validated<DeclaredTarget> {
    fn value<T: Clone>(given: &Option<Spanned<T>>) -> Option<T> {
        given.as_ref().map(|given| given.get_ref().clone())
    }
    let fields = SpecFields {
        kind: Some(raw.kind.get_ref().clone()),
        filesystem_export: value(&raw.filesystem_export),
        s3_endpoint_url: value(&raw.s3_endpoint_url),
        s3_bucket: value(&raw.s3_bucket),
        immutable: value(&raw.immutable),
        nfs_mount_opts: value(&raw.nfs_mount_opts),
        mount_mode: value(&raw.mount_mode),
        secret_ref: value(&raw.secret_ref),
    };
    let spec = TargetSpec::from_fields(&fields).map_err(|SpecError { field, problem }| {
        let at = match field {
            SpecField::Kind => None,
            SpecField::FilesystemExport => raw.filesystem_export.as_ref().map(Spanned::span),
            SpecField::S3EndpointUrl => raw.s3_endpoint_url.as_ref().map(Spanned::span),
            SpecField::S3Bucket => raw.s3_bucket.as_ref().map(Spanned::span),
            SpecField::Immutable => raw.immutable.as_ref().map(Spanned::span),
            SpecField::NfsMountOpts => raw.nfs_mount_opts.as_ref().map(Spanned::span),
            SpecField::MountMode => raw.mount_mode.as_ref().map(Spanned::span),
            SpecField::SecretRef => raw.secret_ref.as_ref().map(Spanned::span),
        };
        // A missing key has no position, so the error names that of `type`.
        let at = at.unwrap_or_else(|| raw.kind.span());
        InvalidValue::new(at, format!("[[target]] {}", field.as_str()), problem)
    })?;
    let metadata = raw.metadata.iter().map(|(key, value)| (key.clone(), value.get_ref().clone())).collect();
    if let Some(problem) = metadata_problem(&metadata) {
        let at = raw.metadata.values().next().unwrap_or(&raw.kind);
        return Err(invalid(at, "[[target]] metadata", problem));
    }
    if let Some(name) = &raw.btt_name
        && let Some(problem) = type_name_problem(name.get_ref())
    {
        return Err(invalid(name, "[[target]] btt_name", problem));
    }
    let changes = SpecFields {
        immutable: fields.immutable,
        nfs_mount_opts: fields.nfs_mount_opts,
        mount_mode: fields.mount_mode,
        secret_ref: fields.secret_ref,
        ..SpecFields::default()
    };
    Ok(DeclaredTarget { spec, changes, type_name: value(&raw.btt_name), is_default: value(&raw.is_default), metadata })
}
