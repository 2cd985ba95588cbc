//! `targetwatch status`: the table a person wants, and an exit code for monitoring.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::client::{Access, Client, ClientError};
use super::exit::State;
use super::render;
use super::runtime;
use super::terminal::{Look, print};
use crate::api::wire;

/// Clears the screen and goes to its beginning (ECMA-48).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// What `status` is asked.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show it again and again until interrupted
    #[arg(long)]
    watch: bool,
    /// Seconds from one look to the next, with --watch
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Print the agent's own answer
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

/// Asks the agent and shows its targets.
///
/// # Errors
/// When the agent does not answer; with `--watch` that is shown instead.
pub fn run(access: Access, arguments: &Arguments) -> anyhow::Result<State> {
    runtime::block_on(async {
        let client = Client::new(access);
        if arguments.watch {
            Ok(watch(&client, Duration::from_secs(arguments.interval)).await)
        } else {
            once(&client, arguments.json).await
        }
    })?
}

async fn once(client: &Client, json: bool) -> anyhow::Result<State> {
    let list = fetch(client).await?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&list)?));
    } else {
        print(&shown(&list));
    }
    Ok(state(&list))
}

async fn watch(client: &Client, interval: Duration) -> State {
    let mut latest: Option<wire::TargetDetailList> = None;
    let mut ticks = tokio::time::interval(interval);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            _ = &mut interrupt => return latest.as_ref().map_or(State::Unknown, state),
            _ = ticks.tick() => {}
        }
        let problem = match fetch(client).await {
            Ok(list) => {
                latest = Some(list);
                String::new()
            }
            Err(error) => format!("{error}\n"),
        };
        let table = latest.as_ref().map(shown).unwrap_or_default();
        print(&format!(
            "{CLEAR}{}  every {} s, Ctrl-C ends\n\n{table}{problem}",
            Timestamp::now().strftime("%H:%M:%SZ"),
            interval.as_secs()
        ));
    }
}

async fn fetch(client: &Client) -> Result<wire::TargetDetailList, ClientError> {
    client.get("/backup_targets/detail").await
}

fn shown(list: &wire::TargetDetailList) -> String {
    if list.backup_targets.is_empty() {
        return "there are no backup targets: create one with `targetwatch target create`\n".to_owned();
    }
    render::status_table(list, Look::of_stdout(), Timestamp::now())
}

fn state(list: &wire::TargetDetailList) -> State {
    State::worst(list.backup_targets.iter().map(|target| State::from(&target.report)))
}
