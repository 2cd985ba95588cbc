//! Bodies of target types that are accepted, and messages of refusals.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const PROJECT: &str = "fc439373e340459fb28202b2412e26c0";
const OTHER: &str = "0920f871077c4c079057ce940d8105a8";
const TARGET: &str = "b39847c8-bf65-4cec-9af6-dd65303ca485";

fn bytes(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

fn kept() -> TargetType {
    TargetType {
        id: Uuid::from_u128(7),
        target_id: TARGET.parse().expect("an id"),
        name: "nightly".to_owned(),
        description: None,
        is_public: true,
        is_default: true,
        user_id: None,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: None,
        version: "1".to_owned(),
        projects: Vec::new(),
        metadata: BTreeMap::new(),
    }
}

fn create(more: Value) -> Result<NewType, String> {
    let mut fields = json!({"name": "BTT-name", "backup_targets_id": TARGET});
    let (Value::Object(known), Value::Object(more)) = (&mut fields, more) else { panic!("objects") };
    known.extend(more);
    new_type(&bytes(&json!({ "backup_target_type": fields }))).map_err(|fault| fault.to_string())
}

fn update(fields: Value) -> Result<TypeUpdate, String> {
    type_update(&bytes(&json!({ "backup_target_type": fields })), &kept()).map_err(|fault| fault.to_string())
}

fn project_ids(ids: &[&str]) -> BTreeSet<ProjectId> {
    ids.iter().map(|id| id.parse().expect("an id")).collect()
}

fn metadata_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn body_of_the_guide_is_accepted_complete_and_minimal() {
    let new = create(json!({
        "description": "for the night", "is_default": 1, "is_public": 0, "project_list": [PROJECT, OTHER],
        "metadata": [{"key": "nfs", "value": "primary"}],
    }));
    let expected = NewType {
        target_id: TARGET.parse().expect("an id"),
        name: "BTT-name".to_owned(),
        description: Some("for the night".to_owned()),
        is_default: true,
        is_public: Some(false),
        projects: project_ids(&[PROJECT, OTHER]),
        metadata: metadata_of(&[("nfs", "primary")]),
        user_id: None,
    };
    assert_eq!(new, Ok(expected.clone()));
    let least = NewType {
        description: None,
        is_default: false,
        is_public: None,
        projects: BTreeSet::new(),
        metadata: BTreeMap::new(),
        ..expected
    };
    assert_eq!(create(json!({})), Ok(least.clone()));
    let nulls =
        json!({"description": null, "is_default": null, "is_public": null, "project_list": null, "metadata": null});
    assert_eq!(create(nulls), Ok(least));
}

#[test]
fn project_ids_are_normalized() {
    let twice = json!({"project_list": [PROJECT, "FC439373-E340-459F-B282-02B2412E26C0"]});
    assert_eq!(create(twice).expect("accepted").projects, project_ids(&[PROJECT]));
}

#[test]
fn metadata_comes_in_three_spellings_and_under_two_names() {
    let expected = metadata_of(&[("a", "1"), ("b", "2")]);
    for metadata in [
        json!([{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]),
        json!([{"value": "1", "key": "a"}, {"key": "a", "value": "1"}, {"b": "2"}]),
        json!([{"a": "1"}, {"b": "2"}]),
        json!({"a": "1", "b": "2"}),
        json!([{"key": "a", "value": 1}, {"b": 2}]),
        json!({"a": 1, "b": 2}),
    ] {
        for name in ["metadata", "backup_target_type_metadata"] {
            let new = create(json!({ name: metadata })).expect("accepted");
            assert_eq!(new.metadata, expected, "{name} {metadata}");
        }
    }
    let added = metadata_to_add(&bytes(&json!({"backup_target_type": {"metadata": {"a": "1", "b": "2"}}})), &kept());
    assert_eq!(added.expect("accepted").change.set_metadata, expected);
}

#[test]
fn metadata_is_removed_with_or_without_a_value() {
    let remove = |metadata: Value| {
        let body = json!({"backup_target_type": {"backup_target_type_id": kept().id, "metadata": metadata}});
        metadata_to_remove(&bytes(&body), &kept()).map(|update| update.change.remove_metadata)
    };
    let expected: BTreeMap<String, Option<String>> =
        [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None), ("c".to_owned(), None)].into();
    for metadata in [
        json!([{"key": "a", "value": "1"}, {"key": "b"}, {"key": "c", "value": null}]),
        json!([{"a": "1"}, {"b": null}, "c"]),
        json!({"a": "1", "b": null, "c": null}),
    ] {
        assert_eq!(remove(metadata.clone()).expect("accepted"), expected, "{metadata}");
    }
    // An empty value matches no entry.
    let empty: BTreeMap<String, Option<String>> = [("a".to_owned(), Some(String::new()))].into();
    for metadata in [json!([{"key": "a", "value": ""}]), json!([{"a": ""}]), json!({"a": ""})] {
        assert_eq!(remove(metadata.clone()).expect("accepted"), empty, "{metadata}");
    }
}

#[test]
fn single_metadata_pair_needs_no_list() {
    let one = json!({"metadata": {"key": "nfs", "value": "primary"}});
    assert_eq!(create(one.clone()).expect("accepted").metadata, metadata_of(&[("nfs", "primary")]));
    let body = bytes(&json!({ "backup_target_type": one }));
    let removed = metadata_to_remove(&body, &kept()).expect("accepted").change.remove_metadata;
    assert_eq!(removed, [("nfs".to_owned(), Some("primary".to_owned()))].into());
    for (metadata, expected) in [
        (json!({"key": "a"}), &[("key", "a")][..]),
        (json!({"key": "a", "value": "b", "c": "d"}), &[("key", "a"), ("value", "b"), ("c", "d")]),
    ] {
        let new = create(json!({ "metadata": metadata })).expect("accepted");
        assert_eq!(new.metadata, metadata_of(expected), "any other object is one of many pairs");
    }
}

#[test]
fn empty_description_clears_and_empty_name_is_refused() {
    let description = |value: Value| update(json!({ "description": value })).expect("accepted").change.description;
    assert_eq!(description(json!("")), Some(String::new()));
    assert_eq!(description(json!(null)), None);
    let message = update(json!({"name": ""})).expect_err("no name");
    assert!(message.contains("name: is empty, expected 1 to 255 characters"), "{message}");
    assert_eq!(update(json!({"name": null})), Ok(TypeUpdate::default()));
    assert_eq!(create(json!({"description": ""})).expect("accepted").description, None);
}

#[test]
fn field_beside_the_envelope_is_refused_by_name() {
    let empty = json!({"backup_target_type": {}, "purge_projects": true});
    let create = json!({
        "backup_target_type": {"name": "x", "backup_targets_id": TARGET}, "project_list": [PROJECT], "x": null,
    });
    let both = json!({"backup_target_type": {"project_list": [PROJECT]}, "add_projects": [OTHER]});
    for (outcome, field) in [
        (type_update(&bytes(&empty), &kept()).map(drop), "\"purge_projects\""),
        (new_type(&bytes(&create)).map(drop), "\"project_list\""),
        (projects_to_add(&bytes(&both), &kept()).map(drop), "\"add_projects\""),
    ] {
        let message = outcome.expect_err(field).to_string();
        assert!(
            message.contains(&format!("unexpected top-level field {field}: move it inside backup_target_type")),
            "{message}"
        );
    }
    // Null means absent, also for the envelope.
    let nulls = json!({"backup_target_type": {}, "purge_projects": null});
    assert_eq!(type_update(&bytes(&nulls), &kept()), Ok(TypeUpdate::default()));
    let bare = json!({"backup_target_type": null, "add_projects": [OTHER]});
    let update = projects_to_add(&bytes(&bare), &kept()).expect("accepted");
    assert_eq!(update.add_projects, project_ids(&[OTHER]));
}

#[test]
fn type_can_be_changed_in_part() {
    assert_eq!(update(json!({})), Ok(TypeUpdate::default()));
    let all = update(json!({
        "name": "x", "description": "y", "is_default": true, "is_public": false, "project_list": [PROJECT],
        "purge_projects": true, "metadata": [{"nfs": "secondary"}], "purge_metadata": 1,
        "backup_targets_id": TARGET.to_uppercase(), "backup_target_type_id": kept().id,
    }));
    let change = TypeChange {
        name: Some("x".to_owned()),
        description: Some("y".to_owned()),
        is_public: Some(false),
        is_default: Some(true),
        purge_projects: true,
        purge_metadata: true,
        set_metadata: metadata_of(&[("nfs", "secondary")]),
        ..TypeChange::default()
    };
    assert_eq!(all, Ok(TypeUpdate { add_projects: project_ids(&[PROJECT]), change }));
}

#[test]
fn projects_are_accepted_in_the_spelling_of_guide_and_clients() {
    let expected = project_ids(&[PROJECT, OTHER]);
    let list = json!([PROJECT, OTHER]);
    for (name, body) in [
        ("both", json!({"backup_target_type": {"backup_target_type_id": kept().id, "project_list": list}})),
        ("add", json!({ "add_projects": list })),
        ("add", json!({"backup_target_type": {"add_projects": list}})),
        ("remove", json!({ "remove_projects": list })),
    ] {
        if name != "remove" {
            let update = projects_to_add(&bytes(&body), &kept()).expect("accepted");
            assert_eq!((update.add_projects, update.change), (expected.clone(), TypeChange::default()), "{body}");
        }
        if name != "add" {
            let update = projects_to_remove(&bytes(&body), &kept()).expect("accepted");
            assert_eq!((update.change.remove_projects, update.add_projects.len()), (expected.clone(), 0), "{body}");
        }
    }
    let wrong = projects_to_add(&bytes(&json!({ "remove_projects": list })), &kept()).expect_err("the other one");
    assert!(wrong.to_string().contains("backup_target_type is missing"), "{wrong}");
}

#[test]
fn refusal_names_the_field_and_what_was_expected() {
    let long = "x".repeat(256);
    for (fields, parts) in [
        (json!({"name": ""}), &["name: is empty, expected 1 to 255 characters"][..]),
        (json!({"name": long}), &["name: has 256 characters", "1 to 255"]),
        (json!({"name": "a\u{1b}"}), &["name", "control character"]),
        (json!({"name": "a "}), &["name: \"a \"", "a blank"]),
        (json!({"name": "a\u{200b}"}), &["name", "U+200B"]),
        (json!({"description": 7}), &["description: 7 is not a string"]),
        (json!({"backup_targets_id": null}), &["backup_targets_id: missing", "the id of a backup target"]),
        (json!({"backup_targets_id": "x"}), &["backup_targets_id: \"x\"", "GET /backup_targets"]),
        (json!({"is_public": "yes"}), &["is_public: \"yes\"", "0, 1, true or false"]),
        (json!({"is_publik": 1}), &["is_publik", "is_public"]),
        (json!({"project_list": PROJECT}), &["project_list: \"fc439373e340459fb28202b2412e26c0\" is not a list"]),
        (json!({"project_list": [PROJECT, "admin"]}), &["project_list[1]", "admin", "32 hexadecimal digits"]),
        (json!({"project_list": [{}]}), &["project_list[0]: an object is not a string"]),
        (json!({"metadata": "a=b"}), &["metadata: \"a=b\" is not a list or an object of strings"]),
        (json!({"metadata": ["a"]}), &["metadata: \"a\" has no value", "an object of one pair"]),
        (json!({"metadata": [{}]}), &["metadata[0]: an object of 0 pairs is not", "an object of one pair"]),
        (
            json!({"metadata": [{"a": "1"}, {"b": "1", "c": "2"}]}),
            &["metadata[1]: an object of 2 pairs is not", "an object of one pair"],
        ),
        (
            json!({"metadata": [{"key": "a", "value": "1", "x": "y"}]}),
            &["metadata[0]", "unknown field `x`", "`key` or `value`"],
        ),
        (json!({"metadata": [{"key": {}, "value": "1"}]}), &["metadata[0].key: an object is not a string"]),
        (json!({"metadata": [{"key": "a"}]}), &["\"a\" has no value"]),
        (
            json!({"metadata": [{"key": "a", "value": [1]}]}),
            &["metadata[0].value: a list is not a string, a number or a boolean"],
        ),
        (json!({"metadata": [[]]}), &["metadata[0]: a list is not {\"key\""]),
        (json!({"metadata": true}), &["metadata: true is not a list or an object of strings"]),
        (
            json!({"metadata": [{"a": "1"}, {"a": "2"}]}),
            &["metadata", "\"a\" is given twice with different values, at [0] and [1]"],
        ),
        (json!({"metadata": {long.as_str(): "1"}}), &["metadata: key", "has 256 bytes", "255 is the limit"]),
        (json!({"metadata": {"a": "ü".repeat(128)}}), &["value of \"a\" has 256 bytes", "255 is the limit"]),
        (json!({"metadata": {"": "1"}}), &["key \"\" is empty", "1 to 255 bytes"]),
        (json!({"metadata": {"a": ""}}), &["the value of \"a\" is empty", "expected 1 to 255 bytes"]),
        (json!({"metadata": {"a": "b\n"}}), &["value of \"a\"", "control characters", "\"b\\n\""]),
        (json!({"metadata": {"a": "1"}, "backup_target_type_metadata": {}}), &["two names of one field"]),
    ] {
        let message = create(fields.clone()).expect_err(&fields.to_string());
        for part in parts {
            assert!(message.contains(part), "{fields} gave {message:?}, without {part:?}");
        }
    }
    for (fields, parts) in [
        (json!({"backup_targets_id": Uuid::nil()}), &["backup_targets_id", "cannot be changed"][..]),
        (json!({"backup_target_type_id": Uuid::nil()}), &["backup_target_type_id", "the path names"]),
        (json!({"user_id": "me"}), &["backup_target_type: unknown field `user_id`", "`description`"]),
    ] {
        let message = update(fields.clone()).expect_err(&fields.to_string());
        for part in parts {
            assert!(message.contains(part), "{fields} gave {message:?}, without {part:?}");
        }
    }
    let empty = bytes(&json!({"backup_target_type": {}}));
    for (refused, part) in [
        (projects_to_add(&empty, &kept()), "project_list: missing, expected a list of project ids"),
        (projects_to_remove(&empty, &kept()), "project_list: missing, expected a list of project ids"),
        (metadata_to_add(&empty, &kept()), "metadata: missing, expected a list of {\"key\""),
        (metadata_to_remove(&empty, &kept()), "metadata: missing, expected a list of {\"key\""),
        (projects_to_add(&bytes(&json!({"add_projects": [], "x": 1})), &kept()), "unexpected top-level field \"x\""),
    ] {
        let message = refused.expect_err(part).to_string();
        assert!(message.contains(part), "{message:?}, without {part:?}");
    }
}
