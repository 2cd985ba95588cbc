//! `targetwatch status`: a table of all targets, and an exit code for monitoring.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::client::{Client, ConnectionOptions};
use super::exit::ExitState;
use super::output::OutputOptions;
use super::terminal::{OutputStyle, print};
use super::{columns, render, runtime};
use crate::api::wire;

/// Path of the targets with their reports.
const DETAIL: &str = "/backup_targets/detail";

/// Clears the screen and moves the cursor to its top left corner (ECMA-48).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Refresh the table until interrupted
    #[arg(long, conflicts_with_all = ["json", "format", "columns"])]
    watch: bool,
    /// Time between two refreshes with --watch, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Format of the output.
    #[command(flatten)]
    output: OutputOptions,
}

/// Fetches the targets from the agent and prints them.
///
/// # Errors
/// When the agent does not answer. With `--watch`, the error is printed below the table instead.
pub fn run(access: ConnectionOptions, arguments: &Arguments) -> anyhow::Result<ExitState> {
    runtime::block_on(async {
        let client = Client::new(access);
        if arguments.watch {
            Ok(watch(&client, Duration::from_secs(arguments.interval)).await)
        } else {
            once(&client, &arguments.output).await
        }
    })?
}

async fn once(client: &Client, output: &OutputOptions) -> anyhow::Result<ExitState> {
    let answer = client.fetch(DETAIL).await?;
    let list = output.show(&answer, rendered, &columns::target_with_report(), columns::details)?;
    Ok(state(&list))
}

async fn watch(client: &Client, interval: Duration) -> ExitState {
    let mut latest: Option<wire::TargetDetailList> = None;
    let mut ticks = tokio::time::interval(interval);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            _ = &mut interrupt => return latest.as_ref().map_or(ExitState::Unknown, state),
            _ = ticks.tick() => {}
        }
        let problem = match client.get(DETAIL).await {
            Ok(list) => {
                latest = Some(list);
                String::new()
            }
            Err(error) => format!("{error}\n"),
        };
        let table = latest.as_ref().map(|list| rendered(list, OutputStyle::of_stdout())).unwrap_or_default();
        print(&format!(
            "{CLEAR}{}  every {} s, Ctrl-C to stop\n\n{table}{problem}",
            Timestamp::now().strftime("%H:%M:%SZ"),
            interval.as_secs()
        ));
    }
}

fn rendered(list: &wire::TargetDetailList, style: OutputStyle) -> String {
    if list.backup_targets.is_empty() {
        return render::NO_TARGETS.to_owned();
    }
    render::status_table(list, style, Timestamp::now())
}

fn state(list: &wire::TargetDetailList) -> ExitState {
    ExitState::worst(list.backup_targets.iter().map(|target| ExitState::from(&target.report)))
}
