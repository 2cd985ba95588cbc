//! Scopes on the command line: the nodes on which a target is expected.

use clap::Args;

use super::metadata::metadata_entry;
use crate::api::wire::ScopeRequest;
use crate::model::NodeScope;

/// Options that restrict a target to some nodes.
#[derive(Debug, Default, Args)]
pub struct ScopeOptions {
    /// Name of a node on which it is expected; may be repeated
    #[arg(long, value_name = "NODE")]
    scope_node: Vec<String>,
    /// Label of the nodes on which it is expected; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = metadata_entry)]
    scope_label: Vec<(String, String)>,
}

impl ScopeOptions {
    /// Returns the scope of the request. `None` without any option.
    pub(super) fn into_request(self) -> Option<ScopeRequest> {
        let Self { scope_node, scope_label } = self;
        let mut scope = NodeScope { nodes: scope_node.into_iter().collect(), ..NodeScope::default() };
        for (key, value) in scope_label {
            scope.labels.entry(key).or_default().insert(value);
        }
        (scope != NodeScope::default()).then_some(ScopeRequest::Only(scope))
    }
}
