//! `targetwatch target`: the targets of the API, for people.

use std::collections::BTreeMap;

use anyhow::bail;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde::Serialize;

use super::client::{ANSWER_TIMEOUT, Access, Client, PROBE_TIMEOUT};
use super::exit::State;
use super::terminal::{Look, confirm, plain, print};
use super::{render, runtime};
use crate::api::wire::{self, NewTarget, NewTargetBody, TargetUpdate, TargetUpdateBody};

/// What is to be done with targets. TARGET is an id, the beginning of one, an export, or the name of
/// a target type.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the targets
    List {
        /// Print the agent's own answer
        #[arg(long)]
        json: bool,
    },
    /// Show a target and its latest report
    Show {
        /// Which
        target: String,
        /// Print the agent's own answer
        #[arg(long)]
        json: bool,
    },
    /// Create a target
    #[command(subcommand)]
    Create(Create),
    /// Change a target
    Modify {
        /// Which
        target: String,
        /// Whether its bucket is immutable
        #[arg(long)]
        immutable: Option<bool>,
        /// The endpoint with another scheme
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// A note, key=value; may be repeated
        #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = note)]
        notes: Vec<(String, String)>,
        /// Remove all other notes
        #[arg(long)]
        purge_metadata: bool,
    },
    /// Make a target the default
    SetDefault {
        /// Which
        target: String,
    },
    /// Probe a target now
    Check {
        /// Which
        target: String,
        /// Print the agent's own answer
        #[arg(long)]
        json: bool,
    },
    /// Show when a target became available or offline, newest first
    History {
        /// Which
        target: String,
        /// Print the agent's own answer
        #[arg(long)]
        json: bool,
    },
    /// Unmount and delete a target; its backups stay where they are
    Delete {
        /// Which
        target: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What is to be created.
#[derive(Debug, Subcommand)]
pub enum Create {
    /// An NFS export
    Nfs {
        /// host:/path
        export: String,
        /// What every target has.
        #[command(flatten)]
        common: Common,
    },
    /// An S3 bucket
    S3 {
        /// Where the service is; AWS without it
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// The bucket
        #[arg(long)]
        bucket: String,
        /// Nobody with these keys can delete its backups: the bucket must have object lock
        #[arg(long)]
        immutable: bool,
        /// What every target has.
        #[command(flatten)]
        common: Common,
    },
}

/// What every target has.
#[derive(Debug, Args)]
pub struct Common {
    /// The name of its target type; the export without it
    #[arg(long, value_name = "TYPE")]
    name: Option<String>,
    /// Make it the default
    #[arg(long)]
    default: bool,
    /// A note, key=value; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = note)]
    notes: Vec<(String, String)>,
}

/// A note on the command line.
pub(super) fn note(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Does it.
///
/// # Errors
/// When the agent does not answer or refuses, with what it says.
pub fn run(access: Access, command: Command) -> anyhow::Result<State> {
    runtime::block_on(async {
        let client = Client::new(access);
        match command {
            Command::List { json } => list(&client, json).await,
            Command::Show { target, json } => {
                let id = resolve(&client, &target).await?.id;
                show(&client.get(&format!("/backup_targets/{id}/checks")).await?, json)
            }
            Command::Create(create) => {
                let body = NewTargetBody { backup_target: new_target(create) };
                change(&client, Method::POST, "/backup_targets", &body).await
            }
            Command::Modify { target, immutable, endpoint, notes, purge_metadata } => {
                let id = resolve(&client, &target).await?.id;
                let backup_target = TargetUpdate {
                    immutable,
                    s3_endpoint_url: endpoint,
                    metadata: notes.into_iter().collect(),
                    purge_metadata: purge_metadata.then_some(true),
                    ..TargetUpdate::default()
                };
                let path = format!("/backup_targets/{id}");
                change(&client, Method::PUT, &path, &TargetUpdateBody { backup_target }).await
            }
            Command::SetDefault { target } => {
                let id = resolve(&client, &target).await?.id;
                let one: wire::OneTarget = client.get(&format!("/backup_targets/{id}/set_default")).await?;
                told(&one.backup_targets, "is the default")
            }
            Command::Check { target, json } => {
                let id = resolve(&client, &target).await?.id;
                show(&check(&client, &id).await?, json)
            }
            Command::History { target, json } => history(&client, &target, json).await,
            Command::Delete { target, yes } => delete(&client, &target, yes).await,
        }
    })?
}

/// Probes a target through the agent.
pub(super) async fn check(client: &Client, id: &str) -> anyhow::Result<wire::Report> {
    let path = format!("/backup_targets/{id}/check");
    Ok(client.send(Method::POST, &path, Bytes::new(), PROBE_TIMEOUT).await?)
}

async fn history(client: &Client, target: &str, json: bool) -> anyhow::Result<State> {
    let id = resolve(client, target).await?.id;
    let history: wire::History = client.get(&format!("/backup_targets/{id}/history")).await?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&history)?));
    } else {
        print(&render::history_table(&history, Look::of_stdout()));
    }
    Ok(State::Available)
}

async fn list(client: &Client, json: bool) -> anyhow::Result<State> {
    let list: wire::TargetList = client.get("/backup_targets").await?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&list)?));
    } else {
        print(&render::target_table(&list, Look::of_stdout()));
    }
    Ok(State::Available)
}

fn show(report: &wire::Report, json: bool) -> anyhow::Result<State> {
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(report)?));
    } else {
        print(&render::report(report, Look::of_stdout()));
    }
    Ok(State::from(report))
}

async fn change(client: &Client, method: Method, path: &str, body: &impl Serialize) -> anyhow::Result<State> {
    let body = serde_json::to_vec(body)?.into();
    let one: wire::OneTarget = client.send(method, path, body, ANSWER_TIMEOUT).await?;
    told(&one.backup_targets, &format!("at {}", one.backup_targets.filesystem_export_mount_path))
}

fn told(target: &wire::Target, what: &str) -> anyhow::Result<State> {
    print(&plain(&format!("{} {} {what}", target.id, target.filesystem_export)));
    print("\n");
    Ok(State::Available)
}

async fn delete(client: &Client, target: &str, yes: bool) -> anyhow::Result<State> {
    let found = resolve(client, target).await?;
    if !yes {
        let question = format!("Unmount and delete {}? Its backups stay.", found.filesystem_export);
        confirm(&found.filesystem_export, &question)?;
    }
    client.delete(&format!("/backup_targets/{}", found.id)).await?;
    told(&found, "deleted")
}

fn new_target(create: Create) -> NewTarget {
    let (specific, Common { name, default, notes }) = match create {
        Create::Nfs { export, common } => {
            let specific =
                NewTarget { kind: Some("nfs".to_owned()), filesystem_export: Some(export), ..NewTarget::default() };
            (specific, common)
        }
        Create::S3 { endpoint, bucket, immutable, common } => {
            let specific = NewTarget {
                kind: Some("s3".to_owned()),
                s3_endpoint_url: endpoint,
                s3_bucket: Some(bucket),
                immutable: Some(immutable),
                ..NewTarget::default()
            };
            (specific, common)
        }
    };
    let metadata: BTreeMap<String, String> = notes.into_iter().collect();
    NewTarget { btt_name: name, is_default: default.then_some(true), metadata, ..specific }
}

/// The target that a person means.
pub(super) async fn resolve(client: &Client, meant: &str) -> anyhow::Result<wire::Target> {
    let list: wire::TargetList = client.get("/backup_targets").await?;
    pick(list.backup_targets, meant)
}

fn pick(targets: Vec<wire::Target>, meant: &str) -> anyhow::Result<wire::Target> {
    let is_named = |target: &wire::Target| {
        target.filesystem_export == meant || target.backup_target_types.iter().any(|found| found.name == meant)
    };
    // Anybody may give a type the id of another target as its name; an id means one target.
    let (mut candidates, mut others): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| target.id == meant);
    if candidates.is_empty() {
        (candidates, others) = others.into_iter().partition(is_named);
    }
    if candidates.is_empty() && !meant.is_empty() {
        candidates = others.into_iter().filter(|target| target.id.starts_with(meant)).collect();
    }
    match (candidates.pop(), candidates.is_empty()) {
        (Some(target), true) => Ok(target),
        (Some(_), false) => bail!("{meant:?} is more than one target: give the whole id (targetwatch target list)"),
        (None, _) => bail!("there is no backup target {meant:?}: `targetwatch target list` shows what there is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str, export: &str) -> wire::Target {
        let value = serde_json::json!({
            "id": id, "type": "nfs", "created_at": "", "updated_at": "", "version": "", "filesystem_export": export,
            "filesystem_export_mount_path": "", "nfs_export": "", "nfs_export_mount_path": "", "is_default": false,
            "capacity": null, "used": null, "status": "offline", "backup_target_types": [], "backup_target_metadata": [],
        });
        serde_json::from_value(value).expect("a target")
    }

    #[test]
    fn a_target_is_meant_by_id_the_beginning_of_one_or_export() {
        let targets = || vec![target("ab12", "nas:/a"), target("ab34", "nas:/b"), target("cd56", "ab12")];
        for (meant, id) in [("ab12", "ab12"), ("ab3", "ab34"), ("nas:/a", "ab12")] {
            assert_eq!(pick(targets(), meant).expect(meant).id, id);
        }
        assert!(pick(targets(), "ab").expect_err("two").to_string().contains("more than one"));
        assert!(pick(targets(), "x").expect_err("none").to_string().contains("target list"));
        assert!(pick(targets(), "").is_err());
    }
}
