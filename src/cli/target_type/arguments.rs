//! Arguments of `targetwatch type`, and the request bodies that they describe.

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand};

use crate::api::wire::{
    MetadataBody, MetadataEntry, MetadataList, MetadataPair, MetadataRemoval, MetadataRemovalBody, NewType,
    ProjectList, ProjectsBody, TypeUpdate,
};
use crate::cli::metadata::metadata_entry;
use crate::cli::output::{OutputOptions, PageOptions};

/// Operation on target types. A TYPE is an id, the beginning of an id, or a name. A PROJECT is the id
/// of a project.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the target types
    List {
        /// Page of the list.
        #[command(flatten)]
        page: PageOptions,
        /// Format of the output.
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Show a target type with its projects and metadata
    Show {
        /// Target type: id, beginning of an id, or name
        #[arg(value_name = "TYPE")]
        target_type: String,
        /// Format of the output.
        #[command(flatten)]
        output: OutputOptions,
    },
    /// Create a target type; it is public unless --private or --project is given
    Create(Create),
    /// Change a target type; other properties keep their values
    Update(Update),
    /// Make a target type visible to projects; a public type becomes private to them
    AddProjects(Projects),
    /// Hide a target type from projects; it does not become public
    RemoveProjects(Projects),
    /// Add metadata to a target type
    AddMetadata {
        /// Target type: id, beginning of an id, or name
        #[arg(value_name = "TYPE")]
        target_type: String,
        /// Metadata to add
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = metadata_entry)]
        metadata: Vec<(String, String)>,
    },
    /// Remove metadata from a target type
    RemoveMetadata {
        /// Target type: id, beginning of an id, or name
        #[arg(value_name = "TYPE")]
        target_type: String,
        /// Keys to remove; a key with a value is removed only if it has this value
        #[arg(required = true, value_name = "KEY[=VALUE]", value_parser = NonEmptyStringValueParser::new())]
        metadata: Vec<String>,
    },
    /// Delete a target type; its target is kept
    Delete {
        /// Target type: id, beginning of an id, or name
        #[arg(value_name = "TYPE")]
        target_type: String,
        /// Delete without asking for confirmation
        #[arg(long)]
        yes: bool,
    },
}

/// Properties of a new target type.
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the target type
    pub(super) name: String,
    /// Target: id, beginning of an id, export, or name of one of its types
    #[arg(long)]
    pub(super) target: String,
    /// Description of the target type
    #[arg(long)]
    pub(super) description: Option<String>,
    /// Make this target type and its target the default
    #[arg(long)]
    pub(super) default: bool,
    /// Make it visible only to its projects and to admins
    #[arg(long)]
    pub(super) private: bool,
    /// Project that can see it; may be repeated
    #[arg(long = "project", value_name = "PROJECT")]
    pub(super) projects: Vec<String>,
    /// Metadata entry; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = metadata_entry)]
    pub(super) metadata: Vec<(String, String)>,
}

/// Changes of a target type.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("visibility").args(["public", "private"])))]
pub struct Update {
    /// Target type: id, beginning of an id, or name
    #[arg(value_name = "TYPE")]
    pub(super) target_type: String,
    /// New name
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(super) name: Option<String>,
    /// New description; "" removes it
    #[arg(long)]
    pub(super) description: Option<String>,
    /// Make this target type and its target the default
    #[arg(long)]
    pub(super) default: bool,
    /// Make it visible to every project
    #[arg(long, conflicts_with = "projects")]
    pub(super) public: bool,
    /// Make it visible only to its projects and to admins
    #[arg(long)]
    pub(super) private: bool,
    /// Project that can see it, in addition to its current projects; may be repeated
    #[arg(long = "project", value_name = "PROJECT")]
    pub(super) projects: Vec<String>,
    /// Hide it from all other projects
    #[arg(long)]
    pub(super) purge_projects: bool,
    /// Metadata entry; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = metadata_entry)]
    pub(super) metadata: Vec<(String, String)>,
    /// Remove all other metadata
    #[arg(long)]
    pub(super) purge_metadata: bool,
}

/// Target type and projects.
#[derive(Debug, Args)]
pub struct Projects {
    /// Target type: id, beginning of an id, or name
    #[arg(value_name = "TYPE")]
    pub(super) target_type: String,
    /// Ids of the projects
    #[arg(required = true, value_name = "PROJECT")]
    pub(super) projects: Vec<String>,
}

/// Builds the request body of `create`. `target` is the id of the target.
pub(super) fn new_type(create: Create, target: String) -> NewType {
    let Create { name, target: _, description, default, private, projects, metadata } = create;
    NewType {
        name,
        backup_targets_id: target,
        description,
        is_default: default.then_some(true),
        is_public: private.then_some(false),
        project_list: projects,
        metadata: entries(metadata),
    }
}

/// Builds the request body of `update`.
pub(super) fn type_update(update: Update) -> TypeUpdate {
    let Update {
        target_type: _,
        name,
        description,
        default,
        public,
        private,
        projects,
        purge_projects,
        metadata,
        purge_metadata,
    } = update;
    TypeUpdate {
        name,
        description,
        is_default: default.then_some(true),
        is_public: (public || private).then_some(public),
        project_list: projects,
        purge_projects: purge_projects.then_some(true),
        metadata: entries(metadata),
        purge_metadata: purge_metadata.then_some(true),
        ..TypeUpdate::default()
    }
}

fn entries(metadata: Vec<(String, String)>) -> Vec<MetadataEntry> {
    metadata.into_iter().map(|(key, value)| MetadataEntry { key, value }).collect()
}

/// Builds the request body of `add-projects` and `remove-projects`.
pub(super) fn project_list(projects: Projects) -> ProjectsBody {
    let Projects { target_type: _, projects } = projects;
    ProjectsBody { backup_target_type: ProjectList { backup_target_type_id: None, project_list: projects } }
}

/// Builds the request body of `add-metadata`.
pub(super) fn metadata_list(metadata: Vec<(String, String)>) -> MetadataBody {
    MetadataBody { backup_target_type: MetadataList { backup_target_type_id: None, metadata: entries(metadata) } }
}

/// Builds the request body of `remove-metadata`.
pub(super) fn metadata_removal(metadata: &[String]) -> MetadataRemovalBody {
    let metadata = metadata.iter().map(|text| key_or_pair(text)).collect();
    MetadataRemovalBody { backup_target_type: MetadataRemoval { backup_target_type_id: None, metadata } }
}

/// Parses `KEY` or `KEY=VALUE`.
fn key_or_pair(text: &str) -> MetadataPair {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
    MetadataPair { key: key.to_owned(), value }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::Cli;

    fn command(line: &str) -> Result<Command, clap::Error> {
        let words = ["targetwatch", "type"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words)?.command {
            crate::cli::Command::Type(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    fn request_body(line: &str) -> Value {
        let body = match command(line).expect(line) {
            Command::Create(create) => serde_json::to_value(new_type(create, "T".to_owned())),
            Command::Update(update) => serde_json::to_value(type_update(update)),
            Command::AddProjects(projects) => serde_json::to_value(project_list(projects)),
            Command::RemoveMetadata { metadata, .. } => serde_json::to_value(metadata_removal(&metadata)),
            other => panic!("{other:?}"),
        };
        body.expect("JSON")
    }

    #[test]
    fn request_body_contains_only_given_options() {
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
            assert_eq!(request_body(line), expected, "{line}");
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
