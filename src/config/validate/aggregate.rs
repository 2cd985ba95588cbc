//! Validation of `[aggregate]`.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::raw;
use crate::config::validated::{Validated, duration, invalid, limited, one_of, path, secret_file_or_credential};
use crate::model::settings::{AggregateSettings, ExpectedOn, NodeAddress, SrvSettings};

/// Accepted times between two polls of a node.
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

pub(super) fn aggregate(raw: &raw::Aggregate) -> Validated<AggregateSettings> {
    let (mut nodes, mut names) = (Vec::new(), HashSet::new());
    for text in limited(&raw.nodes, "[aggregate] nodes")? {
        let node: NodeAddress = text.get_ref().parse().map_err(|error| invalid(text, "[aggregate] nodes", error))?;
        if !names.insert(node.name().to_owned()) {
            let problem = format!("{:?} is listed twice", node.name());
            return Err(invalid(text, "[aggregate] nodes", problem));
        }
        nodes.push(node);
    }
    let nodes_file = raw.nodes_file.as_ref().map(|text| path(text, "[aggregate] nodes_file"));
    let token_file = raw.token_file.as_ref().map(|text| secret_file_or_credential(text, "[aggregate] token_file"));
    let ca_bundle = raw.ca_bundle.as_ref().map(|text| path(text, "[aggregate] ca_bundle"));
    let interval = raw.interval.as_ref().map(|text| duration(text, "[aggregate] interval", INTERVALS));
    let available_when = raw.available_when.get_ref().parse();
    let expected_on = [("all", ExpectedOn::All), ("reporting", ExpectedOn::Reporting)];
    Ok(AggregateSettings {
        nodes,
        nodes_file: nodes_file.transpose()?,
        nodes_srv: nodes_srv(raw)?,
        token_file: token_file.transpose()?,
        ca_bundle: ca_bundle.transpose()?,
        interval: interval.transpose()?,
        available_when: available_when
            .map_err(|error| invalid(&raw.available_when, "[aggregate] available_when", error))?,
        expected_on: one_of(&raw.expected_on, "[aggregate] expected_on", &expected_on)?,
    })
}

fn nodes_srv(raw: &raw::Aggregate) -> Validated<Option<SrvSettings>> {
    let schemes = [("https", true), ("http", false)];
    let is_encrypted = one_of(&raw.nodes_srv_scheme, "[aggregate] nodes_srv_scheme", &schemes)?;
    let server = raw.nodes_srv_server.as_ref().map(|text| {
        let problem = || format!("{:?} is not an address, expected one such as 192.0.2.1:53", text.get_ref());
        text.get_ref().parse().map_err(|_| invalid(text, "[aggregate] nodes_srv_server", problem()))
    });
    let server = server.transpose()?;
    let name = raw.nodes_srv.as_ref().map(|text| match text.get_ref().trim() {
        "" => Err(invalid(text, "[aggregate] nodes_srv", "expected a name such as _targetwatch._tcp.example.com")),
        name => Ok(name.to_owned()),
    });
    Ok(name.transpose()?.map(|name| SrvSettings { name, is_encrypted, server }))
}
