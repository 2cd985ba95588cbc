//! `targetwatch target`: manages targets through the API.

use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use serde::Serialize;

use super::client::{ANSWER_TIMEOUT, Answer, Client, ClientError, ConnectionOptions, PROBE_TIMEOUT};
use super::exit::ExitState;
use super::kind::NewTargetArguments;
use super::metadata::metadata_entry;
use super::output::{OutputOptions, PageOptions, Rows};
use super::scope::ScopeOptions;
use super::select::{self, Selectable};
use super::terminal::{confirm, escape_invisible, print};
use super::{columns, render, runtime};
use crate::api::wire::{self, NewTargetBody, ScopeRequest, TargetUpdate, TargetUpdateBody};

/// Operation on targets. A TARGET is an id, the beginning of an id, an export, or the name of a target
/// type.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the targets
    List {
        /// Page of the list.
        #[command(flatten)]
        page: PageOptions,
        /// Format of the output.
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Show a target and its latest report
    Show {
        /// Target: id, beginning of an id, export, or name of a target type
        target: String,
        /// Format of the output.
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Create a target
    #[command(subcommand)]
    Create(NewTargetArguments),
    /// Change a target
    Modify {
        /// Target: id, beginning of an id, export, or name of a target type
        target: String,
        /// Whether the bucket must have object lock
        #[arg(long)]
        immutable: Option<bool>,
        /// Endpoint with a different scheme
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// Mount options of an NFS target; "" removes them
        #[arg(long, value_name = "OPTIONS")]
        nfs_mount_opts: Option<String>,
        /// How an NFS target is verified: kernel, observe or none; "" removes it
        #[arg(long, value_name = "MODE")]
        mount_mode: Option<String>,
        /// URL of the secret that contains the credentials of an S3 target; "" removes it
        #[arg(long, value_name = "URL")]
        secret_ref: Option<String>,
        /// Name of its first target type
        #[arg(long, value_name = "TYPE")]
        name: Option<String>,
        /// Metadata entry; may be repeated
        #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = metadata_entry)]
        metadata: Vec<(String, String)>,
        /// Remove all other metadata
        #[arg(long)]
        purge_metadata: bool,
        /// Nodes on which it is expected.
        #[command(flatten)]
        scope: ScopeOptions,
        /// Expect it on all nodes
        #[arg(long, conflicts_with_all = ["scope_node", "scope_label"])]
        scope_all: bool,
    },
    /// Make a target the default
    SetDefault {
        /// Target: id, beginning of an id, export, or name of a target type
        target: String,
    },
    /// Probe a target now
    Check {
        /// Target: id, beginning of an id, export, or name of a target type
        target: String,
        /// Format of the output.
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Show the changes of a target's status, newest first
    History {
        /// Target: id, beginning of an id, export, or name of a target type
        target: String,
        /// Format of the output.
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Unmount and delete a target; its backups are kept
    Delete {
        /// Target: id, beginning of an id, export, or name of a target type
        target: String,
        /// Delete without asking for confirmation
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// When the agent does not answer, or when it refuses the request. The error contains its message.
pub fn run(access: ConnectionOptions, command: Command) -> anyhow::Result<ExitState> {
    runtime::block_on(async {
        let client = Client::new(access);
        match command {
            Command::List { page, output } => {
                let answer = client.fetch(&page.path("/backup_targets")).await?;
                output.show(&answer, render::target_table, columns::TARGET, columns::targets)?;
                Ok(ExitState::Available)
            }
            Command::Show { target, output } => {
                let target = resolve(&client, &target).await?;
                show(&target, &client.fetch(&format!("/backup_targets/{}/checks", target.id)).await?, &output)
            }
            Command::Create(create) => {
                let body = NewTargetBody { backup_target: create.into_body() };
                change(&client, Method::POST, "/backup_targets", &body).await
            }
            Command::Modify {
                target,
                immutable,
                endpoint,
                nfs_mount_opts,
                mount_mode,
                secret_ref,
                name,
                metadata,
                purge_metadata,
                scope,
                scope_all,
            } => {
                let id = resolve_id(&client, &target).await?;
                let backup_target = TargetUpdate {
                    immutable,
                    s3_endpoint_url: endpoint,
                    nfs_mount_opts,
                    mount_mode,
                    secret_ref,
                    name,
                    metadata: metadata.into_iter().collect(),
                    purge_metadata: purge_metadata.then_some(true),
                    scope: scope_all.then_some(ScopeRequest::All).or_else(|| scope.into_request()),
                    ..TargetUpdate::default()
                };
                let path = format!("/backup_targets/{id}");
                change(&client, Method::PUT, &path, &TargetUpdateBody { backup_target }).await
            }
            Command::SetDefault { target } => {
                let id = resolve_id(&client, &target).await?;
                let one: wire::OneTarget = client.get(&format!("/backup_targets/{id}/set_default")).await?;
                print_result(&one.backup_targets, "is now the default")
            }
            Command::Check { target, output } => {
                let target = resolve(&client, &target).await?;
                show(&target, &check(&client, &target.id).await?, &output)
            }
            Command::History { target, output } => {
                let id = resolve(&client, &target).await?.id;
                let answer = client.fetch(&format!("/backup_targets/{id}/history")).await?;
                output.show(&answer, render::history_table, columns::HISTORY, |history: &wire::History| {
                    Rows::List(history.transitions.clone())
                })?;
                Ok(ExitState::Available)
            }
            Command::Delete { target, yes } => delete(&client, &target, yes).await,
        }
    })?
}

/// Asks the agent to probe a target, and returns the report.
pub(super) async fn check(client: &Client, id: &str) -> Result<Answer, ClientError> {
    let path = format!("/backup_targets/{id}/check");
    client.exchange(Method::POST, &path, Bytes::new(), PROBE_TIMEOUT).await
}

fn show(target: &wire::Target, answer: &Answer, output: &OutputOptions) -> anyhow::Result<ExitState> {
    let text = |report: &wire::Report, style| render::report(report, style) + &render::settings(target);
    let rows = |report: &wire::Report| columns::target(target, report);
    Ok(ExitState::from(&output.show(answer, text, &columns::target_with_report(), rows)?))
}

async fn change(client: &Client, method: Method, path: &str, body: &impl Serialize) -> anyhow::Result<ExitState> {
    let body = serde_json::to_vec(body)?.into();
    let one: wire::OneTarget = client.send(method, path, body, ANSWER_TIMEOUT).await?;
    print_result(&one.backup_targets, &format!("at {}", one.backup_targets.filesystem_export_mount_path))
}

fn print_result(target: &wire::Target, what: &str) -> anyhow::Result<ExitState> {
    print(&escape_invisible(&format!("{} {} {what}", target.id, target.filesystem_export)));
    print("\n");
    Ok(ExitState::Available)
}

async fn delete(client: &Client, target: &str, yes: bool) -> anyhow::Result<ExitState> {
    let found = resolve(client, target).await?;
    if !yes {
        let question = format!("Unmount and delete {}? Its backups are kept.", found.filesystem_export);
        confirm(&found.filesystem_export, &question)?;
    }
    client.delete(&format!("/backup_targets/{}", found.id)).await?;
    print_result(&found, "deleted")
}

/// Returns the target that `text` selects.
pub(super) async fn resolve(client: &Client, text: &str) -> anyhow::Result<wire::Target> {
    match select::one(list(client).await?, text) {
        // The agent knows former ids, and says why a target is not in its list.
        Err(_) if is_id(text) => {
            let one: wire::OneTarget = client.get(&format!("/backup_targets/{text}")).await?;
            Ok(one.backup_targets)
        }
        found => found,
    }
}

/// Returns the id of the target that `text` selects. A whole id also selects a target that the list leaves out, because
/// its scope does not contain this node.
async fn resolve_id(client: &Client, text: &str) -> anyhow::Result<String> {
    match select::one(list(client).await?, text) {
        Err(_) if is_id(text) => Ok(text.to_owned()),
        found => Ok(found?.id),
    }
}

async fn list(client: &Client) -> anyhow::Result<Vec<wire::Target>> {
    Ok(client.get::<wire::TargetList>("/backup_targets").await?.backup_targets)
}

fn is_id(text: &str) -> bool {
    text.parse::<uuid::Uuid>().is_ok()
}

impl Selectable for wire::Target {
    const NOUN: &'static str = "backup target";
    const LIST_COMMAND: &'static str = "targetwatch target list";

    fn id(&self) -> &str {
        &self.id
    }

    fn is_named(&self, text: &str) -> bool {
        self.filesystem_export == text || self.backup_target_types.iter().any(|found| found.name == text)
    }
}
