//! Prefixes: `/v1/…` and `/v1/{project_id}/…` mean the same as `/…`.
//!
//! The clients of the field put their project into the path. Targets belong to the node and not to
//! a project, so it changes no answer; but a token for another project is refused with it
//! ([`super::auth`]).

use axum::http::{Request, Uri};

/// The last segments of paths that are not below a version: what a version prefix is told from.
const ROOTS: &[&str] = &["backup_targets", "backup_target_types", "node", "healthz", "readyz", "openapi.json"];

/// The project that a path was prefixed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathProject(pub String);

/// Removes the prefix of a request's path, and keeps its project as an extension.
pub fn strip<B>(mut request: Request<B>) -> Request<B> {
    if let Some((uri, project)) = stripped(request.uri()) {
        *request.uri_mut() = uri;
        if let Some(project) = project {
            request.extensions_mut().insert(project);
        }
    }
    request
}

/// Splits a path into the project of its prefix and the rest. `None` when there is no prefix.
fn stripped(uri: &Uri) -> Option<(Uri, Option<PathProject>)> {
    let rest = uri.path().strip_prefix("/v1/")?;
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    if ROOTS.contains(&first) {
        return with_path(uri, &format!("/{rest}")).map(|uri| (uri, None));
    }
    with_path(uri, &format!("/{after}")).map(|uri| (uri, Some(PathProject(first.to_owned()))))
}

/// A path, with the query of another one.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    text.parse().ok()
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
            assert_eq!(stripped(&uri).map(|(uri, _)| uri.to_string()).as_deref(), expected, "{given}");
        }
        let request = strip(Request::builder().uri("/v1/7f/backup_targets").body(()).expect("a request"));
        assert_eq!(request.extensions().get(), Some(&PathProject("7f".to_owned())));
        let request = strip(Request::builder().uri("/v1/backup_targets").body(()).expect("a request"));
        assert_eq!(request.extensions().get::<PathProject>(), None);
    }
}
