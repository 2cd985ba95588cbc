//! Remedies: what to do about a reason, from the table in `docs/troubleshooting.md`.
//!
//! The page is the only statement of it. A test in [`super::reason`] compares its table with the reasons.

/// The page with the table.
const PAGE: &str = include_str!("../../docs/troubleshooting.md");

/// Returns what to do about the reason with this code, in the Markdown of the page. `None` if the code is unknown, such
/// as one that another version of the agent recorded.
#[must_use]
pub fn remedy(code: &str) -> Option<&'static str> {
    PAGE.lines().find_map(|line| {
        let (found, remedy) = line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | ")?;
        (found == code).then_some(remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    #[test]
    fn every_reason_has_a_remedy() {
        for reason in Reason::ALL {
            assert!(remedy(reason.as_str()).is_some_and(|text| text.len() > 10), "{}", reason.as_str());
        }
        assert_eq!(remedy("no_such_reason"), None);
    }
}
