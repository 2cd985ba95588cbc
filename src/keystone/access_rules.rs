//! Access rules of application credentials: the requests for which a token may be used.
//!
//! Keystone validates a token with access rules only for services that announce that they enforce the rules (Identity
//! API v3, "Validate and show information for token"). A rule allows one method on the paths that match a pattern, for
//! one type of service. Patterns are those of `_path_matches` in keystonemiddleware's `auth_token`: `*` and `{name}`
//! match one or more characters other than `/`, `**` matches any characters, and everything else matches itself.

use serde::Deserialize;

use super::bounded::bounded;

/// Longest path that a rule can allow, in bytes. No route has a longer one.
const PATH_MAX_BYTES: usize = 1024;

/// One access rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccessRule {
    /// Type of the service, as in Keystone's catalog.
    #[serde(deserialize_with = "bounded")]
    pub service: String,
    #[serde(deserialize_with = "bounded")]
    method: String,
    #[serde(deserialize_with = "bounded")]
    path: String,
}

impl AccessRule {
    /// Whether the rule allows a request. `path` is the path as the client sent it.
    #[must_use]
    pub fn allows(&self, method: &str, path: &str) -> bool {
        self.method == method && path.len() <= PATH_MAX_BYTES && matches(self.path.as_bytes(), path.as_bytes())
    }
}

/// Part of a pattern.
enum Part {
    Byte(u8),
    /// One or more bytes other than `/`.
    Segment,
    /// Any bytes.
    Any,
}

/// Splits the first part off a pattern. A brace that is not closed is a literal character.
fn first_part(pattern: &[u8]) -> Option<(Part, &[u8])> {
    let (first, rest) = pattern.split_first()?;
    let tag = if *first == b'{' { rest.iter().position(|byte| *byte == b'}') } else { None };
    Some(match (first, rest, tag) {
        (b'*', [b'*', rest @ ..], _) => (Part::Any, rest),
        (b'*', ..) => (Part::Segment, rest),
        (.., Some(end)) => (Part::Segment, &rest[end + 1..]),
        _ => (Part::Byte(*first), rest),
    })
}

/// Whether a path matches a pattern. The time is proportional to the product of both lengths, whatever they contain.
fn matches(mut pattern: &[u8], path: &[u8]) -> bool {
    // Entry n: whether the pattern so far matches the first n bytes of the path.
    let mut matched = vec![false; path.len() + 1];
    matched[0] = true;
    while let Some((part, rest)) = first_part(pattern) {
        let mut next = vec![false; path.len() + 1];
        next[0] = matched[0] && matches!(part, Part::Any);
        for (at, byte) in path.iter().enumerate() {
            next[at + 1] = match part {
                Part::Byte(expected) => matched[at] && *byte == expected,
                Part::Segment => (matched[at] || next[at]) && *byte != b'/',
                Part::Any => matched[at + 1] || next[at],
            };
        }
        (matched, pattern) = (next, rest);
    }
    matched[path.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_of_a_rule_matches_as_in_keystonemiddleware() {
        for (pattern, path, expected) in [
            ("/v1/p/backup_targets", "/v1/p/backup_targets", true),
            ("/v1/p/backup_targets", "/v1/p/backup_targets/", false),
            ("/v1/p/backup_targets", "/v1/p/backup_targets/x", false),
            ("/v1/*/backup_targets", "/v1/p/backup_targets", true),
            ("/v1/*/backup_targets", "/v1//backup_targets", false),
            ("/v1/*/backup_targets", "/v1/p/q/backup_targets", false),
            ("/v1/{project_id}/backup_targets/{id}", "/v1/p/backup_targets/x", true),
            ("/v1/{project_id}/backup_targets/{id}", "/v1/p/backup_targets/x/set_default", false),
            ("/v1/{project_id}/backup_targets/{id}", "/v1/p/backup_targets/", false),
            ("/backup_*/x", "/backup_targets/x", true),
            ("/backup_targets/a*", "/backup_targets/a", false),
            ("/**", "/v1/p/backup_targets", true),
            ("**", "", true),
            ("/v1/**/set_default", "/v1/p/backup_targets/x/set_default", true),
            ("/v1/**/set_default", "/v1/p/backup_targets/x", false),
            ("/v1/**", "/v1", false),
            ("/v1/***", "/v1/", false),
            ("/v1/***", "/v1/a", true),
            ("/a.c", "/abc", false),
            ("/a{b", "/a{b", true),
            ("/a{b", "/axb", false),
            ("/(a|b)+", "/a", false),
            ("", "/", false),
            ("/*", "/%2F", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn hostile_pattern_takes_little_time() {
        let pattern = "**a".repeat(80);
        let path = "a".repeat(PATH_MAX_BYTES - 1) + "b";
        assert!(!matches(pattern.as_bytes(), path.as_bytes()));
        let rule = AccessRule { service: "workloads".to_owned(), method: "GET".to_owned(), path: "**".to_owned() };
        assert!(rule.allows("GET", &path) && !rule.allows("get", &path));
        assert!(!rule.allows("GET", &"a".repeat(PATH_MAX_BYTES + 1)));
    }
}
