//! Target specifications: what is known about a target's storage, one struct for each kind.
//!
//! A client and the configuration file describe a target with the same fields. [`TargetSpec::from_fields`] is the
//! only place that turns them into a specification, and an error names the field that is wrong.

use std::fmt;
use std::str::FromStr;

use super::export::ExportError;
use super::line::invisible_problem;
use super::{NfsExport, S3Endpoint, S3Location};

/// Kind of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// NFS export.
    Nfs,
    /// S3 bucket.
    S3,
}

impl TargetKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Nfs, Self::S3];

    /// Name of the kind in the API and the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nfs => "nfs",
            Self::S3 => "s3",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A text that does not name a kind of target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a type of backup target, expected \"nfs\" or \"s3\"")]
pub struct UnknownKind(pub String);

impl FromStr for TargetKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Storage of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// NFS export.
    Nfs(NfsTarget),
    /// S3 bucket.
    S3(S3Target),
}

/// Storage of an NFS target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsTarget {
    /// The export.
    pub export: NfsExport,
}

/// Storage of an S3 target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Target {
    /// Endpoint and bucket.
    pub location: S3Location,
    /// Whether the target was declared immutable: these credentials must not be able to delete its backups.
    pub immutable: bool,
}

/// Fields that describe a target, as a client or the configuration file gives them. `None` means not given.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpecFields<'a> {
    /// `type`: `nfs` or `s3`.
    pub kind: Option<&'a str>,
    /// `filesystem_export`: `host:/path` of an NFS target. An S3 target may repeat its `host[:port]/bucket` here.
    pub filesystem_export: Option<&'a str>,
    /// `s3_endpoint_url`: URL of the S3 service. AWS when absent.
    pub s3_endpoint_url: Option<&'a str>,
    /// `s3_bucket`: bucket of an S3 target.
    pub s3_bucket: Option<&'a str>,
    /// `immutable`: whether the target is declared immutable.
    pub immutable: bool,
}

/// A field of [`SpecFields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecField {
    /// `type`
    Kind,
    /// `filesystem_export`
    FilesystemExport,
    /// `s3_endpoint_url`
    S3EndpointUrl,
    /// `s3_bucket`
    S3Bucket,
    /// `immutable`
    Immutable,
}

impl SpecField {
    /// Name of the field in the API and the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "type",
            Self::FilesystemExport => "filesystem_export",
            Self::S3EndpointUrl => "s3_endpoint_url",
            Self::S3Bucket => "s3_bucket",
            Self::Immutable => "immutable",
        }
    }
}

/// Why fields do not describe a target: the field and its problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", field.as_str())]
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
    #[error("missing, expected \"nfs\" or \"s3\"")]
    NoKind,
    /// A `type` that does not exist.
    #[error(transparent)]
    UnknownKind(#[from] UnknownKind),
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
    /// An S3 target's `filesystem_export` that contradicts its endpoint and bucket.
    #[error("{given:?} is not {location}, which s3_endpoint_url and s3_bucket give, leave it out")]
    Contradicts {
        /// The export as given.
        given: String,
        /// The export of endpoint and bucket.
        location: S3Location,
    },
}

impl SpecField {
    fn wrong(self, problem: impl Into<SpecProblem>) -> SpecError {
        SpecError { field: self, problem: problem.into() }
    }
}

impl TargetSpec {
    /// Parses the fields of a new target. Its export contains no invisible character: two exports that look the
    /// same must be the same. An NFS export is unambiguous ([`NfsExport::problem_of_new_target`]). Older
    /// registries may contain other exports.
    ///
    /// # Errors
    /// [`SpecError`] as [`Self::from_fields`], and for such an export.
    pub fn from_new_fields(fields: SpecFields<'_>) -> Result<Self, SpecError> {
        let spec = Self::from_fields(fields)?;
        let problem = invisible_problem(&spec.export()).or_else(|| match &spec {
            Self::Nfs(nfs) => nfs.export.problem_of_new_target(),
            Self::S3(_) => None,
        });
        match problem {
            None => Ok(spec),
            Some(problem) => Err(SpecField::FilesystemExport.wrong(SpecProblem::NotForNewTargets(problem))),
        }
    }

    /// Parses the fields of a target.
    ///
    /// # Errors
    /// [`SpecError`] with the first field that is missing, malformed, or not a field of the given kind.
    pub fn from_fields(fields: SpecFields<'_>) -> Result<Self, SpecError> {
        let kind = fields.kind.ok_or_else(|| SpecField::Kind.wrong(SpecProblem::NoKind))?;
        match kind.parse().map_err(|error: UnknownKind| SpecField::Kind.wrong(error))? {
            TargetKind::Nfs => NfsTarget::from_fields(fields).map(Self::Nfs),
            TargetKind::S3 => S3Target::from_fields(fields).map(Self::S3),
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

    /// Whether the target was declared immutable.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        matches!(self, Self::S3(S3Target { immutable: true, .. }))
    }
}

impl NfsTarget {
    fn from_fields(fields: SpecFields<'_>) -> Result<Self, SpecError> {
        let kind = TargetKind::Nfs;
        for (field, is_given) in [
            (SpecField::S3EndpointUrl, fields.s3_endpoint_url.is_some()),
            (SpecField::S3Bucket, fields.s3_bucket.is_some()),
            (SpecField::Immutable, fields.immutable),
        ] {
            if is_given {
                return Err(field.wrong(SpecProblem::NotOfKind(kind)));
            }
        }
        let field = SpecField::FilesystemExport;
        let export = fields.filesystem_export.ok_or(SpecProblem::Missing { kind, expected: "host:/path" });
        let export = export.and_then(|text| Ok(NfsExport::parse(text)?)).map_err(|problem| field.wrong(problem))?;
        Ok(Self { export })
    }
}

impl S3Target {
    fn from_fields(fields: SpecFields<'_>) -> Result<Self, SpecError> {
        let kind = TargetKind::S3;
        let endpoint = fields.s3_endpoint_url.map(S3Endpoint::parse).transpose();
        let endpoint = endpoint.map_err(|error| SpecField::S3EndpointUrl.wrong(error))?;
        let bucket = fields.s3_bucket.ok_or(SpecProblem::Missing { kind, expected: "the name of its bucket" });
        let location = bucket
            .and_then(|bucket| Ok(S3Location::new(endpoint, bucket)?))
            .map_err(|problem| SpecField::S3Bucket.wrong(problem))?;
        match fields.filesystem_export {
            Some(given) if given != location.to_string() => {
                Err(SpecField::FilesystemExport.wrong(SpecProblem::Contradicts { given: given.to_owned(), location }))
            }
            _ => Ok(Self { location, immutable: fields.immutable }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nfs() -> SpecFields<'static> {
        SpecFields { kind: Some("nfs"), filesystem_export: Some("nas:/b"), ..SpecFields::default() }
    }

    fn s3() -> SpecFields<'static> {
        let s3_endpoint_url = Some("https://s3.example.com:9000");
        SpecFields { kind: Some("s3"), s3_endpoint_url, s3_bucket: Some("backups"), ..SpecFields::default() }
    }

    #[test]
    fn invisible_characters_are_refused_in_exports_of_new_targets_only() {
        for (character, code) in [('\u{202e}', "U+202E"), ('\u{200b}', "U+200B"), ('\u{2028}', "U+2028")] {
            let export = format!("nas:/b{character}c");
            let fields = SpecFields { filesystem_export: Some(&export), ..nfs() };
            let error = TargetSpec::from_new_fields(fields).expect_err(code).to_string();
            assert!(error.starts_with("filesystem_export: ") && error.contains(code), "{error}");
            assert!(TargetSpec::from_fields(fields).is_ok(), "a registry may contain it");
        }
        let visible = SpecFields { filesystem_export: Some("nas:/\u{e9}日本"), ..nfs() };
        assert!(TargetSpec::from_new_fields(visible).is_ok());
    }

    #[test]
    fn ambiguous_paths_are_refused_in_exports_of_new_targets_only() {
        for (export, part) in [
            ("nas:/a//b", "nas:/a/b"),
            ("nas://a", "nas:/a"),
            ("nas:/a//", "nas:/a/"),
            ("nas:/./a", "nas:/a"),
            ("nas:/a/./", "nas:/a/"),
            ("nas:/a/.", "nas:/a"),
            ("nfs://nas/a", "without nfs://"),
            ("NFS://nas:2049/a", "without nfs://"),
            ("nas:/a,nas:/b", "one export"),
            ("nas:/a nas:/b", "one export"),
            ("nas:/a ", "white space"),
        ] {
            let fields = SpecFields { filesystem_export: Some(export), ..nfs() };
            let error = TargetSpec::from_new_fields(fields).expect_err(export).to_string();
            assert!(error.starts_with("filesystem_export: ") && error.contains(part), "{error}");
            assert!(TargetSpec::from_fields(fields).is_ok(), "a registry may contain {export}");
        }
        for export in ["nas:/", "nas:/a/", "nas:/.a/b.", "nas:/a b,c", "nas.example.com.:/a"] {
            let fields = SpecFields { filesystem_export: Some(export), ..nfs() };
            assert_eq!(TargetSpec::from_new_fields(fields).map(|spec| spec.export()), Ok(export.to_owned()));
        }
    }

    #[test]
    fn spec_is_built_for_each_kind() {
        let spec = TargetSpec::from_fields(nfs()).expect("valid");
        assert_eq!((spec.kind(), spec.export().as_str(), spec.is_immutable()), (TargetKind::Nfs, "nas:/b", false));
        let repeated = SpecFields { filesystem_export: Some("s3.example.com:9000/backups"), immutable: true, ..s3() };
        for (fields, immutable) in [(s3(), false), (repeated, true)] {
            let spec = TargetSpec::from_fields(fields).expect("valid");
            assert_eq!((spec.kind(), spec.is_immutable()), (TargetKind::S3, immutable));
            assert_eq!(spec.export(), "s3.example.com:9000/backups");
        }
        let aws = TargetSpec::from_fields(SpecFields { s3_endpoint_url: None, ..s3() }).expect("valid");
        assert_eq!(aws.export(), "backups");
    }

    #[test]
    fn error_names_the_field_when_a_target_is_wrong() {
        for (fields, field, part) in [
            (SpecFields { kind: None, ..nfs() }, "type", "missing, expected \"nfs\" or \"s3\""),
            (SpecFields { kind: Some("smb"), ..nfs() }, "type", "\"smb\" is not a type of backup target"),
            (SpecFields { filesystem_export: None, ..nfs() }, "filesystem_export", "type nfs needs host:/path"),
            (
                SpecFields { filesystem_export: Some("nas"), ..nfs() },
                "filesystem_export",
                "\"nas\" is not an NFS export",
            ),
            (SpecFields { s3_bucket: Some("b"), ..nfs() }, "s3_bucket", "type nfs has none"),
            (SpecFields { s3_endpoint_url: Some("x"), ..nfs() }, "s3_endpoint_url", "type nfs has none"),
            (SpecFields { immutable: true, ..nfs() }, "immutable", "type nfs has none"),
            (SpecFields { s3_endpoint_url: Some("ftp://x"), ..s3() }, "s3_endpoint_url", "\"ftp://x\" is not an S3"),
            (SpecFields { s3_bucket: None, ..s3() }, "s3_bucket", "type s3 needs the name"),
            (SpecFields { s3_bucket: Some("b"), ..s3() }, "s3_bucket", "\"b\" is not a bucket name"),
            (SpecFields { filesystem_export: Some("x/y"), ..s3() }, "filesystem_export", "\"x/y\" is not s3.example"),
        ] {
            let error = TargetSpec::from_fields(fields).expect_err(part);
            assert_eq!(error.field.as_str(), field, "{error}");
            assert!(error.problem.to_string().contains(part), "{error}");
        }
    }
}
