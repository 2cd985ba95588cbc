//! Prefixes: `/v1/…` and `/v1/{project_id}/…` mean the same as `/…`, and so does a final slash.
//!
//! OpenStack clients put their project into the path. Targets belong to the node and not to a project, so the
//! prefix changes no answer. But a token of a different project is refused ([`super::auth`]).

use axum::http::{Request, Uri};

/// First segments of the routes. Any other first segment after the version is a project.
const ROOTS: &[&str] =
    &["backup_targets", "backup_target_types", "node", "nodes", "healthz", "readyz", "metrics", "ui", "openapi.json"];

/// The project in the prefix of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathProject(pub String);

/// The path of a request as the client sent it, if it differs from the routed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentPath(pub String);

/// Removes the prefix and the final slash of a request's path, and keeps project and path as extensions.
pub fn strip<B>(mut request: Request<B>) -> Request<B> {
    let (path, project) = stripped(request.uri().path());
    if path != request.uri().path()
        && let Some(uri) = with_path(request.uri(), path)
    {
        let sent = SentPath(request.uri().path().to_owned());
        request.extensions_mut().insert(sent);
        *request.uri_mut() = uri;
    }
    if let Some(project) = project {
        request.extensions_mut().insert(project);
    }
    request
}

/// Splits a path into the project of its prefix and the rest.
fn stripped(path: &str) -> (&str, Option<PathProject>) {
    let path = path.strip_suffix('/').unwrap_or(path);
    let Some(rest) = path.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return (if path.is_empty() { "/" } else { path }, None);
    };
    let Some(names) = rest.strip_prefix('/') else {
        return ("/", None);
    };
    let (first, after) = names.find('/').map_or((names, "/"), |at| names.split_at(at));
    if first.is_empty() || ROOTS.contains(&first) { (rest, None) } else { (after, Some(PathProject(first.to_owned()))) }
}

/// A path, with the query of another URI.
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
    fn version_project_and_final_slash_are_removed_and_nothing_else() {
        for (given, expected, project) in [
            ("/", "/", None),
            ("/v1", "/", None),
            ("/v1/", "/", None),
            ("/v1/7f", "/", Some("7f")),
            ("/v1/7f/", "/", Some("7f")),
            ("/backup_targets", "/backup_targets", None),
            ("/backup_targets/", "/backup_targets", None),
            ("/backup_targets//", "/backup_targets/", None),
            ("/v1/backup_targets", "/backup_targets", None),
            ("/v1/backup_targets/detail?x=1", "/backup_targets/detail?x=1", None),
            ("/v1/backup_targets/?x=/", "/backup_targets?x=/", None),
            ("/v1/7f/backup_targets/a/checks", "/backup_targets/a/checks", Some("7f")),
            ("/v1/backup_target_types/x", "/backup_target_types/x", None),
            ("/v1/7f/backup_target_types/", "/backup_target_types", Some("7f")),
            ("/v1/7f/healthz", "/healthz", Some("7f")),
            ("/v1/ui/targets/x", "/ui/targets/x", None),
            ("/v1/7f/v1/healthz", "/v1/healthz", Some("7f")),
            ("/v1x/backup_targets", "/v1x/backup_targets", None),
            ("/v2/backup_targets", "/v2/backup_targets", None),
        ] {
            let request = strip(Request::builder().uri(given).body(()).expect("a request"));
            assert_eq!(request.uri().to_string(), expected, "{given}");
            let expected = project.map(|project| PathProject(project.to_owned()));
            assert_eq!(request.extensions().get(), expected.as_ref(), "{given}");
        }
    }
}
