//! Callers: who a request is from, and what that one may see.
//!
//! Whoever authenticates requests makes a caller of each; handlers ask it and know nothing of
//! tokens.

use super::TargetType;

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user, where authentication tells one.
    pub user_id: Option<String>,
    /// The project on whose behalf the request is, where authentication tells one.
    pub project_id: Option<String>,
    /// Whether it may change targets and types, and sees all of them.
    pub is_admin: bool,
}

impl Caller {
    /// Whoever may use the agent's socket: an admin of no project.
    #[must_use]
    pub fn local() -> Self {
        Self { user_id: None, project_id: None, is_admin: true }
    }

    /// Whether a target type is there for this caller.
    #[must_use]
    pub fn may_see(&self, target_type: &TargetType) -> bool {
        self.is_admin || target_type.is_public
    }
}
