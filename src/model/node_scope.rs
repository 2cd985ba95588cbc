//! Scopes: on which nodes of a fleet a target is expected.
//!
//! A target without a scope is expected on all nodes. A scope lists names of nodes and values of labels, and contains
//! every node that it names or one of whose labels it lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Largest number of names and of values of labels in one scope, together.
pub const SCOPE_ENTRIES_MAX: usize = 1000;

/// Longest name of a node, in bytes. A host name has at most 253.
pub const NODE_NAME_MAX_BYTES: usize = 253;

/// Longest key or value of a label, in bytes.
pub const LABEL_MAX_BYTES: usize = 63;

/// Largest number of labels of a node.
pub const NODE_LABELS_MAX: usize = 32;

/// A node of a fleet, with its labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LabeledNode {
    /// Name of the node, unique in the fleet (`[fleet] node`).
    pub name: String,
    /// Its labels (`[fleet] labels`).
    pub labels: BTreeMap<String, String>,
}

impl LabeledNode {
    /// Whether a node can have this name and these labels.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let mut texts = self.labels.iter().flat_map(|(key, value)| [key, value]);
        let is_bounded = self.labels.len() <= NODE_LABELS_MAX && texts.all(|text| label_problem(text).is_none());
        is_bounded && node_name_problem(&self.name).is_none()
    }
}

/// The nodes on which a target is expected.
///
/// A stored scope can be empty if all that it lists is of a later release. Then it contains no node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeScope {
    /// Names of nodes.
    pub nodes: BTreeSet<String>,
    /// Values of labels, by the key of the label.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

impl NodeScope {
    /// Whether the scope contains a node: it names the node, or lists one of its labels.
    #[must_use]
    pub fn contains(&self, node: &LabeledNode) -> bool {
        let is_listed = |(key, values): (&String, &BTreeSet<String>)| {
            node.labels.get(key).is_some_and(|value| values.contains(value))
        };
        self.names(&node.name) || self.labels.iter().any(is_listed)
    }

    /// Whether the scope contains the node with this name, whatever its labels are.
    #[must_use]
    pub fn names(&self, node: &str) -> bool {
        self.nodes.contains(node)
    }

    /// Size of all texts, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(key, values)| key.len() + values.iter().map(String::len).sum::<usize>());
        self.nodes.iter().map(String::len).chain(labels).sum()
    }

    /// Returns the problem of a scope that a client gives to a target, if there is one.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if let Some(key) = self.labels.iter().find_map(|(key, values)| values.is_empty().then_some(key)) {
            return Some(format!("labels: {key:?} has no values, expected at least one"));
        }
        match self.nodes.len() + self.labels.values().map(BTreeSet::len).sum::<usize>() {
            0 => {
                return Some(
                    "it lists no node, expected nodes, labels or \"all\". To remove the target from all nodes, delete it"
                        .to_owned(),
                );
            }
            entries if entries > SCOPE_ENTRIES_MAX => {
                return Some(format!("{entries} names and values of labels, {SCOPE_ENTRIES_MAX} is the limit"));
            }
            _ => {}
        }
        let in_nodes = self.nodes.iter().find_map(|node| node_name_problem(node));
        in_nodes.map(|problem| format!("nodes: {problem}")).or_else(|| {
            let texts = self.labels.iter().flat_map(|(key, values)| std::iter::once(key).chain(values));
            texts.into_iter().find_map(|text| label_problem(text)).map(|problem| format!("labels: {problem}"))
        })
    }
}

impl fmt::Display for NodeScope {
    /// Writes the names and the labels, such as `compute-1, rack=a, rack=b`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels =
            self.labels.iter().flat_map(|(key, values)| values.iter().map(move |value| format!("{key}={value}")));
        let all: Vec<String> = self.nodes.iter().cloned().chain(labels).collect();
        formatter.write_str(&all.join(", "))
    }
}

/// Returns the problem of the name of a node, which is a part of keys, if there is one.
#[must_use]
pub fn node_name_problem(name: &str) -> Option<String> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=NODE_NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(is_valid);
    (!is_name).then(|| {
        format!("{name:?} is not the name of a node, expected at most {NODE_NAME_MAX_BYTES} letters, digits and -_.")
    })
}

/// Returns the problem of the key or the value of a label, if there is one.
#[must_use]
pub fn label_problem(text: &str) -> Option<String> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let is_label = (1..=LABEL_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_valid);
    (!is_label).then(|| {
        format!("{text:?} is not the key or value of a label, expected 1 to {LABEL_MAX_BYTES} letters, digits and -_./")
    })
}

#[cfg(test)]
/// A scope of these names and labels.
pub(crate) fn scope(nodes: &[&str], labels: &[(&str, &str)]) -> NodeScope {
    let mut scope = NodeScope { nodes: nodes.iter().map(|name| (*name).to_owned()).collect(), ..NodeScope::default() };
    for (key, value) in labels {
        scope.labels.entry((*key).to_owned()).or_default().insert((*value).to_owned());
    }
    scope
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, labels: &[(&str, &str)]) -> LabeledNode {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        LabeledNode { name: name.to_owned(), labels: labels.collect() }
    }

    #[test]
    fn node_is_in_scope_by_its_name_or_by_one_of_its_labels() {
        let compute = node("compute-1", &[("rack", "a"), ("az", "1")]);
        for (nodes, labels, contains) in [
            (&["compute-1"][..], &[][..], true),
            (&["compute-10", "Compute-1"], &[], false),
            (&[], &[("rack", "a")], true),
            (&[], &[("rack", "b"), ("rack", "a")], true),
            (&[], &[("rack", "b"), ("az", "1")], true),
            (&["other"], &[("az", "a"), ("rack", "1")], false),
            (&[], &[("room", "a")], false),
            (&[], &[], false),
        ] {
            let scope = scope(nodes, labels);
            assert_eq!(scope.contains(&compute), contains, "{scope:?}");
        }
    }

    #[test]
    fn problem_of_a_scope_names_the_field_and_what_to_do() {
        let many: Vec<String> = (0..=SCOPE_ENTRIES_MAX).map(|number| format!("n{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (scope, problem) in [
            (scope(&[], &[]), "it lists no node, expected nodes, labels or \"all\". To remove the target"),
            (scope(&many, &[]), "1001 names and values of labels, 1000 is the limit"),
            (scope(&["a b"], &[]), "nodes: \"a b\" is not the name of a node"),
            (scope(&[""], &[]), "nodes: \"\" is not the name"),
            (scope(&[], &[("rack", "")]), "labels: \"\" is not the key or value of a label"),
            (scope(&[], &[("a=b", "1")]), "labels: \"a=b\" is not"),
            (
                NodeScope { labels: [("rack".to_owned(), BTreeSet::new())].into(), ..scope(&["a"], &[]) },
                "labels: \"rack\"",
            ),
        ] {
            let found = scope.problem().expect("a problem");
            assert!(found.starts_with(problem), "{found}");
        }
        assert_eq!(scope(&many[1..], &[]).problem(), None);
        assert_eq!(scope(&["compute-1.example.com"], &[("topology/zone", "eu_1")]).problem(), None);
    }

    fn word() -> impl Strategy<Value = String> {
        "[ab]{1,2}"
    }

    fn any_scope() -> impl Strategy<Value = NodeScope> {
        let labels = prop::collection::btree_map(word(), prop::collection::btree_set(word(), 1..3), 0..3);
        (prop::collection::btree_set(word(), 0..3), labels).prop_map(|(nodes, labels)| NodeScope { nodes, labels })
    }

    fn any_node() -> impl Strategy<Value = LabeledNode> {
        (word(), prop::collection::btree_map(word(), word(), 0..3))
            .prop_map(|(name, labels)| LabeledNode { name, labels })
    }

    proptest! {
        #[test]
        fn larger_scope_contains_at_least_the_same_nodes(one in any_scope(), other in any_scope(), node in any_node()) {
            let mut both = one.clone();
            both.nodes.extend(other.nodes.clone());
            for (key, values) in other.labels.clone() {
                both.labels.entry(key).or_default().extend(values);
            }
            prop_assert_eq!(both.contains(&node), one.contains(&node) || other.contains(&node));
        }

        #[test]
        fn node_with_fewer_labels_is_in_fewer_scopes(scope in any_scope(), node in any_node()) {
            let bare = LabeledNode { labels: BTreeMap::new(), ..node.clone() };
            prop_assert_eq!(scope.contains(&bare), scope.names(&node.name));
            prop_assert!(!scope.contains(&bare) || scope.contains(&node));
        }

        #[test]
        fn scope_survives_its_document(scope in any_scope()) {
            let document = serde_json::to_string(&scope).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<NodeScope>(&document).expect("a scope"), scope);
        }
    }
}
