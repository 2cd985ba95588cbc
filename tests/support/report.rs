//! Assertions about targets and their reports, as the API shows them.

use serde_json::{Value, json};

/// Asserts that a report is of an available target without a warning.
pub fn assert_healthy(report: &Value) {
    let found = (&report["status"], &report["verdict"], &report["reason"]);
    assert_eq!(found, (&json!("available"), &json!("available"), &Value::Null), "{report:#}");
}

/// Asserts that a report is of an available target with this warning.
pub fn assert_warning(report: &Value, reason: &str) {
    let found = (&report["status"], &report["verdict"], &report["reason"]);
    assert_eq!(found, (&json!("available"), &json!("available"), &json!(reason)), "{report:#}");
}

/// Asserts that a report is of a target that is offline for a definite reason, and returns the message.
pub fn assert_offline(report: &Value, reason: &str) -> String {
    let found = (&report["status"], &report["verdict"], &report["reason"]);
    assert_eq!(found, (&json!("offline"), &json!("failed"), &json!(reason)), "{report:#}");
    report["message"].as_str().expect("a message").to_owned()
}

/// A metadata value of a target.
pub fn metadata<'a>(target: &'a Value, key: &str) -> Option<&'a str> {
    let entries = target["backup_target_metadata"].as_array().expect("a list");
    entries.iter().find(|entry| entry["key"] == key).and_then(|entry| entry["value"].as_str())
}

/// A check of a report.
pub fn check_named<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

/// The detail of a check, or an empty text.
pub fn detail_of<'a>(report: &'a Value, check: &str) -> &'a str {
    check_named(report, check)["detail"].as_str().unwrap_or_default()
}

/// Asserts that a text contains all these words.
pub fn assert_contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// A description of each word that is missing in a message.
pub fn missing_words<'a>(what: &str, message: &str, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let missing = words.into_iter().filter(|word| !message.contains(word));
    missing.map(|word| format!("{what}: {word:?} is missing in: {message}")).collect()
}
