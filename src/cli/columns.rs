//! Columns of list and show commands, with names in the style of OpenStack's clients.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::output::{Column, Rows};
use crate::api::wire::{self, MetadataEntry};

pub(super) const TARGET: &[Column<TargetRow>] = &[
    ("ID", |row| json!(row.target.id)),
    // A target has the name of its first type.
    ("Name", |row| json!(row.target.backup_target_types.first().map(|first| &first.name))),
    ("Type", |row| json!(row.target.kind)),
    ("Filesystem Export", |row| json!(row.target.filesystem_export)),
    ("Mount Path", |row| json!(row.target.filesystem_export_mount_path)),
    ("Default", |row| json!(row.target.is_default)),
    ("Status", |row| json!(row.target.status)),
    ("Capacity", |row| json!(row.target.capacity)),
    ("Used", |row| json!(row.target.used)),
    ("Target Types", |row| row.target.backup_target_types.iter().map(|found| json!(found.name)).collect()),
];

/// Columns of a target and its report, after those of [`TARGET`].
const REPORT: &[Column<TargetRow>] = &[
    ("Used Percent", |row| json!(row.report.as_ref().map(|report| report.used_percent))),
    ("Since", |row| json!(row.report.as_ref().map(|report| &report.since))),
    ("Checked At", |row| json!(row.report.as_ref().map(|report| &report.checked_at))),
    ("Last Available At", |row| json!(row.report.as_ref().map(|report| &report.last_available_at))),
    ("Reason", |row| json!(row.report.as_ref().map(|report| &report.reason))),
    ("Message", |row| json!(row.report.as_ref().map(|report| &report.message))),
    ("Metadata", |row| metadata(&row.target.backup_target_metadata)),
    ("Mount Options", |row| json!(row.target.nfs_mount_opts)),
    ("Mount Mode", |row| json!(row.target.mount_mode)),
    ("Secret Ref", |row| json!(row.target.secret_ref)),
    ("Scope", |row| json!(row.target.scope)),
    ("Created At", |row| json!(row.target.created_at)),
    ("Updated At", |row| json!(row.target.updated_at)),
    ("Time To Full", |row| json!(row.report.as_ref().map(|report| report.time_to_full_s))),
];

/// Columns of a target type.
pub(super) const TYPE: &[Column<TypeRow>] = &[
    ("ID", |row| json!(row.target_type.id)),
    ("Name", |row| json!(row.target_type.name)),
    ("Description", |row| json!(row.target_type.description)),
    ("Target ID", |row| json!(row.target_type.backup_targets_id)),
    ("Filesystem Export", |row| json!(row.export)),
    ("Default", |row| json!(row.target_type.is_default)),
    ("Public", |row| json!(row.target_type.is_public)),
    ("Projects", |row| {
        row.target_type.backup_target_type_projects.iter().map(|assigned| json!(assigned.project_id)).collect()
    }),
    ("Metadata", |row| metadata(&row.target_type.backup_target_type_metadata)),
    ("User ID", |row| json!(row.target_type.user_id)),
    ("Created At", |row| json!(row.target_type.created_at)),
    ("Updated At", |row| json!(row.updated_at)),
];

/// Columns of a history.
pub(super) const HISTORY: &[Column<wire::Transition>] = &[
    ("At", |row| json!(row.at)),
    ("From", |row| json!(row.from)),
    ("To", |row| json!(row.to)),
    ("Reason", |row| json!(row.reason)),
    ("Message", |row| json!(row.message)),
];

/// A target, with its latest report where a command shows it.
pub(super) struct TargetRow {
    target: wire::Target,
    report: Option<wire::Report>,
}

/// A target type, with the export of its target.
pub(super) struct TypeRow {
    target_type: wire::ChangedType,
    updated_at: String,
    export: Option<String>,
}

pub(super) fn target_with_report() -> Vec<Column<TargetRow>> {
    [TARGET, REPORT].concat()
}

/// Returns the rows of `target list`.
pub(super) fn targets(list: &wire::TargetList) -> Rows<TargetRow> {
    Rows::List(list.backup_targets.iter().map(|target| TargetRow { target: target.clone(), report: None }).collect())
}

/// Returns the rows of `status`.
pub(super) fn details(list: &wire::TargetDetailList) -> Rows<TargetRow> {
    let row = |wire::TargetDetail { target, report }: &wire::TargetDetail| target_row(target, report);
    Rows::List(list.backup_targets.iter().map(row).collect())
}

/// Returns the row of one target.
pub(super) fn target(target: &wire::Target, report: &wire::Report) -> Rows<TargetRow> {
    // The report is newer than the target.
    let target = wire::Target { status: report.status.clone(), ..target.clone() };
    Rows::One(target_row(&target, report))
}

fn target_row(target: &wire::Target, report: &wire::Report) -> TargetRow {
    TargetRow { target: target.clone(), report: Some(report.clone()) }
}

/// Returns the row of a target type. `exports` contains the exports of all targets, by target id.
pub(super) fn target_type(found: &wire::TargetType, exports: &BTreeMap<String, String>) -> TypeRow {
    let wire::TargetType { target_type, updated_at } = found.clone();
    let export = exports.get(&target_type.backup_targets_id).cloned();
    TypeRow { target_type, updated_at, export }
}

fn metadata(entries: &[MetadataEntry]) -> Value {
    let entries = entries.iter().map(|entry| (entry.key.clone(), json!(entry.value)));
    entries.collect::<Map<String, Value>>().into()
}
