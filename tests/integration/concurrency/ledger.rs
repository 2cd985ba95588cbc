//! The targets and types of one client, according to the answers that it received.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// A change that a client requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    CreateTarget { export: String, note: String },
    SetNote { target: String, note: String },
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
    /// The method, path and body of its request.
    pub fn request(&self) -> (&'static str, String, Option<Value>) {
        let type_path = |id: &str, rest: &str| format!("/backup_target_types/{id}{rest}");
        let of_type = |fields: Value| Some(json!({ "backup_target_type": fields }));
        match self {
            Self::CreateTarget { export, note } => {
                let fields = json!({ "type": "nfs", "filesystem_export": export, "metadata": { "note": note } });
                ("POST", "/backup_targets".to_owned(), Some(json!({ "backup_target": fields })))
            }
            Self::SetNote { target, note } => {
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

    /// Whether it can conflict with another client's change or with the default.
    pub fn may_conflict(&self) -> bool {
        matches!(
            self,
            Self::CreateTarget { .. } | Self::CreateType { .. } | Self::DeleteTarget { .. } | Self::DeleteType { .. }
        )
    }
}

/// The expected fields of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ExpectedTarget {
    export: String,
    note: String,
}

/// The expected fields of a type. The first type of a target is not included, because it belongs to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ExpectedType {
    target: String,
    name: String,
    description: Option<String>,
    projects: BTreeSet<String>,
}

/// The targets and types of one client by id, and its last default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    targets: BTreeMap<String, ExpectedTarget>,
    types: BTreeMap<String, ExpectedType>,
    default: Option<String>,
}

/// The state according to the answers, and the change without an answer.
#[derive(Debug, Default)]
pub struct Ledger {
    state: State,
    pending: Option<Change>,
    /// Number of confirmed changes.
    pub confirmed: u64,
}

impl Ledger {
    pub fn target_ids(&self) -> Vec<String> {
        self.state.targets.keys().cloned().collect()
    }

    pub fn type_ids(&self) -> Vec<String> {
        self.state.types.keys().cloned().collect()
    }

    /// Records a change whose answer is pending.
    pub fn request(&mut self, change: Change) {
        self.pending = Some(change);
    }

    /// Discards the pending change, which was refused.
    pub fn discard(&mut self) {
        self.pending = None;
    }

    /// Applies the pending change, which was answered with success.
    pub fn confirm(&mut self, answer: &Value) {
        let change = self.pending.take().expect("a pending change");
        let id = ["backup_targets", "backup_target_types"].iter().find_map(|key| answer[*key]["id"].as_str());
        self.state.apply(&change, id);
        self.confirmed += 1;
    }

    /// Asserts that the registry matches the ledger, with or without the pending change, and returns the ids of the
    /// client's targets.
    pub fn assert_kept(&self, targets: &[Value], types: &[Value]) -> BTreeSet<String> {
        let mut applied = self.state.clone();
        if let Some(change) = &self.pending {
            applied.apply(change, id_of(change, targets, types));
        }
        let found = State::found(&self.state, &applied, targets, types);
        let is_kept = found == self.state.without_default() || found == applied.without_default();
        assert!(is_kept, "found {found:#?}\nexpected {:#?}\nor the same with {:?}", self.state, self.pending);
        found.targets.into_keys().collect()
    }

    /// The targets that the client certainly or possibly made the default last.
    pub fn last_defaults(&self) -> Vec<String> {
        let mut applied = self.state.clone();
        if let Some(change) = &self.pending {
            applied.apply(change, None);
        }
        self.state.default.iter().chain(&applied.default).cloned().collect()
    }
}

impl State {
    /// Applies a change. `id` is the id of the created target or type.
    fn apply(&mut self, change: &Change, id: Option<&str>) {
        match change.clone() {
            Change::CreateTarget { export, note } => {
                if let Some(id) = id {
                    self.targets.insert(id.to_owned(), ExpectedTarget { export, note });
                }
            }
            Change::SetNote { target, note } => self.targets.get_mut(&target).expect("an expected one").note = note,
            Change::MakeDefault { target } => self.default = Some(target),
            Change::DeleteTarget { target } => {
                self.targets.remove(&target);
                self.types.retain(|_, expected| expected.target != target);
            }
            Change::CreateType { target, name, project } => {
                if let Some(id) = id {
                    let projects = project.into_iter().collect();
                    self.types.insert(id.to_owned(), ExpectedType { target, name, description: None, projects });
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

    fn of_type(&mut self, id: &str) -> &mut ExpectedType {
        self.types.get_mut(id).expect("an expected one")
    }

    fn without_default(&self) -> Self {
        Self { default: None, ..self.clone() }
    }

    /// The targets and types in the registry that one of two states contains.
    fn found(one: &Self, other: &Self, targets: &[Value], types: &[Value]) -> Self {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let mut found = Self::default();
        for target in targets {
            let id = text(&target["id"]);
            if one.targets.contains_key(&id) || other.targets.contains_key(&id) {
                let notes = target["backup_target_metadata"].as_array().expect("a list");
                let note = notes.iter().find(|entry| entry["key"] == "note").map(|entry| text(&entry["value"]));
                let expected =
                    ExpectedTarget { export: text(&target["filesystem_export"]), note: note.expect("a note") };
                found.targets.insert(id, expected);
            }
        }
        for item in types {
            let id = text(&item["id"]);
            if one.types.contains_key(&id) || other.types.contains_key(&id) {
                let projects = item["backup_target_type_projects"].as_array().expect("a list");
                let expected = ExpectedType {
                    target: text(&item["backup_targets_id"]),
                    name: text(&item["name"]),
                    description: item["description"].as_str().map(str::to_owned),
                    projects: projects.iter().map(|project| text(&project["project_id"])).collect(),
                };
                found.types.insert(id, expected);
            }
        }
        found
    }
}

/// The id of the target or type that a change created, if it exists.
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

/// The list under a key of an answer.
pub fn items<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().unwrap_or_else(|| panic!("{key} is missing: {answer}"))
}
