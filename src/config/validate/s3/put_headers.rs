//! Validation of `put_headers`: headers that a policy may demand with each object.
//!
//! Names and values are those of PutObject in the Amazon S3 API reference.

use std::collections::BTreeMap;

use crate::config::raw::Text;
use crate::config::validated::{Validated, invalid};

const KEY: &str = "[[s3.credentials]] put_headers";

/// Longest value, in bytes. All headers of a request may have 8 KiB (S3 user guide, "PUT request headers").
const VALUE_MAX_BYTES: usize = 2048;

const ENCRYPTION: &str = "x-amz-server-side-encryption";
const STORAGE_CLASS: &str = "x-amz-storage-class";

/// Accepted headers, with their values. A header without values accepts any text.
const HEADERS: &[(&str, &[&str])] = &[
    (
        "x-amz-acl",
        &[
            "private",
            "public-read",
            "public-read-write",
            "authenticated-read",
            "aws-exec-read",
            "bucket-owner-read",
            "bucket-owner-full-control",
        ],
    ),
    ("x-amz-expected-bucket-owner", &[]),
    (ENCRYPTION, &["AES256", "aws:fsx", "aws:kms", "aws:kms:dsse"]),
    ("x-amz-server-side-encryption-aws-kms-key-id", &[]),
    ("x-amz-server-side-encryption-bucket-key-enabled", &["true", "false"]),
    ("x-amz-server-side-encryption-context", &[]),
    (STORAGE_CLASS, &[]),
    ("x-amz-tagging", &[]),
];

/// Storage classes of AWS. The operator of a Ceph cluster defines and names its classes.
const STORAGE_CLASSES: &[&str] = &[
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "OUTPOSTS",
    "SNOW",
    "EXPRESS_ONEZONE",
    "FSX_OPENZFS",
];

/// Storage classes from which an object must be restored before it can be read, so no canary can be read back.
const ARCHIVE_CLASSES: &[&str] = &["GLACIER", "DEEP_ARCHIVE"];

/// Validates the headers of one entry. Their names are returned in lower case.
pub(super) fn validate(raw: &BTreeMap<String, Text>) -> Validated<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    for (given, text) in raw {
        let (name, value) = (given.to_ascii_lowercase(), text.get_ref());
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = HEADERS.iter().map(|(name, _)| *name).collect();
            let problem = format!("{given:?} is not a supported header, expected {}", names.join(", "));
            return Err(invalid(text, KEY, problem));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            let problem = format!("{value:?} is not a value of {name}, expected {}", values.join(", "));
            return Err(invalid(text, KEY, problem));
        }
        let is_plain = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && value.trim() == value;
        if value.is_empty() || value.len() > VALUE_MAX_BYTES || !is_plain {
            let problem = format!("{name}: expected 1 to {VALUE_MAX_BYTES} printable ASCII characters");
            return Err(invalid(text, KEY, problem));
        }
        if name == STORAGE_CLASS {
            storage_class(text)?;
        }
        if headers.insert(name.clone(), value.clone()).is_some() {
            return Err(invalid(text, KEY, format!("{name} is given twice")));
        }
    }
    let is_kms = headers.get(ENCRYPTION).is_some_and(|value| value.starts_with("aws:kms"));
    let details = headers.keys().find(|name| name.starts_with(ENCRYPTION) && *name != ENCRYPTION);
    if let (false, Some(name), Some(text)) = (is_kms, details, raw.values().next()) {
        let problem = format!("{name} needs {ENCRYPTION} = \"aws:kms\" or \"aws:kms:dsse\"");
        return Err(invalid(text, KEY, problem));
    }
    Ok(headers)
}

fn storage_class(text: &Text) -> Validated<()> {
    let value = text.get_ref();
    if ARCHIVE_CLASSES.contains(&value.as_str()) {
        let problem = format!("{value:?} is a class whose objects cannot be read back at once, expected another class");
        return Err(invalid(text, KEY, problem));
    }
    let is_misspelt = STORAGE_CLASSES.iter().chain(ARCHIVE_CLASSES).any(|class| {
        let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_uppercase();
        *class != value && plain(class) == plain(value)
    });
    let is_name = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if is_misspelt || !is_name {
        let problem = format!(
            "{value:?} is not a storage class, expected {} or the name of a class of the service",
            STORAGE_CLASSES.join(", ")
        );
        return Err(invalid(text, KEY, problem));
    }
    Ok(())
}
