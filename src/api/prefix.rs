//! Prefixes: `/v1/…` and `/v1/{project_id}/…` mean the same as `/…`.
//!
//! The clients of the field put their project into the path. Targets belong to the node and not to
//! a project, so it is accepted and not looked at.

use axum::http::Uri;

/// The path without its prefix; `None` when there is none.
#[must_use]
pub fn stripped(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().strip_prefix("/v1/")?;
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    if super::is_root(first) {
        return super::with_path(uri, &format!("/{rest}"));
    }
    super::with_path(uri, &format!("/{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_project_are_taken_off_and_nothing_else() {
        for (given, expected) in [
            ("/backup_targets", None),
            ("/v1", None),
            ("/v1/backup_targets", Some("/backup_targets")),
            ("/v1/backup_targets/detail?x=1", Some("/backup_targets/detail?x=1")),
            ("/v1/7f/backup_targets/a/checks", Some("/backup_targets/a/checks")),
            ("/v1/backup_target_types/x", Some("/backup_target_types/x")),
            ("/v1/7f/backup_target_types", Some("/backup_target_types")),
            ("/v1/7f/healthz", Some("/healthz")),
            ("/v1/7f/v1/healthz", Some("/v1/healthz")),
            ("/v2/backup_targets", None),
        ] {
            let uri: Uri = given.parse().expect(given);
            assert_eq!(stripped(&uri).map(|uri| uri.to_string()).as_deref(), expected, "{given}");
        }
    }
}
