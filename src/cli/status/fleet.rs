//! `status --fleet`: the targets of an aggregator.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::exit::ExitState;
use crate::cli::output::{Column, OutputOptions, Rows};
use crate::cli::render;
use crate::cli::terminal::OutputStyle;
use crate::fleet::wire::{FleetTarget, FleetTargetList};
use crate::model::Status;

const PATH: &str = "/backup_targets";

/// Columns for scripts.
const COLUMNS: &[Column<FleetTarget>] = &[
    ("ID", |row| json!(row.target.id)),
    ("Type", |row| json!(row.target.kind)),
    ("Filesystem Export", |row| json!(row.target.filesystem_export)),
    ("Status", |row| json!(row.target.status)),
    ("Expected", |row| json!(row.nodes.expected)),
    ("Available", |row| json!(row.nodes.available)),
    ("Warning", |row| json!(row.nodes.warning)),
    ("Offline", |row| json!(row.nodes.offline)),
    ("Unknown", |row| json!(row.nodes.unknown)),
    ("Missing", |row| json!(row.nodes.missing)),
    ("Capacity", |row| json!(row.target.capacity)),
    ("Used", |row| json!(row.target.used)),
    ("Reasons", |row| json!(row.reasons)),
    ("Not Available", |row| row.not_available.iter().map(|on_node| Value::from(on_node.node.clone())).collect()),
];

/// Fetches the targets from the aggregator and prints them.
///
/// # Errors
/// When it does not answer, or when an agent answers instead.
pub(super) async fn once(client: &Client, output: &OutputOptions) -> anyhow::Result<ExitState> {
    let answer = client.fetch(PATH).await?;
    let text = |list: &FleetTargetList, style: OutputStyle| render::fleet_table(list, style);
    let rows = |list: &FleetTargetList| Rows::List(list.backup_targets.clone());
    let list = output
        .show(&answer, text, COLUMNS, rows)
        .context("is this an aggregator? --fleet needs the address of one in --api")?;
    Ok(state(&list))
}

/// Offline if a target is offline by policy, and otherwise unknown if not every node answers.
fn state(list: &FleetTargetList) -> ExitState {
    let targets = list.backup_targets.iter().map(|target| {
        if target.target.status != Status::Available {
            ExitState::Offline
        } else if target.nodes.available == target.nodes.expected && target.nodes.warning == 0 {
            ExitState::Available
        } else {
            ExitState::Warning
        }
    });
    let nodes = if list.basis.complete { ExitState::Available } else { ExitState::Unknown };
    // Without a target, nothing was verified.
    ExitState::worst(targets).max(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list with one target for each of these numbers of available, warning, offline, unknown and missing nodes. The
    /// caller cannot see the nodes.
    fn list(targets: &[(&str, [usize; 5])], complete: bool) -> FleetTargetList {
        let targets: Vec<Value> = targets
            .iter()
            .map(|(status, [available, warning, offline, unknown, missing])| {
                json!({
                    "id": uuid::Uuid::nil(), "type": "nfs", "created_at": "", "updated_at": "", "version": "",
                    "filesystem_export": "nas:/b", "filesystem_export_mount_path": "", "nfs_export": "nas:/b",
                    "nfs_export_mount_path": "", "s3_endpoint_url": null, "s3_bucket": null, "nfs_mount_opts": null,
                    "secret_ref": null, "is_default": false, "capacity": null, "used": null, "status": status,
                    "backup_target_types": [], "backup_target_metadata": [], "not_available": [], "reasons": {},
                    "nodes": {
                        "expected": available + offline + unknown + missing, "available": available,
                        "warning": warning, "offline": offline, "unknown": unknown, "missing": missing,
                    },
                })
            })
            .collect();
        let list = json!({
            "backup_targets": targets, "as_of": null, "source": "poll", "complete": complete, "notice": null,
        });
        serde_json::from_value(list).expect("a list")
    }

    #[test]
    fn exit_state_follows_the_counts_of_nodes() {
        let well = ("available", [3, 0, 0, 0, 0]);
        for (targets, complete, expected) in [
            (&[well, well][..], true, ExitState::Available),
            (&[well, ("available", [3, 1, 0, 0, 0])], true, ExitState::Warning),
            (&[well, ("available", [2, 0, 1, 0, 0])], true, ExitState::Warning),
            (&[well, ("available", [2, 0, 0, 1, 0])], true, ExitState::Warning),
            (&[well, ("available", [2, 0, 0, 0, 1])], true, ExitState::Warning),
            (&[well], false, ExitState::Unknown),
            (&[well, ("available", [2, 0, 0, 1, 0])], false, ExitState::Unknown),
            (&[well, ("offline", [1, 0, 2, 0, 0])], true, ExitState::Offline),
            (&[well, ("offline", [1, 0, 1, 1, 0])], false, ExitState::Offline),
            (&[("degraded", [3, 0, 0, 0, 0])], true, ExitState::Offline),
            (&[], true, ExitState::Unknown),
        ] {
            assert_eq!(state(&list(targets, complete)), expected, "{targets:?} {complete}");
        }
    }
}
