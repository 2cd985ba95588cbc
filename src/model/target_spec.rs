//! Target specifications: the storage of a target, with one struct for each kind.
//!
//! A client, the configuration file and the registry describe a target with the same fields ([`SpecFields`]).
//! [`TargetSpec::from_fields`] is the only place that turns them into a specification, and an error names the
//! field that is wrong.

use serde::{Deserialize, Serialize};

use super::export::{ExportError, NfsExport, S3Endpoint, S3Location};
use super::line::invisible_problem;
use super::mount_mode::MountMode;
use super::nfs_options::{NfsOptions, NfsOptionsError};
use super::secret_ref::{SecretRef, SecretRefError};

named! {
    /// Kind of a target.
    TargetKind {
        /// NFS export.
        Nfs => "nfs",
        /// S3 bucket.
        S3 => "s3",
    }
}

/// Every kind, as an error lists them: `"nfs" or "s3"`.
fn kind_names() -> String {
    TargetKind::ALL.iter().map(|kind| format!("{:?}", kind.as_str())).collect::<Vec<_>>().join(" or ")
}

/// Every mode, as an error lists them.
fn mode_names() -> String {
    MountMode::ALL.iter().map(|mode| format!("{:?}", mode.as_str())).collect::<Vec<_>>().join(" or ")
}

/// Storage of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// NFS export.
    Nfs(NfsTarget),
    /// S3 bucket.
    S3(S3Target),
}

/// Key from which an NFS mount name is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathKey {
    /// The exported path, without the host.
    #[default]
    Path,
    /// The whole export, `host:/path`, as releases up to 4.1 did.
    Export,
}

/// Storage of an NFS target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsTarget {
    /// The export.
    pub export: NfsExport,
    /// Mount options of the target itself. They replace those of the configuration.
    pub options: Option<NfsOptions>,
    /// How the target itself is verified. `None` as the configuration says.
    pub mode: Option<MountMode>,
}

/// Storage of an S3 target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Target {
    /// Endpoint and bucket.
    pub location: S3Location,
    /// Whether the target was declared immutable: these credentials must not be able to delete its backups.
    pub immutable: bool,
    /// Secret that contains the credentials. The agent reads it if `[key_manager]` is enabled.
    pub secret_ref: Option<SecretRef>,
}

/// Fields that describe a target. `None` means not given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecFields {
    /// Name of the kind.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `host:/path` of an NFS target. An S3 target may repeat its `host[:port]/bucket` here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_export: Option<String>,
    /// URL of the S3 service. AWS when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_endpoint_url: Option<String>,
    /// Bucket of an S3 target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_bucket: Option<String>,
    /// Whether the target is declared immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Mount options of an NFS target. An empty text removes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nfs_mount_opts: Option<String>,
    /// [`MountMode`] of an NFS target. An empty text removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_mode: Option<String>,
    /// URL of the secret that contains the credentials of an S3 target. An empty text removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<String>,
}

named! {
    /// A field of [`SpecFields`], by its name in the API and the configuration.
    SpecField {
        /// Kind of the target.
        Kind => "type",
        /// Export of the target.
        FilesystemExport => "filesystem_export",
        /// URL of the S3 service.
        S3EndpointUrl => "s3_endpoint_url",
        /// Bucket of an S3 target.
        S3Bucket => "s3_bucket",
        /// Whether the target is declared immutable.
        Immutable => "immutable",
        /// Mount options of an NFS target.
        NfsMountOpts => "nfs_mount_opts",
        /// How an NFS target is verified.
        MountMode => "mount_mode",
        /// URL of the secret of an S3 target.
        SecretRef => "secret_ref",
    }
}

/// Why fields do not describe a target: the field and its problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// The field that is wrong.
    pub field: SpecField,
    /// What is wrong with it. The text does not repeat the field's name.
    pub problem: SpecProblem,
}

/// What is wrong with one field of a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecProblem {
    /// No `type`.
    #[error("missing, expected {}", kind_names())]
    NoKind,
    /// A `type` that does not exist.
    #[error("{0:?} is not a type of backup target, expected {names}", names = kind_names())]
    UnknownKind(String),
    /// A field that this kind requires.
    #[error("missing, a target of type {kind} needs {expected}")]
    Missing {
        /// Kind of the target.
        kind: TargetKind,
        /// What belongs into the field.
        expected: &'static str,
    },
    /// A field that this kind does not have.
    #[error("a target of type {0} has none, leave it out")]
    NotOfKind(TargetKind),
    /// An export that a registry may contain and a new target must not have.
    #[error("{0}")]
    NotForNewTargets(String),
    /// A malformed export, endpoint or bucket.
    #[error(transparent)]
    Malformed(#[from] ExportError),
    /// Mount options that are not allowed.
    #[error(transparent)]
    Options(#[from] NfsOptionsError),
    /// A `mount_mode` that does not exist.
    #[error("{0:?} is not a mode, expected {names}", names = mode_names())]
    UnknownMode(String),
    /// Not the URL of a secret.
    #[error(transparent)]
    SecretRef(#[from] SecretRefError),
    /// An S3 target's `filesystem_export` that contradicts its endpoint and bucket.
    #[error("{given:?} is not {location}, which s3_endpoint_url and s3_bucket give, leave it out")]
    Contradicts {
        /// The export as given.
        given: String,
        /// The export of endpoint and bucket.
        location: S3Location,
    },
    /// A change of a field that is fixed.
    #[error("{current:?} cannot be changed to {given:?}, create another target")]
    Fixed {
        /// The value of the target.
        current: String,
        /// The value as given.
        given: String,
    },
    /// A value that would change the export.
    #[error("{given:?} would change the export of the target ({export}), which is fixed, create another target")]
    OtherExport {
        /// The value as given.
        given: String,
        /// The export of the target.
        export: String,
    },
}

impl SpecField {
    fn wrong(self, problem: impl Into<SpecProblem>) -> SpecError {
        SpecError { field: self, problem: problem.into() }
    }
}

impl TargetSpec {
    /// Checks the export of a new target. It must not contain an invisible character: two exports that look the
    /// same must be the same. An NFS export must be unambiguous ([`NfsExport::problem_of_new_target`]). Older
    /// registries may contain other exports.
    ///
    /// # Errors
    /// [`SpecError`] of `filesystem_export`.
    pub fn check_new(&self) -> Result<(), SpecError> {
        let problem = invisible_problem(&self.export()).or_else(|| match self {
            Self::Nfs(nfs) => nfs.export.problem_of_new_target(),
            Self::S3(_) => None,
        });
        problem.map_or(Ok(()), |problem| Err(SpecField::FilesystemExport.wrong(SpecProblem::NotForNewTargets(problem))))
    }

    /// Parses the fields of a target.
    ///
    /// # Errors
    /// [`SpecError`] with the first field that is missing, malformed, or not a field of the given kind.
    pub fn from_fields(fields: &SpecFields) -> Result<Self, SpecError> {
        let kind = fields.kind.as_deref().ok_or_else(|| SpecField::Kind.wrong(SpecProblem::NoKind))?;
        let kind =
            TargetKind::parse(kind).ok_or_else(|| SpecField::Kind.wrong(SpecProblem::UnknownKind(kind.to_owned())))?;
        refuse_fields_of_other_kinds(kind, fields)?;
        match kind {
            TargetKind::Nfs => NfsTarget::from_fields(fields).map(Self::Nfs),
            TargetKind::S3 => S3Target::from_fields(fields).map(Self::S3),
        }
    }

    /// Returns the fields from which [`Self::from_fields`] makes this specification.
    #[must_use]
    pub fn to_fields(&self) -> SpecFields {
        let kind = Some(self.kind().as_str().to_owned());
        match self {
            Self::Nfs(NfsTarget { export, options, mode }) => SpecFields {
                kind,
                filesystem_export: Some(export.to_string()),
                nfs_mount_opts: options.as_ref().map(|options| options.as_str().to_owned()),
                mount_mode: mode.map(|mode| mode.as_str().to_owned()),
                ..SpecFields::default()
            },
            Self::S3(S3Target { location, immutable, secret_ref }) => SpecFields {
                kind,
                s3_endpoint_url: location.endpoint().map(S3Endpoint::url),
                s3_bucket: Some(location.bucket().to_owned()),
                immutable: Some(*immutable),
                secret_ref: secret_ref.as_ref().map(|secret| secret.as_str().to_owned()),
                ..SpecFields::default()
            },
        }
    }

    /// Returns the specification with the given fields changed. Others stay. Kind and export are fixed.
    ///
    /// # Errors
    /// [`SpecError`] with the first field that is fixed, malformed, or not a field of this kind.
    pub fn with_fields(&self, given: &SpecFields) -> Result<Self, SpecError> {
        let (export, mut fields) = (self.export(), self.to_fields());
        // Names every field, so that a new one is either fixed or changed.
        let SpecFields {
            kind,
            filesystem_export,
            s3_endpoint_url,
            s3_bucket,
            immutable,
            nfs_mount_opts,
            mount_mode,
            secret_ref,
        } = given;
        for (field, given, current) in [
            (SpecField::Kind, kind, Some(self.kind().as_str())),
            (SpecField::FilesystemExport, filesystem_export, Some(export.as_str())),
            (SpecField::S3Bucket, s3_bucket, fields.s3_bucket.as_deref()),
        ] {
            if let Some(given) = given.clone().filter(|given| given != current.unwrap_or_default()) {
                return Err(field.wrong(match current {
                    Some(current) => SpecProblem::Fixed { current: current.to_owned(), given },
                    None => SpecProblem::NotOfKind(self.kind()),
                }));
            }
        }
        fields.s3_endpoint_url = s3_endpoint_url.clone().or(fields.s3_endpoint_url);
        fields.immutable = immutable.or(fields.immutable);
        fields.nfs_mount_opts = nfs_mount_opts.clone().or(fields.nfs_mount_opts);
        fields.mount_mode = mount_mode.clone().or(fields.mount_mode);
        fields.secret_ref = secret_ref.clone().or(fields.secret_ref);
        let changed = Self::from_fields(&fields)?;
        if changed.export() != export {
            let given = fields.s3_endpoint_url.unwrap_or_default();
            return Err(SpecField::S3EndpointUrl.wrong(SpecProblem::OtherExport { given, export }));
        }
        Ok(changed)
    }

    /// Text from which the mount directory is named.
    #[must_use]
    pub fn mount_key(&self, path_key: PathKey) -> String {
        match (self, path_key) {
            (Self::Nfs(nfs), PathKey::Path) => nfs.export.path().to_owned(),
            (Self::Nfs(_) | Self::S3(_), _) => self.export(),
        }
    }

    /// Whether both are the same storage, whatever their spelling.
    #[must_use]
    pub fn is_same_storage(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.identity() == other.identity()
    }

    /// Text that is the same for two specifications of one storage.
    fn identity(&self) -> String {
        match self {
            Self::Nfs(nfs) => nfs.export.identity(),
            Self::S3(s3) => s3.location.identity(),
        }
    }

    /// Kind of the target.
    #[must_use]
    pub fn kind(&self) -> TargetKind {
        match self {
            Self::Nfs(_) => TargetKind::Nfs,
            Self::S3(_) => TargetKind::S3,
        }
    }

    /// The export: `host:/path`, or `host[:port]/bucket` without scheme.
    #[must_use]
    pub fn export(&self) -> String {
        match self {
            Self::Nfs(nfs) => nfs.export.to_string(),
            Self::S3(s3) => s3.location.to_string(),
        }
    }

    /// Size of the text fields that a client may choose freely, in bytes: mount options and secret reference.
    #[must_use]
    pub fn option_bytes(&self) -> usize {
        match self {
            Self::Nfs(nfs) => nfs.options.as_ref().map_or(0, |options| options.as_str().len()),
            Self::S3(s3) => s3.secret_ref.as_ref().map_or(0, |secret| secret.as_str().len()),
        }
    }

    /// How the target itself is verified, if it is an NFS target that says so.
    #[must_use]
    pub fn mount_mode(&self) -> Option<MountMode> {
        match self {
            Self::Nfs(nfs) => nfs.mode,
            Self::S3(_) => None,
        }
    }

    /// Whether the target was declared immutable.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        matches!(self, Self::S3(S3Target { immutable: true, .. }))
    }
}

impl NfsTarget {
    fn from_fields(fields: &SpecFields) -> Result<Self, SpecError> {
        let (kind, field) = (TargetKind::Nfs, SpecField::FilesystemExport);
        let export = fields.filesystem_export.as_deref().ok_or(SpecProblem::Missing { kind, expected: "host:/path" });
        let export = export.and_then(|text| Ok(NfsExport::parse(text)?)).map_err(|problem| field.wrong(problem))?;
        let options = text(&fields.nfs_mount_opts).map(NfsOptions::parse).transpose();
        let options = options.map_err(|error| SpecField::NfsMountOpts.wrong(error))?;
        let known = |mode: &str| MountMode::parse(mode).ok_or_else(|| SpecProblem::UnknownMode(mode.to_owned()));
        let mode = text(&fields.mount_mode).map(known).transpose();
        let mode = mode.map_err(|problem| SpecField::MountMode.wrong(problem))?;
        Ok(Self { export, options, mode })
    }
}

/// Refuses the first field that a target of this kind does not have.
fn refuse_fields_of_other_kinds(kind: TargetKind, fields: &SpecFields) -> Result<(), SpecError> {
    // Names every field, so that a new one gets its kind here.
    let SpecFields {
        kind: _,
        filesystem_export: _,
        s3_endpoint_url,
        s3_bucket,
        immutable,
        nfs_mount_opts,
        mount_mode,
        secret_ref,
    } = fields;
    let kinds = [
        (SpecField::S3EndpointUrl, TargetKind::S3, s3_endpoint_url.is_some()),
        (SpecField::S3Bucket, TargetKind::S3, s3_bucket.is_some()),
        // Without object lock, a target is not immutable anyway.
        (SpecField::Immutable, TargetKind::S3, *immutable == Some(true)),
        (SpecField::NfsMountOpts, TargetKind::Nfs, text(nfs_mount_opts).is_some()),
        (SpecField::MountMode, TargetKind::Nfs, text(mount_mode).is_some()),
        (SpecField::SecretRef, TargetKind::S3, text(secret_ref).is_some()),
    ];
    match kinds.into_iter().find(|(_, of, is_given)| *is_given && *of != kind) {
        Some((field, ..)) => Err(field.wrong(SpecProblem::NotOfKind(kind))),
        None => Ok(()),
    }
}

/// The text of a field that an empty text removes.
fn text(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

impl S3Target {
    fn from_fields(fields: &SpecFields) -> Result<Self, SpecError> {
        let kind = TargetKind::S3;
        let secret_ref = text(&fields.secret_ref).map(SecretRef::parse).transpose();
        let secret_ref = secret_ref.map_err(|error| SpecField::SecretRef.wrong(error))?;
        let endpoint = fields.s3_endpoint_url.as_deref().map(S3Endpoint::parse).transpose();
        let endpoint = endpoint.map_err(|error| SpecField::S3EndpointUrl.wrong(error))?;
        let bucket =
            fields.s3_bucket.as_deref().ok_or(SpecProblem::Missing { kind, expected: "the name of its bucket" });
        let location = bucket
            .and_then(|bucket| Ok(S3Location::new(endpoint, bucket)?))
            .map_err(|problem| SpecField::S3Bucket.wrong(problem))?;
        match &fields.filesystem_export {
            Some(given) if *given != location.to_string() => {
                Err(SpecField::FilesystemExport.wrong(SpecProblem::Contradicts { given: given.clone(), location }))
            }
            _ => Ok(Self { location, immutable: fields.immutable.unwrap_or(false), secret_ref }),
        }
    }
}

#[cfg(test)]
mod tests;
