//! Projects: the owners of a target type that is not public.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use uuid::Uuid;

/// The lengths of a project id: 32 hexadecimal digits, or the same as a UUID with dashes.
const LENGTHS: [usize; 2] = [32, 36];

/// Longest quotation of an invalid project id in an error, in characters.
const SHOWN_CHARS: usize = 64;

/// A project's id in Keystone's format: 32 lower-case hexadecimal digits. A UUID with dashes or upper-case digits are
/// other spellings of the same id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectId(String);

impl ProjectId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// A text that is not a project id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the id of a project: expected 32 hexadecimal digits or a UUID (openstack project list shows the ids)"
)]
pub struct NotAProjectId(pub String);

impl FromStr for ProjectId {
    type Err = NotAProjectId;

    fn from_str(text: &str) -> Result<Self, NotAProjectId> {
        // All other spellings of a UUID have other lengths.
        let id = Uuid::try_parse(text).ok().filter(|_| LENGTHS.contains(&text.len()));
        id.map(|id| Self(id.simple().to_string()))
            .ok_or_else(|| NotAProjectId(text.chars().take(SHOWN_CHARS).collect()))
    }
}

/// Assignment of a target type to a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeProject {
    /// Id of the assignment, a version 4 UUID.
    pub id: Uuid,
    /// The project.
    pub project_id: ProjectId,
    /// When it was assigned.
    pub created_at: Timestamp,
    /// When the assignment was changed, if ever.
    pub updated_at: Option<Timestamp>,
    /// The version of the agent that assigned it.
    pub version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_id_is_normalized() {
        for text in [
            "fc439373e340459fb28202b2412e26c0",
            "FC439373E340459FB28202B2412E26C0",
            "fc439373-e340-459f-b282-02b2412e26c0",
        ] {
            assert_eq!(text.parse::<ProjectId>().expect(text).as_str(), "fc439373e340459fb28202b2412e26c0");
        }
        for text in [
            "",
            "admin",
            "fc439373e340459fb28202b2412e26c",
            "gc439373e340459fb28202b2412e26c0",
            " fc439373e340459fb28202b2412e26c0",
            "{fc439373-e340-459f-b282-02b2412e26c0}",
            "urn:uuid:fc439373-e340-459f-b282-02b2412e26c0",
        ] {
            let error = text.parse::<ProjectId>().expect_err(text).to_string();
            assert!(error.contains("32 hexadecimal digits"), "{error}");
        }
    }
}
