//! Comparison of an answer's shape with the samples of the API guide.
//!
//! Unit tests of the library and tests of the binary include this file. It is not a part of `support`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The text of a sample answer of the guide.
macro_rules! guide {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/guide/", $name))
    };
}
pub(crate) use guide;

/// Fields of a target that a sample may lack, by path: the names of the other release, and metadata and
/// the parts of an S3 location, which older samples do not have.
pub(crate) const BEYOND: &[&str] = &[
    "/backup_targets/filesystem_export",
    "/backup_targets/filesystem_export_mount_path",
    "/backup_targets/nfs_export",
    "/backup_targets/nfs_export_mount_path",
    "/backup_targets/backup_target_metadata",
    "/backup_targets/s3_endpoint_url",
    "/backup_targets/s3_bucket",
    "/backup_targets/nfs_mount_opts",
    "/backup_targets/mount_mode",
    "/backup_targets/secret_ref",
    "/backup_targets/scope",
];

/// The path of an additional field of a target in `/backup_targets/detail`.
pub(crate) const REPORT: &str = "/backup_targets/report";

/// Parses a sample.
pub(crate) fn sample(text: &str) -> Value {
    serde_json::from_str(text).expect("the guide's sample")
}

/// Panics unless an answer has the keys of a sample with values of the same type.
///
/// A null must be null in both, and a time must be a time. The only additional keys may be those whose paths are
/// in `beyond`. Each element of a list must match an element of the other list.
pub(crate) fn assert_shape(sample: &Value, answer: &Value, beyond: &[&str]) {
    if let Err(problem) = compare("", sample, answer, beyond) {
        panic!("{problem}\nguide: {sample:#}\nours: {answer:#}");
    }
}

/// Describes the first difference between an answer and a sample. A path consists of keys.
pub(crate) fn compare(path: &str, sample: &Value, answer: &Value, beyond: &[&str]) -> Result<(), String> {
    match (sample, answer) {
        (Value::Object(sample), Value::Object(found)) => objects(path, sample, found, beyond),
        (Value::Array(sample), Value::Array(found)) => lists(path, sample, found, beyond),
        (Value::String(sample), Value::String(found)) if is_time(sample) && !is_time(found) => {
            Err(format!("{path}: the guide has the time {sample}, the answer has {found}"))
        }
        (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Null, Value::Null) => Ok(()),
        _ => Err(format!("{path}: the guide has {sample}, the answer has {answer}")),
    }
}

fn objects(path: &str, sample: &Map<String, Value>, found: &Map<String, Value>, beyond: &[&str]) -> Result<(), String> {
    for (key, value) in sample {
        let path = format!("{path}/{key}");
        let answer = found.get(key).ok_or_else(|| format!("{path} is missing"))?;
        compare(&path, value, answer, beyond)?;
    }
    let known: BTreeSet<&String> = sample.keys().collect();
    for (key, value) in found.iter().filter(|(key, _)| !known.contains(key)) {
        let path = format!("{path}/{key}");
        if !beyond.contains(&path.as_str()) {
            return Err(format!("the guide does not have {path}"));
        }
        // Another sample may have this field.
        if element_elsewhere(&path).is_some() {
            compare(&path, &Value::Array(Vec::new()), value, beyond)?;
        }
    }
    Ok(())
}

fn lists(path: &str, sample: &[Value], found: &[Value], beyond: &[&str]) -> Result<(), String> {
    let matches = |sample: &Value, answer: &Value| compare(path, sample, answer, beyond);
    for element in sample {
        let outcomes: Vec<_> = found.iter().map(|answer| matches(element, answer)).collect();
        if !outcomes.iter().any(Result::is_ok) {
            return Err(format!("{path}: no element of the answer matches {element}: {outcomes:?}"));
        }
    }
    let elsewhere = element_elsewhere(path).filter(|_| sample.is_empty());
    for answer in found {
        let outcomes: Vec<_> = sample.iter().chain(&elsewhere).map(|element| matches(element, answer)).collect();
        if !outcomes.iter().any(Result::is_ok) {
            return Err(format!("{path}: no element of the guide matches {answer}: {outcomes:?}"));
        }
    }
    Ok(())
}

/// An element of a list that is empty in a sample, from another sample.
fn element_elsewhere(path: &str) -> Option<Value> {
    let (key, one) = match path.rsplit('/').next()? {
        key @ ("backup_target_type_projects" | "backup_target_type_metadata") => {
            (key, &sample(guide!("add_projects.json"))["backup_target_types"])
        }
        key @ "backup_target_metadata" => (key, &sample(guide!("set_default_s3.json"))["backup_targets"]),
        _ => return None,
    };
    Some(one[key][0].clone())
}

/// Whether a text is a time in the guide's format: `2025-01-30T12:32:27.000000`.
fn is_time(text: &str) -> bool {
    let format = "0000-00-00T00:00:00.000000";
    let matches = |(found, format): (u8, u8)| if format == b'0' { found.is_ascii_digit() } else { found == format };
    text.len() == format.len() && text.bytes().zip(format.bytes()).all(matches)
}
