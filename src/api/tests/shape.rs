//! Shapes: whether an answer has what a sample of the guide has.

use std::collections::BTreeSet;

use serde_json::Value;

/// A sample reply of the guide.
macro_rules! guide {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/guide/", $name))
    };
}
pub(in crate::api) use guide;

/// What a target has beyond a sample: the names of the other release, and the report of a detail.
pub(in crate::api) const BEYOND: &[&str] = &[
    "filesystem_export",
    "filesystem_export_mount_path",
    "nfs_export",
    "nfs_export_mount_path",
    "backup_target_metadata",
    "report",
];

/// Panics unless `ours` has every key of the sample with the same type of value, null where that is
/// null, and no other keys than those and `beyond`. Every element of a list must have one like it.
pub(in crate::api) fn assert_shape(sample: &str, ours: &Value, beyond: &[&str]) {
    let sample: Value = serde_json::from_str(sample).expect("the guide's sample");
    if let Err(problem) = compare("", &sample, ours, beyond) {
        panic!("{problem}\nguide: {sample:#}\nours: {ours:#}");
    }
}

fn compare(place: &str, sample: &Value, ours: &Value, beyond: &[&str]) -> Result<(), String> {
    match (sample, ours) {
        (Value::Object(sample), Value::Object(found)) => {
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
            let more: Vec<String> =
                keys(found).difference(&keys(sample)).filter(|key| !beyond.contains(&key.as_str())).cloned().collect();
            if !more.is_empty() {
                return Err(format!("{place}: the guide has no {more:?}"));
            }
            sample.iter().try_for_each(|(key, value)| {
                let place = format!("{place}/{key}");
                compare(&place, value, found.get(key).ok_or_else(|| format!("{place} is missing"))?, beyond)
            })
        }
        (Value::Array(sample), Value::Array(found)) => sample.iter().enumerate().try_for_each(|(index, element)| {
            let place = format!("{place}/{index}");
            let outcomes: Vec<_> = found.iter().map(|ours| compare(&place, element, ours, beyond)).collect();
            match outcomes.iter().any(Result::is_ok) {
                true => Ok(()),
                false => Err(format!("{place}: nothing is like it: {outcomes:?}")),
            }
        }),
        (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Null, Value::Null) => Ok(()),
        _ => Err(format!("{place}: the guide has {sample}, we {ours}")),
    }
}

#[test]
fn a_shape_that_differs_is_noticed() {
    let sample = r#"{"a": {"b": null, "c": [{"d": "x"}]}}"#;
    let differs = |ours: Value| compare("", &serde_json::from_str(sample).expect("JSON"), &ours, &["more"]).is_err();
    use serde_json::json;
    assert!(!differs(json!({"a": {"b": null, "c": [{"d": ""}, {"d": 1}], "more": 1}})));
    for ours in [
        json!({"a": {"b": "", "c": [{"d": "x"}]}}),
        json!({"a": {"b": null, "c": []}}),
        json!({"a": {"b": null, "c": [{"d": 1}]}}),
        json!({"a": {"b": null, "c": [{"d": "x", "e": 1}]}}),
        json!({"a": {"c": [{"d": "x"}]}}),
        json!({"a": {"b": null, "c": [{"d": "x"}]}, "z": 1}),
    ] {
        assert!(differs(ours.clone()), "{ours}");
    }
}
