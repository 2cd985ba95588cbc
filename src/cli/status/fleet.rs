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
