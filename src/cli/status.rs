//! `targetwatch status`: a table of targets, and an exit code for monitoring.
//!
//! With `--watch` on a terminal, the table is a full screen ([`screen`], [`frame`]). Elsewhere, each refresh appends a
//! table. The agent may restart meanwhile.

mod filter;
mod fleet;
mod frame;
mod screen;
mod watch;
mod watched;

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::client::{Client, ConnectionOptions};
use super::exit::ExitState;
use super::output::OutputOptions;
use super::terminal::OutputStyle;
use super::{columns, render, runtime};
use crate::api::wire;
use filter::{Filter, nothing_found};
use watched::{DETAIL, state};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Refresh the table until interrupted, the worst targets first
    #[arg(long, conflicts_with_all = ["json", "format", "columns"])]
    watch: bool,
    /// Time between two refreshes with --watch, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Show the targets of an aggregator, with the number of nodes in each state
    #[arg(long, conflicts_with_all = ["watch", "states", "kinds", "reasons", "export"])]
    fleet: bool,
    /// Selection of targets.
    #[command(flatten)]
    filter: Filter,
    /// Format of the output.
    #[command(flatten)]
    output: OutputOptions,
}

/// Fetches the targets from the agent and prints them.
///
/// # Errors
/// When the agent does not answer. With `--watch`, the error is shown above the table instead.
pub fn run(access: ConnectionOptions, arguments: &Arguments) -> anyhow::Result<ExitState> {
    runtime::block_on(async {
        let client = Client::new(access);
        if arguments.watch {
            watch::watch(&client, &arguments.filter, Duration::from_secs(arguments.interval)).await
        } else if arguments.fleet {
            fleet::once(&client, &arguments.output).await
        } else {
            once(&client, &arguments.filter, &arguments.output).await
        }
    })?
}

async fn once(client: &Client, filter: &Filter, output: &OutputOptions) -> anyhow::Result<ExitState> {
    let answer = client.fetch(DETAIL).await?;
    let text = |list: &wire::TargetDetailList, style: OutputStyle| rendered(list, filter, style);
    let rows = |list: &wire::TargetDetailList| columns::details(&filter.selected(list));
    let list = output.show(&answer, text, &columns::target_with_report(), rows)?;
    Ok(state(&filter.selected(&list)))
}

fn rendered(list: &wire::TargetDetailList, filter: &Filter, style: OutputStyle) -> String {
    let selected = filter.selected(list);
    if selected.backup_targets.is_empty() {
        return nothing_found(filter.describe().as_deref(), list.backup_targets.len());
    }
    render::status_table(&selected, style, Timestamp::now())
}
