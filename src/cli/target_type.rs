//! `targetwatch type`: manages target types through the API.

mod arguments;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use serde::Serialize;

use super::client::{ANSWER_TIMEOUT, Client, ConnectionOptions};
use super::exit::ExitState;
use super::output::{OutputOptions, PageOptions, Rows};
use super::select::{self, Selectable};
use super::target::resolve as resolve_target;
use super::terminal::{confirm, escape_invisible, print};
use super::{columns, render, runtime};
use crate::api::wire::{self, NewTypeBody, TypeUpdateBody};
use arguments::{metadata_list, metadata_removal, new_type, project_list, type_update};

pub use arguments::{Command, Create, Projects, Update};

/// Runs the command.
///
/// # Errors
/// When the agent does not answer, or when it refuses the request. The error contains its message.
pub fn run(access: ConnectionOptions, command: Command) -> anyhow::Result<ExitState> {
    runtime::block_on(async {
        let client = Client::new(access);
        match command {
            Command::List { page, output } => list(&client, &page, &output).await,
            Command::Show { target_type, output } => show(&client, &target_type, &output).await,
            Command::Create(create) => {
                let target = resolve_target(&client, &create.target).await?.id;
                let body = NewTypeBody { backup_target_type: new_type(create, target) };
                change(&client, Method::POST, "/backup_target_types", &body).await
            }
            Command::Update(update) => {
                let path = path_of(&client, &update.target_type, "").await?;
                let body = TypeUpdateBody { backup_target_type: type_update(update) };
                change(&client, Method::PUT, &path, &body).await
            }
            Command::AddProjects(projects) => {
                let path = path_of(&client, &projects.target_type, "/add_projects").await?;
                change(&client, Method::POST, &path, &project_list(projects)).await
            }
            Command::RemoveProjects(projects) => {
                let path = path_of(&client, &projects.target_type, "/remove_projects").await?;
                change(&client, Method::PUT, &path, &project_list(projects)).await
            }
            Command::AddMetadata { target_type, metadata } => {
                let path = path_of(&client, &target_type, "/add_metadata").await?;
                change(&client, Method::POST, &path, &metadata_list(metadata)).await
            }
            Command::RemoveMetadata { target_type, metadata } => {
                let path = path_of(&client, &target_type, "/remove_metadata").await?;
                change(&client, Method::PUT, &path, &metadata_removal(&metadata)).await
            }
            Command::Delete { target_type, yes } => delete(&client, &target_type, yes).await,
        }
    })?
}

async fn list(client: &Client, page: &PageOptions, output: &OutputOptions) -> anyhow::Result<ExitState> {
    let exports = exports(client).await?;
    let answer = client.fetch(&page.path("/backup_target_types")).await?;
    let render = |list: &wire::TypeList, style| render::type_table(list, &exports, style);
    output.show(&answer, render, columns::TYPE, |list| {
        Rows::List(list.backup_target_types.iter().map(|found| columns::target_type(found, &exports)).collect())
    })?;
    Ok(ExitState::Available)
}

async fn show(client: &Client, target_type: &str, output: &OutputOptions) -> anyhow::Result<ExitState> {
    let exports = exports(client).await?;
    let answer = client.fetch(&path_of(client, target_type, "").await?).await?;
    let render = |one: &wire::OneType, style| render::one_type(&one.backup_target_types, &exports, style);
    output.show(&answer, render, columns::TYPE, |one| {
        Rows::One(columns::target_type(&one.backup_target_types, &exports))
    })?;
    Ok(ExitState::Available)
}

/// Returns the exports of all targets, by target id.
async fn exports(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let list: wire::TargetList = client.get("/backup_targets").await?;
    Ok(list.backup_targets.into_iter().map(|target| (target.id, target.filesystem_export)).collect())
}

async fn change(client: &Client, method: Method, path: &str, body: &impl Serialize) -> anyhow::Result<ExitState> {
    let body: Bytes = serde_json::to_vec(body)?.into();
    let one: wire::OneChangedType = client.send(method, path, body, ANSWER_TIMEOUT).await?;
    let changed = &one.backup_target_types;
    let default = if changed.is_default { ", and is the default" } else { "" };
    print_result(changed, &format!("is visible to {}{default}", render::visible_to(changed)))
}

fn print_result(found: &wire::ChangedType, what: &str) -> anyhow::Result<ExitState> {
    print(&escape_invisible(&format!("{} {} {what}", found.id, found.name)));
    print("\n");
    Ok(ExitState::Available)
}

async fn delete(client: &Client, target_type: &str, yes: bool) -> anyhow::Result<ExitState> {
    let found = resolve(client, target_type).await?.target_type;
    if !yes {
        confirm(&found.name, &format!("Delete the target type {}? Its target is kept.", found.name))?;
    }
    client.delete(&format!("/backup_target_types/{}", found.id)).await?;
    print_result(&found, "deleted")
}

/// Returns the path of a target type in the API, with `action` at its end.
async fn path_of(client: &Client, target_type: &str, action: &str) -> anyhow::Result<String> {
    let id = resolve(client, target_type).await?.target_type.id;
    Ok(format!("/backup_target_types/{id}{action}"))
}

/// Returns the target type that `text` selects.
async fn resolve(client: &Client, text: &str) -> anyhow::Result<wire::TargetType> {
    let list: wire::TypeList = client.get("/backup_target_types").await?;
    select::one(list.backup_target_types, text)
}

impl Selectable for wire::TargetType {
    const NOUN: &'static str = "target type";
    const LIST_COMMAND: &'static str = "targetwatch type list";

    fn id(&self) -> &str {
        &self.target_type.id
    }

    fn is_named(&self, text: &str) -> bool {
        self.target_type.name == text
    }
}
