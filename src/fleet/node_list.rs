//! The list of nodes: the addresses in the configuration, those in a file, which other tools may write, and those of
//! the SRV records of a service.
//!
//! A file that cannot be used changes nothing: a node must not disappear because of a typo in another line. If only the
//! lookup fails, the other sources are used, and the list says that it is not whole.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use crate::model::settings::{AddressError, AggregateSettings, NodeAddress, SrvSettings};
use crate::sys::secret_file::{FileError, read_public};
use crate::sys::srv::{self, SrvError};

/// Largest number of nodes.
pub const NODES_MAX: usize = 20_000;

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeListError {
    /// The file cannot be read.
    #[error("[aggregate] nodes_file {0}")]
    Unreadable(#[from] FileError),
    /// The file is not text.
    #[error("[aggregate] nodes_file {} is not valid UTF-8, expected one address in each line", .0.display())]
    NotText(PathBuf),
    /// A line is not an address.
    #[error("[aggregate] nodes_file {}, line {line}: {error}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Cause.
        error: AddressError,
    },
    /// The hosts of the service are not known.
    #[error("[aggregate] nodes_srv {name}: {error}")]
    Srv {
        /// Name of the service.
        name: String,
        /// Cause.
        error: SrvError,
    },
    /// A host of the service is not an address.
    #[error("[aggregate] nodes_srv {name}: {error}")]
    SrvHost {
        /// Name of the service.
        name: String,
        /// Cause.
        error: AddressError,
    },
    /// There is no node.
    #[error(
        "no nodes are listed, expected the address of at least one agent in [aggregate] nodes, nodes_file or nodes_srv"
    )]
    Empty,
    /// Two addresses have the same host and port.
    #[error("{0} is listed with http:// and with https://, expected one address for each node")]
    SameName(String),
    /// There are too many nodes.
    #[error("{0} nodes are listed, expected at most {NODES_MAX}. Run an aggregator for each part of the nodes")]
    TooMany(usize),
}

impl NodeListError {
    /// Whether the lookup cannot succeed until the configuration is corrected.
    fn is_in_the_configuration(&self) -> bool {
        matches!(self, Self::Srv { error: SrvError::Name, .. })
    }
}

/// A list of nodes.
#[derive(Debug)]
pub(super) struct Listed {
    /// The nodes.
    pub(super) nodes: BTreeSet<NodeAddress>,
    /// Why the nodes of the service are not among them.
    pub(super) problem: Option<NodeListError>,
}

/// Reads the list of nodes. An address that is listed twice counts once.
///
/// # Errors
/// [`NodeListError`] when the file cannot be used, when the lookup fails and no other node is listed, or when there are
/// no nodes or too many.
pub(super) async fn read(settings: &AggregateSettings) -> Result<Listed, NodeListError> {
    let mut problem = None;
    let mut nodes: BTreeSet<NodeAddress> = settings.nodes.iter().cloned().collect();
    if let Some(file) = &settings.nodes_file {
        let bytes = read_public(file).await?;
        let text = String::from_utf8(bytes).map_err(|_| NodeListError::NotText(file.clone()))?;
        let line = |line, error| NodeListError::Line { file: file.clone(), line, error };
        nodes.extend(parse(&text).map_err(|(number, error)| line(number, error))?);
    }
    if let Some(service) = &settings.nodes_srv {
        match hosts(service).await {
            Ok(found) => nodes.extend(found),
            Err(error) if nodes.is_empty() || error.is_in_the_configuration() => return Err(error),
            Err(error) => problem = Some(error),
        }
    }
    // A file that another program is about to write can be empty.
    if nodes.is_empty() {
        return Err(NodeListError::Empty);
    }
    if nodes.len() > NODES_MAX {
        return Err(NodeListError::TooMany(nodes.len()));
    }
    let mut names = HashSet::new();
    match nodes.iter().find(|node| !names.insert(node.name())) {
        Some(node) => Err(NodeListError::SameName(node.name().to_owned())),
        None => Ok(Listed { nodes, problem }),
    }
}

/// Returns the agents of a service.
async fn hosts(service: &SrvSettings) -> Result<Vec<NodeAddress>, NodeListError> {
    let name = || service.name.clone();
    let found = srv::lookup(&service.name, service.server).await;
    let found = found.map_err(|error| NodeListError::Srv { name: name(), error })?;
    let scheme = if service.is_encrypted { "https" } else { "http" };
    let addresses = found.iter().map(|found| {
        let text = format!("{scheme}://{}:{}", found.host, found.port);
        text.parse().map_err(|error| NodeListError::SrvHost { name: name(), error })
    });
    addresses.collect()
}

/// Parses the content of a file: one address in each line, and comments from `#` to the end of the line. The error has
/// the number of the line.
fn parse(text: &str) -> Result<Vec<NodeAddress>, (usize, AddressError)> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, line)| (index + 1, line.split('#').next().unwrap_or(line).trim()));
    let addresses = lines.filter(|(_, text)| !text.is_empty());
    addresses.map(|(number, text)| text.parse().map_err(|error| (number, error))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_one_address_in_each_line() {
        let parsed = parse("# controllers are not here\n\nhttps://compute-1\r\n  http://compute-2:9000  # old\n");
        let parsed: Vec<String> = parsed.expect("valid").iter().map(ToString::to_string).collect();
        assert_eq!(parsed, ["https://compute-1:8781", "http://compute-2:9000"]);
        assert_eq!(parse("").map(|list| list.len()), Ok(0));
    }

    #[test]
    fn wrong_line_is_named() {
        let (line, error) = parse("https://compute-1\n\ncompute-2 # no scheme").expect_err("wrong");
        assert_eq!(line, 3);
        assert!(error.to_string().starts_with("\"compute-2\" is not the address of an agent, expected"), "{error}");
    }
}
