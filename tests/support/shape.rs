//! Shapes: whether an answer has what a sample of the guide has.
//!
//! Not a part of `support`: the library's own tests and those of the binary include this file, and
//! know by it alone what the guide says.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A sample reply of the guide.
macro_rules! guide {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/guide/", $name))
    };
}
pub(crate) use guide;

/// What a target has beyond a sample, and where: the names of the other release, and metadata, which
/// the older samples lack.
pub(crate) const BEYOND: &[&str] = &[
    "/backup_targets/filesystem_export",
    "/backup_targets/filesystem_export_mount_path",
    "/backup_targets/nfs_export",
    "/backup_targets/nfs_export_mount_path",
    "/backup_targets/backup_target_metadata",
];

/// What a target has beyond that in a detail.
pub(crate) const REPORT: &str = "/backup_targets/report";

/// A sample, read.
pub(crate) fn sample(text: &str) -> Value {
    serde_json::from_str(text).expect("the guide's sample")
}

/// Panics unless `ours` has every key of the sample with the same type of value, null where that is
/// null and a time where that is one, and no other keys than those and, at their places, `beyond`.
/// Of two lists, every element of each must have one like it in the other.
pub(crate) fn assert_shape(sample: &Value, ours: &Value, beyond: &[&str]) {
    if let Err(problem) = compare("", sample, ours, beyond) {
        panic!("{problem}\nguide: {sample:#}\nours: {ours:#}");
    }
}

/// Where an answer differs from a sample. A place is the keys that lead there.
pub(crate) fn compare(place: &str, sample: &Value, ours: &Value, beyond: &[&str]) -> Result<(), String> {
    match (sample, ours) {
        (Value::Object(sample), Value::Object(found)) => objects(place, sample, found, beyond),
        (Value::Array(sample), Value::Array(found)) => lists(place, sample, found, beyond),
        (Value::String(sample), Value::String(found)) if is_time(sample) && !is_time(found) => {
            Err(format!("{place}: the guide has the time {sample}, we {found}"))
        }
        (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Null, Value::Null) => Ok(()),
        _ => Err(format!("{place}: the guide has {sample}, we {ours}")),
    }
}

fn objects(
    place: &str,
    sample: &Map<String, Value>,
    found: &Map<String, Value>,
    beyond: &[&str],
) -> Result<(), String> {
    for (key, value) in sample {
        let place = format!("{place}/{key}");
        let ours = found.get(key).ok_or_else(|| format!("{place} is missing"))?;
        compare(&place, value, ours, beyond)?;
    }
    let known: BTreeSet<&String> = sample.keys().collect();
    for (key, value) in found.iter().filter(|(key, _)| !known.contains(key)) {
        let place = format!("{place}/{key}");
        if !beyond.contains(&place.as_str()) {
            return Err(format!("the guide has no {place}"));
        }
        // What one sample lacks, another has.
        if element_elsewhere(&place).is_some() {
            compare(&place, &Value::Array(Vec::new()), value, beyond)?;
        }
    }
    Ok(())
}

fn lists(place: &str, sample: &[Value], found: &[Value], beyond: &[&str]) -> Result<(), String> {
    let is_like = |sample: &Value, ours: &Value| compare(place, sample, ours, beyond);
    for element in sample {
        let outcomes: Vec<_> = found.iter().map(|ours| is_like(element, ours)).collect();
        if !outcomes.iter().any(Result::is_ok) {
            return Err(format!("{place}: nothing of ours is like {element}: {outcomes:?}"));
        }
    }
    let elsewhere = element_elsewhere(place).filter(|_| sample.is_empty());
    for ours in found {
        let outcomes: Vec<_> = sample.iter().chain(&elsewhere).map(|element| is_like(element, ours)).collect();
        if !outcomes.iter().any(Result::is_ok) {
            return Err(format!("{place}: nothing of the guide is like our {ours}: {outcomes:?}"));
        }
    }
    Ok(())
}

/// What a list that is empty in a sample holds in another.
fn element_elsewhere(place: &str) -> Option<Value> {
    let (key, one) = match place.rsplit('/').next()? {
        key @ ("backup_target_type_projects" | "backup_target_type_metadata") => {
            (key, &sample(guide!("add_projects.json"))["backup_target_types"])
        }
        key @ "backup_target_metadata" => (key, &sample(guide!("set_default_s3.json"))["backup_targets"]),
        _ => return None,
    };
    Some(one[key][0].clone())
}

/// Whether a text is a time as the guide writes it: `2025-01-30T12:32:27.000000`.
fn is_time(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000000";
    let is_so = |(found, form): (u8, u8)| if form == b'0' { found.is_ascii_digit() } else { found == form };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(is_so)
}
