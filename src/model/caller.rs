//! Callers: the identity behind a request, and what it may see.
//!
//! Authentication turns each request's token into a caller. Handlers use the caller and do not know about tokens.

use super::project::ProjectId;
use super::target_type::TargetType;

/// User and project of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user, if authentication names one.
    pub user_id: Option<String>,
    /// The project of the request, if authentication names one.
    pub project_id: Option<String>,
    /// Whether it may change targets and types, and sees all of them.
    pub is_admin: bool,
}

impl Caller {
    /// The caller of a request without a token: an admin without a project.
    #[must_use]
    pub fn local() -> Self {
        Self { user_id: None, project_id: None, is_admin: true }
    }

    /// Whether this caller may see a target type.
    #[must_use]
    pub fn may_see(&self, target_type: &TargetType) -> bool {
        let is_own = || self.project().is_some_and(|project| target_type.is_of(&project));
        self.is_admin || target_type.is_public || is_own()
    }

    /// The project of the request, if its id has the form that target types accept.
    #[must_use]
    pub fn project(&self) -> Option<ProjectId> {
        self.project_id.as_ref()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::model::TypeProject;

    const MINE: &str = "fc439373e340459fb28202b2412e26c0";
    const OTHER: &str = "0920f871077c4c079057ce940d8105a8";

    fn target_type(is_public: bool, projects: &[&str]) -> TargetType {
        let assigned = |project: &&str| TypeProject {
            id: Uuid::nil(),
            project_id: project.parse().expect("an id"),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
            version: String::new(),
        };
        TargetType {
            id: Uuid::nil(),
            target_id: Uuid::nil(),
            name: "a".to_owned(),
            description: None,
            is_public,
            is_default: false,
            user_id: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
            version: String::new(),
            projects: projects.iter().map(assigned).collect(),
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn private_type_is_visible_to_its_projects_and_admins() {
        let member =
            |project: Option<&str>| Caller { user_id: None, project_id: project.map(str::to_owned), is_admin: false };
        let dashed = "FC439373-e340-459f-b282-02b2412e26c0";
        for (is_public, projects, caller, expected) in [
            (true, &[][..], member(None), true),
            (true, &[][..], member(Some(OTHER)), true),
            (false, &[MINE][..], member(Some(MINE)), true),
            (false, &[OTHER, MINE][..], member(Some(dashed)), true),
            (false, &[MINE][..], member(Some(OTHER)), false),
            (false, &[MINE][..], member(None), false),
            (false, &[MINE][..], member(Some("")), false),
            (false, &[][..], member(Some(MINE)), false),
            (false, &[][..], Caller::local(), true),
        ] {
            assert_eq!(caller.may_see(&target_type(is_public, projects)), expected, "{projects:?} {caller:?}");
        }
    }
}
