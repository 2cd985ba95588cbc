//! `targetwatch type`: the target types of the API, for people.

use std::collections::BTreeMap;

use anyhow::bail;
use bytes::Bytes;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde::Serialize;

use super::client::{ANSWER_TIMEOUT, Access, Client};
use super::exit::State;
use super::target::{note, resolve as resolve_target};
use super::terminal::{Look, confirm, plain, print};
use super::{render, runtime};
use crate::api::wire::{
    self, MetadataBody, MetadataList, MetadataPair, NewType, NewTypeBody, ProjectList, ProjectsBody, TypeUpdate,
    TypeUpdateBody,
};

/// What is to be done with target types. TYPE is an id, the beginning of one, or a name; PROJECT is
/// the id of a project.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the target types
    List {
        /// Print the agent's own answer
        #[arg(long)]
        json: bool,
    },
    /// Show a target type, its projects and its notes
    Show {
        /// Which
        #[arg(value_name = "TYPE")]
        which: String,
        /// Print the agent's own answer
        #[arg(long)]
        json: bool,
    },
    /// Create a target type: public, unless --private or --project is given
    Create(Create),
    /// Change a target type; what is not given stays
    Update(Update),
    /// Give a target type to projects; a public one becomes theirs alone
    AddProjects(Projects),
    /// Take a target type from projects; it does not become public by that
    RemoveProjects(Projects),
    /// Add notes to a target type
    AddMetadata {
        /// Which
        #[arg(value_name = "TYPE")]
        which: String,
        /// Notes
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = note)]
        notes: Vec<(String, String)>,
    },
    /// Remove notes from a target type
    RemoveMetadata {
        /// Which
        #[arg(value_name = "TYPE")]
        which: String,
        /// Keys; with a value, only if that is the key's value
        #[arg(required = true, value_name = "KEY[=VALUE]", value_parser = NonEmptyStringValueParser::new())]
        notes: Vec<String>,
    },
    /// Delete a target type; its target stays
    Delete {
        /// Which
        #[arg(value_name = "TYPE")]
        which: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What is to be created.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name
    name: String,
    /// The target that it uses: an id, the beginning of one, an export, or one of its types
    #[arg(long)]
    target: String,
    /// What is said of it
    #[arg(long)]
    description: Option<String>,
    /// Make it, and its target, the default
    #[arg(long)]
    default: bool,
    /// For no project but those that are given to it
    #[arg(long)]
    private: bool,
    /// A project that it is for; may be repeated
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
    /// A note, key=value; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = note)]
    notes: Vec<(String, String)>,
}

/// What is to be changed.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("visibility").args(["public", "private"])))]
pub struct Update {
    /// Which
    #[arg(value_name = "TYPE")]
    which: String,
    /// Another name
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// What is said of it; "" takes it away
    #[arg(long)]
    description: Option<String>,
    /// Make it, and its target, the default
    #[arg(long)]
    default: bool,
    /// For every project
    #[arg(long, conflicts_with = "projects")]
    public: bool,
    /// For no project but those that are given to it
    #[arg(long)]
    private: bool,
    /// A project that it is for, beside those it is for already; may be repeated
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
    /// Take it from all other projects
    #[arg(long)]
    purge_projects: bool,
    /// A note, key=value; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = note)]
    notes: Vec<(String, String)>,
    /// Remove all other notes
    #[arg(long)]
    purge_metadata: bool,
}

/// A target type and projects.
#[derive(Debug, Args)]
pub struct Projects {
    /// Which
    #[arg(value_name = "TYPE")]
    which: String,
    /// The ids of projects
    #[arg(required = true, value_name = "PROJECT")]
    projects: Vec<String>,
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
            Command::Show { which, json } => show(&client, &which, json).await,
            Command::Create(create) => {
                let target = resolve_target(&client, &create.target).await?.id;
                let body = NewTypeBody { backup_target_type: new_type(create, target) };
                change(&client, Method::POST, "/backup_target_types", &body).await
            }
            Command::Update(update) => {
                let path = path_of(&client, &update.which, "").await?;
                let body = TypeUpdateBody { backup_target_type: type_update(update) };
                change(&client, Method::PUT, &path, &body).await
            }
            Command::AddProjects(projects) => {
                let path = path_of(&client, &projects.which, "/add_projects").await?;
                change(&client, Method::POST, &path, &project_list(projects)).await
            }
            Command::RemoveProjects(projects) => {
                let path = path_of(&client, &projects.which, "/remove_projects").await?;
                change(&client, Method::PUT, &path, &project_list(projects)).await
            }
            Command::AddMetadata { which, notes } => {
                let path = path_of(&client, &which, "/add_metadata").await?;
                let pairs = notes.into_iter().map(|(key, value)| MetadataPair { key, value: Some(value) });
                change(&client, Method::POST, &path, &metadata_list(pairs.collect())).await
            }
            Command::RemoveMetadata { which, notes } => {
                let path = path_of(&client, &which, "/remove_metadata").await?;
                let pairs = notes.iter().map(|text| key_or_pair(text));
                change(&client, Method::PUT, &path, &metadata_list(pairs.collect())).await
            }
            Command::Delete { which, yes } => delete(&client, &which, yes).await,
        }
    })?
}

async fn list(client: &Client, json: bool) -> anyhow::Result<State> {
    let list: wire::TypeList = client.get("/backup_target_types").await?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&list)?));
    } else {
        print(&render::type_table(&list, &exports(client).await?, Look::of_stdout()));
    }
    Ok(State::Available)
}

async fn show(client: &Client, which: &str, json: bool) -> anyhow::Result<State> {
    let one: wire::OneType = client.get(&path_of(client, which, "").await?).await?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&one)?));
    } else {
        print(&render::one_type(&one.backup_target_types, &exports(client).await?, Look::of_stdout()));
    }
    Ok(State::Available)
}

/// The exports of all targets by id: what a person knows a target by.
async fn exports(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let list: wire::TargetList = client.get("/backup_targets").await?;
    Ok(list.backup_targets.into_iter().map(|target| (target.id, target.filesystem_export)).collect())
}

async fn change(client: &Client, method: Method, path: &str, body: &impl Serialize) -> anyhow::Result<State> {
    let body: Bytes = serde_json::to_vec(body)?.into();
    let one: wire::OneChangedType = client.send(method, path, body, ANSWER_TIMEOUT).await?;
    told(&one.backup_target_types, &visibility(&one.backup_target_types))
}

fn visibility(found: &wire::ChangedType) -> String {
    let whose = match (found.is_public, found.backup_target_type_projects.len()) {
        (true, _) => "public".to_owned(),
        (false, 0) => "for admins only".to_owned(),
        (false, 1) => "for 1 project".to_owned(),
        (false, count) => format!("for {count} projects"),
    };
    if found.is_default { format!("{whose}, the default") } else { whose }
}

fn told(found: &wire::ChangedType, what: &str) -> anyhow::Result<State> {
    print(&plain(&format!("{} {} {what}", found.id, found.name)));
    print("\n");
    Ok(State::Available)
}

async fn delete(client: &Client, which: &str, yes: bool) -> anyhow::Result<State> {
    let found = resolve(client, which).await?.target_type;
    if !yes {
        confirm(&found.name, &format!("Delete the target type {}? Its target stays.", found.name))?;
    }
    client.delete(&format!("/backup_target_types/{}", found.id)).await?;
    told(&found, "deleted")
}

fn new_type(create: Create, target: String) -> NewType {
    let Create { name, target: _, description, default, private, projects, notes } = create;
    NewType {
        name,
        backup_targets_id: target,
        description,
        is_default: default.then_some(true),
        is_public: private.then_some(false),
        project_list: projects,
        metadata: entries(notes),
    }
}

fn type_update(update: Update) -> TypeUpdate {
    let Update {
        which: _,
        name,
        description,
        default,
        public,
        private,
        projects,
        purge_projects,
        notes,
        purge_metadata,
    } = update;
    TypeUpdate {
        name,
        description,
        is_default: default.then_some(true),
        is_public: (public || private).then_some(public),
        project_list: projects,
        purge_projects: purge_projects.then_some(true),
        metadata: entries(notes),
        purge_metadata: purge_metadata.then_some(true),
        ..TypeUpdate::default()
    }
}

fn entries(notes: Vec<(String, String)>) -> Vec<MetadataPair> {
    notes.into_iter().map(|(key, value)| MetadataPair { key, value: Some(value) }).collect()
}

fn project_list(projects: Projects) -> ProjectsBody {
    let Projects { which: _, projects } = projects;
    ProjectsBody { backup_target_type: ProjectList { backup_target_type_id: None, project_list: projects } }
}

fn metadata_list(metadata: Vec<MetadataPair>) -> MetadataBody {
    MetadataBody { backup_target_type: MetadataList { backup_target_type_id: None, metadata } }
}

fn key_or_pair(text: &str) -> MetadataPair {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
    MetadataPair { key: key.to_owned(), value }
}

async fn path_of(client: &Client, which: &str, action: &str) -> anyhow::Result<String> {
    let id = resolve(client, which).await?.target_type.id;
    Ok(format!("/backup_target_types/{id}{action}"))
}

/// The target type that a person means.
async fn resolve(client: &Client, meant: &str) -> anyhow::Result<wire::TargetType> {
    let list: wire::TypeList = client.get("/backup_target_types").await?;
    pick(list.backup_target_types, meant)
}

fn pick(types: Vec<wire::TargetType>, meant: &str) -> anyhow::Result<wire::TargetType> {
    // Anybody may give a type the id of another as its name; an id means one type.
    let (mut candidates, mut others): (Vec<_>, Vec<_>) =
        types.into_iter().partition(|found| found.target_type.id == meant);
    if candidates.is_empty() {
        (candidates, others) = others.into_iter().partition(|found| found.target_type.name == meant);
    }
    if candidates.is_empty() && !meant.is_empty() {
        candidates = others.into_iter().filter(|found| found.target_type.id.starts_with(meant)).collect();
    }
    match (candidates.pop(), candidates.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => bail!("{meant:?} is more than one target type: give the whole id (targetwatch type list)"),
        (None, _) => bail!("there is no target type {meant:?}: `targetwatch type list` shows what there is"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::Cli;

    fn target_type(id: &str, name: &str) -> wire::TargetType {
        let value = json!({
            "id": id, "backup_targets_id": "", "created_at": "", "updated_at": "", "version": "", "user_id": null,
            "name": name, "is_default": false, "description": null, "is_public": true,
            "backup_target_type_projects": [], "backup_target_type_metadata": [],
        });
        serde_json::from_value(value).expect("a type")
    }

    #[test]
    fn a_type_is_meant_by_id_the_beginning_of_one_or_name() {
        let types = || vec![target_type("ab12", "nightly"), target_type("ab34", "ab1"), target_type("cd56", "ab12")];
        for (meant, id) in [("ab12", "ab12"), ("ab3", "ab34"), ("nightly", "ab12"), ("ab1", "ab34")] {
            assert_eq!(pick(types(), meant).expect(meant).target_type.id, id);
        }
        assert!(pick(types(), "ab").expect_err("two").to_string().contains("more than one"));
        assert!(pick(types(), "x").expect_err("none").to_string().contains("type list"));
        assert!(pick(types(), "").is_err());
    }

    fn command(line: &str) -> Result<Command, clap::Error> {
        let words = ["targetwatch", "type"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words)?.command {
            crate::cli::Command::Type(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    fn sent(line: &str) -> Value {
        let body = match command(line).expect(line) {
            Command::Create(create) => serde_json::to_value(new_type(create, "T".to_owned())),
            Command::Update(update) => serde_json::to_value(type_update(update)),
            Command::AddProjects(projects) => serde_json::to_value(project_list(projects)),
            Command::RemoveMetadata { notes, .. } => {
                serde_json::to_value(metadata_list(notes.iter().map(|text| key_or_pair(text)).collect()))
            }
            other => panic!("{other:?}"),
        };
        body.expect("JSON")
    }

    #[test]
    fn what_is_said_is_what_is_sent_and_nothing_else() {
        for (line, expected) in [
            ("create a --target t", json!({"name": "a", "backup_targets_id": "T"})),
            (
                "create a --target t --default --private --project p --project q --metadata k=v=w --description d",
                json!({"name": "a", "backup_targets_id": "T", "description": "d", "is_default": true,
                    "is_public": false, "project_list": ["p", "q"], "metadata": [{"key": "k", "value": "v=w"}]}),
            ),
            ("update a", json!({})),
            ("update a --public --purge-metadata", json!({"is_public": true, "purge_metadata": true})),
            ("update a --description ", json!({"description": ""})),
            ("update a --private --name b", json!({"is_public": false, "name": "b"})),
            ("update a --project p --purge-projects", json!({"project_list": ["p"], "purge_projects": true})),
            ("add-projects a p q", json!({"backup_target_type": {"project_list": ["p", "q"]}})),
            (
                "remove-metadata a k l=m",
                json!({"backup_target_type": {"metadata": [{"key": "k"}, {"key": "l", "value": "m"}]}}),
            ),
        ] {
            assert_eq!(sent(line), expected, "{line}");
        }
        for wrong in [
            "create a",
            "update a --public --private",
            "update a --public --project p",
            "update a --name ",
            "add-projects a",
            "add-metadata a k",
            "remove-metadata a",
        ] {
            assert!(command(wrong).is_err(), "{wrong}");
        }
    }
}
