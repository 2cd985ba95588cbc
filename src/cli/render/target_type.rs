//! Tables of target types.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::Cell;

use super::table::{finish, table};
use crate::api::wire;
use crate::cli::terminal::{OutputStyle, escape_invisible};

/// Renders the table of `type list`. `exports` contains the exports of all targets, by target id.
#[must_use]
pub fn type_table(list: &wire::TypeList, exports: &BTreeMap<String, String>, style: OutputStyle) -> String {
    let mut table = table(style, &["ID", "NAME", "TARGET", "DEFAULT", "VISIBLE TO", "METADATA", "DESCRIPTION"]);
    for wire::TargetType { target_type, .. } in &list.backup_target_types {
        let metadata: Vec<String> = target_type.backup_target_type_metadata.iter().map(pair).collect();
        let cells = [
            target_type.id.as_str(),
            &target_type.name,
            export(target_type, exports),
            yes_or_no(target_type.is_default),
            &visible_to(target_type),
            &metadata.join(", "),
            target_type.description.as_deref().unwrap_or(""),
        ];
        table.add_row(cells.map(|text| Cell::new(escape_invisible(text))));
    }
    finish(&mut table)
}

/// Renders one target type with its projects and metadata.
#[must_use]
pub fn one_type(found: &wire::TargetType, exports: &BTreeMap<String, String>, style: OutputStyle) -> String {
    let wire::TargetType { target_type, updated_at } = found;
    let mut table = table(style, &["FIELD", "VALUE"]);
    let visible_to = visible_to(target_type);
    for (field, value) in [
        ("id", target_type.id.as_str()),
        ("name", &target_type.name),
        ("description", target_type.description.as_deref().unwrap_or("")),
        ("target", export(target_type, exports)),
        ("target id", &target_type.backup_targets_id),
        ("default", yes_or_no(target_type.is_default)),
        ("visible to", &visible_to),
        ("created by", target_type.user_id.as_deref().unwrap_or("")),
        ("created at", &target_type.created_at),
        ("updated at", updated_at),
    ] {
        table.add_row([Cell::new(field), Cell::new(escape_invisible(value))]);
    }
    let mut text = finish(&mut table);
    for assigned in &target_type.backup_target_type_projects {
        let _ = writeln!(
            text,
            "project {} since {}",
            escape_invisible(&assigned.project_id),
            escape_invisible(&assigned.created_at)
        );
    }
    for entry in &target_type.backup_target_type_metadata {
        let _ = writeln!(text, "metadata {}", escape_invisible(&pair(entry)));
    }
    text
}

fn export<'a>(target_type: &'a wire::ChangedType, exports: &'a BTreeMap<String, String>) -> &'a str {
    exports.get(&target_type.backup_targets_id).unwrap_or(&target_type.backup_targets_id)
}

/// Returns the group of callers that can see a target type.
#[must_use]
pub fn visible_to(target_type: &wire::ChangedType) -> String {
    match (target_type.is_public, target_type.backup_target_type_projects.len()) {
        (true, _) => "all projects".to_owned(),
        (false, 0) => "admins only".to_owned(),
        (false, 1) => "1 project".to_owned(),
        (false, count) => format!("{count} projects"),
    }
}

fn pair(entry: &wire::MetadataEntry) -> String {
    format!("{}={}", entry.key, entry.value)
}

fn yes_or_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STYLE: OutputStyle = OutputStyle { width: 140, has_color: false };

    fn types() -> wire::TypeList {
        let value = |id: &str, is_public: bool, projects: &[&str]| {
            let projects: Vec<_> = projects
                .iter()
                .map(|project| {
                    json!({
                        "created_at": "2024-03-13T10:39:14.000000", "updated_at": null, "version": "1", "id": "a",
                        "backup_target_types_id": id, "project_id": project,
                    })
                })
                .collect();
            json!({
                "id": id, "backup_targets_id": "b39847c8", "created_at": "2024-03-13T10:25:14.000000",
                "updated_at": "2024-03-13T10:27:49.000000", "version": "1", "user_id": null,
                "name": format!("type {id}\u{1b}[31m"), "is_default": is_public, "description": "for the night",
                "is_public": is_public, "backup_target_type_projects": projects,
                "backup_target_type_metadata": [{"key": "nfs", "value": "second\u{7}"}],
            })
        };
        let list = json!({"backup_target_types": [
            value("13dd2bf2", true, &[]),
            value("c65625c1", false, &["fc439373e340459fb28202b2412e26c0"]),
            value("fdae1b10", false, &[]),
        ]});
        serde_json::from_value(list).expect("types")
    }

    #[test]
    fn type_table_shows_visibility_and_export() {
        let exports = BTreeMap::from([("b39847c8".to_owned(), "nas:/b".to_owned())]);
        insta::assert_snapshot!(type_table(&types(), &exports, STYLE), @r"
        ID        NAME                     TARGET  DEFAULT  VISIBLE TO    METADATA         DESCRIPTION
        13dd2bf2  type 13dd2bf2\u{1b}[31m  nas:/b  yes      all projects  nfs=second\u{7}  for the night
        c65625c1  type c65625c1\u{1b}[31m  nas:/b  no       1 project     nfs=second\u{7}  for the night
        fdae1b10  type fdae1b10\u{1b}[31m  nas:/b  no       admins only   nfs=second\u{7}  for the night
        ");
    }

    #[test]
    fn type_shows_projects_and_metadata() {
        insta::assert_snapshot!(one_type(&types().backup_target_types[1], &BTreeMap::new(), STYLE), @r"
        FIELD        VALUE
        id           c65625c1
        name         type c65625c1\u{1b}[31m
        description  for the night
        target       b39847c8
        target id    b39847c8
        default      no
        visible to   1 project
        created by
        created at   2024-03-13T10:25:14.000000
        updated at   2024-03-13T10:27:49.000000
        project fc439373e340459fb28202b2412e26c0 since 2024-03-13T10:39:14.000000
        metadata nfs=second\u{7}
        ");
    }
}
