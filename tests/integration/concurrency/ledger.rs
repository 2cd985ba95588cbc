//! What one client was output.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// A change that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    CreateTarget { export: String, note: String },
    Note { target: String, note: String },
    MakeDefault { target: String },
    DeleteTarget { target: String },
    CreateType { target: String, name: String, project: Option<String> },
    Describe { id: String, description: String },
    AddProject { id: String, project: String },
    RemoveProject { id: String, project: String },
    MakeTypeDefault { id: String },
    DeleteType { id: String },
}

impl Change {
    /// Its method, path and body.
    pub fn request(&self) -> (&'static str, String, Option<Value>) {
        let type_path = |id: &str, rest: &str| format!("/backup_target_types/{id}{rest}");
        let of_type = |fields: Value| Some(json!({ "backup_target_type": fields }));
        match self {
            Self::CreateTarget { export, note } => {
                let fields = json!({ "type": "nfs", "filesystem_export": export, "metadata": { "note": note } });
                ("POST", "/backup_targets".to_owned(), Some(json!({ "backup_target": fields })))
            }
            Self::Note { target, note } => {
                let body = json!({ "backup_target": { "metadata": { "note": note } } });
                ("PUT", format!("/backup_targets/{target}"), Some(body))
            }
            Self::MakeDefault { target } => ("GET", format!("/backup_targets/{target}/set_default"), None),
            Self::DeleteTarget { target } => ("DELETE", format!("/backup_targets/{target}"), None),
            Self::CreateType { target, name, project } => {
                let mut fields = json!({ "name": name, "backup_targets_id": target });
                if let Some(project) = project {
                    fields["project_list"] = json!([project]);
                }
                ("POST", "/backup_target_types".to_owned(), of_type(fields))
            }
            Self::Describe { id, description } => {
                ("PUT", type_path(id, ""), of_type(json!({ "description": description })))
            }
            Self::AddProject { id, project } => {
                ("POST", type_path(id, "/add_projects"), of_type(json!({ "project_list": [project] })))
            }
            Self::RemoveProject { id, project } => {
                ("PUT", type_path(id, "/remove_projects"), of_type(json!({ "project_list": [project] })))
            }
            Self::MakeTypeDefault { id } => ("PUT", type_path(id, ""), of_type(json!({ "is_default": 1 }))),
            Self::DeleteType { id } => ("DELETE", type_path(id, ""), None),
        }
    }

    /// Whether others, or the default, can be in its way.
    pub fn may_conflict(&self) -> bool {
        matches!(
            self,
            Self::CreateTarget { .. } | Self::CreateType { .. } | Self::DeleteTarget { .. } | Self::DeleteType { .. }
        )
    }
}

/// A target as a client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownTarget {
    export: String,
    note: String,
}

/// A type as a client knows it. A target's first type is not among them: it goes with its target.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownType {
    target: String,
    name: String,
    description: Option<String>,
    projects: BTreeSet<String>,
}

/// Everything of one client, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    targets: BTreeMap<String, KnownTarget>,
    types: BTreeMap<String, KnownType>,
    default: Option<String>,
}

/// What a client knows, and what it asked for and has no answer to.
#[derive(Debug, Default)]
pub struct Ledger {
    state: State,
    asked: Option<Change>,
    /// How many of its changes were made.
    pub done: u64,
}

impl Ledger {
    pub fn target_ids(&self) -> Vec<String> {
        self.state.targets.keys().cloned().collect()
    }

    pub fn type_ids(&self) -> Vec<String> {
        self.state.types.keys().cloned().collect()
    }

    pub fn ask(&mut self, change: Change) {
        self.asked = Some(change);
    }

    pub fn was_refused(&mut self) {
        self.asked = None;
    }

    pub fn was_done(&mut self, answer: &Value) {
        let change = self.asked.take().expect("asked for");
        let id = ["backup_targets", "backup_target_types"].iter().find_map(|key| answer[*key]["id"].as_str());
        self.state.apply(&change, id);
        self.done += 1;
    }

    /// Fails unless all is as this client knows it, with or without the change that was not answered.
    /// Gives the targets that are its own.
    pub fn assert_kept(&self, targets: &[Value], types: &[Value]) -> BTreeSet<String> {
        let mut made = self.state.clone();
        if let Some(change) = &self.asked {
            made.apply(change, id_of(change, targets, types));
        }
        let found = State::found(&self.state, &made, targets, types);
        let is_so = found == self.state.without_default() || found == made.without_default();
        assert!(is_so, "found {found:#?}\nexpected {:#?}\nor {:?} made", self.state, self.asked);
        found.targets.into_keys().collect()
    }

    /// The targets that it made the default last, or may have.
    pub fn last_defaults(&self) -> Vec<String> {
        let mut made = self.state.clone();
        if let Some(change) = &self.asked {
            made.apply(change, None);
        }
        self.state.default.iter().chain(&made.default).cloned().collect()
    }
}

impl State {
    /// What it is after a change; `id` is that of what was created.
    fn apply(&mut self, change: &Change, id: Option<&str>) {
        match change.clone() {
            Change::CreateTarget { export, note } => {
                if let Some(id) = id {
                    self.targets.insert(id.to_owned(), KnownTarget { export, note });
                }
            }
            Change::Note { target, note } => self.targets.get_mut(&target).expect("known").note = note,
            Change::MakeDefault { target } => self.default = Some(target),
            Change::DeleteTarget { target } => {
                self.targets.remove(&target);
                self.types.retain(|_, known| known.target != target);
            }
            Change::CreateType { target, name, project } => {
                if let Some(id) = id {
                    let projects = project.into_iter().collect();
                    self.types.insert(id.to_owned(), KnownType { target, name, description: None, projects });
                }
            }
            Change::Describe { id, description } => self.of_type(&id).description = Some(description),
            Change::AddProject { id, project } => {
                self.of_type(&id).projects.insert(project);
            }
            Change::RemoveProject { id, project } => {
                self.of_type(&id).projects.remove(&project);
            }
            Change::MakeTypeDefault { id } => self.default = Some(self.of_type(&id).target.clone()),
            Change::DeleteType { id } => {
                self.types.remove(&id);
            }
        }
    }

    fn of_type(&mut self, id: &str) -> &mut KnownType {
        self.types.get_mut(id).expect("known")
    }

    fn without_default(&self) -> Self {
        Self { default: None, ..self.clone() }
    }

    /// What is there of what one of two states knows.
    fn found(one: &Self, other: &Self, targets: &[Value], types: &[Value]) -> Self {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let mut found = Self::default();
        for target in targets {
            let id = text(&target["id"]);
            if one.targets.contains_key(&id) || other.targets.contains_key(&id) {
                let notes = target["backup_target_metadata"].as_array().expect("a list");
                let note = notes.iter().find(|entry| entry["key"] == "note").map(|entry| text(&entry["value"]));
                let known = KnownTarget { export: text(&target["filesystem_export"]), note: note.expect("a note") };
                found.targets.insert(id, known);
            }
        }
        for item in types {
            let id = text(&item["id"]);
            if one.types.contains_key(&id) || other.types.contains_key(&id) {
                let projects = item["backup_target_type_projects"].as_array().expect("a list");
                let known = KnownType {
                    target: text(&item["backup_targets_id"]),
                    name: text(&item["name"]),
                    description: item["description"].as_str().map(str::to_owned),
                    projects: projects.iter().map(|project| text(&project["project_id"])).collect(),
                };
                found.types.insert(id, known);
            }
        }
        found
    }
}

/// The id of what a change created, if it did.
fn id_of<'a>(change: &Change, targets: &'a [Value], types: &'a [Value]) -> Option<&'a str> {
    let created = match change {
        Change::CreateTarget { export, note } => targets.iter().find(|target| {
            let notes = target["backup_target_metadata"].as_array().expect("a list");
            target["filesystem_export"] == json!(export) && notes.contains(&json!({ "key": "note", "value": note }))
        }),
        Change::CreateType { target, name, .. } => {
            types.iter().find(|found| found["name"] == json!(name) && found["backup_targets_id"] == json!(target))
        }
        _ => None,
    };
    created?["id"].as_str()
}

/// The list that an answer has under a key.
pub fn items<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().unwrap_or_else(|| panic!("{key} is missing: {answer}"))
}
