//! Target types: named ways to use a target, which clients select by name.
//!
//! A type is either public or assigned to projects. Every target has at least one type. The default type belongs
//! to the default target, so a client that names neither a target nor a type gets the same storage either way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::line::{LINE_MAX_CHARS, invisible_problem, line_problem};
use super::project::{ProjectId, TypeProject};
use super::target::TargetId;

/// A target type's id: a version 4 UUID.
pub type TargetTypeId = Uuid;

/// Largest number of metadata entries of one type.
pub const TYPE_METADATA_MAX: usize = 64;

/// Largest length of a metadata key or value of a type, in bytes.
pub const TYPE_METADATA_MAX_BYTES: usize = 255;

/// Largest number of projects of one type.
pub const TYPE_PROJECTS_MAX: usize = 1000;

/// A target type as the registry stores it. The first one of a target is created with the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetType {
    /// Id of the type.
    pub id: TargetTypeId,
    /// The target that it uses.
    pub target_id: TargetId,
    /// Name, unique among all target types.
    pub name: String,
    /// Description by its creator.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub is_public: bool,
    /// Whether clients that name no type use this one. At most one type is the default.
    pub is_default: bool,
    /// The user who created it, if authentication names one.
    pub user_id: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed, if ever.
    pub updated_at: Option<Timestamp>,
    /// The version of the agent that created it.
    pub version: String,
    /// The projects that see it, in the order of their assignment. Empty when it is public. Only admins see a
    /// type that is neither public nor assigned to a project.
    pub projects: Vec<TypeProject>,
    /// Metadata of the type.
    pub metadata: BTreeMap<String, String>,
}

impl TargetType {
    /// Whether it is assigned to this project.
    #[must_use]
    pub fn is_of(&self, project: &ProjectId) -> bool {
        self.projects.iter().any(|assigned| assigned.project_id == *project)
    }
}

/// Returns the problem of a name of a target type, if there is one. A name contains no invisible character.
#[must_use]
pub fn type_name_problem(name: &str) -> Option<String> {
    if let Some(problem) = line_problem(name, LINE_MAX_CHARS) {
        return Some(problem);
    }
    if name.trim() != name {
        return Some(format!("{name:?} begins or ends with a blank: leave it out"));
    }
    invisible_problem(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_the_same_are_the_same() {
        for name in ["nightly", "Zoë's", "two words", "日本", "nas:/b", "a\u{e9}b", "קבצים"] {
            assert_eq!(type_name_problem(name), None, "{name:?}");
        }
        for (name, part) in [
            ("", "expected 1 to 255"),
            (" a", "begins or ends with a blank"),
            ("a ", "begins or ends with a blank"),
            ("a\u{a0}", "begins or ends with a blank"),
            ("a\tb", "a control character"),
            ("a\u{200b}b", "U+200B"),
            ("a\u{200d}b", "U+200D"),
            ("a\u{202e}b", "U+202E"),
            ("a\u{2066}b", "U+2066"),
            ("a\u{2028}b", "U+2028"),
            ("a\u{ad}b", "U+00AD"),
            ("\u{feff}a", "U+FEFF"),
            ("\u{3164}", "U+3164"),
        ] {
            let problem = type_name_problem(name).expect(name);
            assert!(problem.contains(part), "{problem}");
        }
    }
}
