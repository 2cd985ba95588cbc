//! Banners: problems of the agent or of this host, above the targets.

use maud::{Markup, html};

use super::layout::banner;
use crate::agent::View;
use crate::model::{Reason, Status};
use crate::sys::NodeFacts;

/// Failures that a host without a network has with every target.
const NO_NETWORK: &[Reason] =
    &[Reason::NameNotResolved, Reason::NameLookupTimedOut, Reason::ConnectTimedOut, Reason::HostUnreachable];

/// Facts that the banners show.
pub(super) struct Banners<'a> {
    /// The targets.
    pub(super) view: &'a View,
    /// This host and this agent.
    pub(super) facts: &'a NodeFacts,
    /// Why the registry cannot be changed.
    pub(super) registry_problem: Option<String>,
    /// Whether the configuration file could not be loaded at the latest reload.
    pub(super) is_config_rejected: bool,
}

impl Banners<'_> {
    /// The banners. Nothing if there is no problem.
    pub(super) fn markup(&self) -> Markup {
        html! {
            @if self.is_isolated() {
                (banner(html! {
                    "No target can be reached: look first at what they share, such as the network of this host, its "
                    "name resolution, or their server."
                }))
            }
            @if let Some(problem) = &self.registry_problem {
                (banner(html! { "The registry cannot be changed: " (problem) }))
            }
            @if self.is_config_rejected {
                (banner(html! {
                    "The configuration was rejected at the latest reload, and the old one stays in force: see the log."
                }))
            }
            @for child in &self.facts.agent.stuck_children {
                (banner(html! {
                    "Process " (child.pid) " (" (child.what) ") was killed " (child.since.elapsed().as_secs())
                    " s ago and has not ended. "
                    // A command of [notify] has an id, but no target.
                    @if let Some(id) = child.target.filter(|id| self.view.target(*id).is_some()) {
                        a href={ "/ui/targets/" (id) } { "Its target" } " is not probed until then."
                    }
                }))
            }
        }
    }

    /// Whether all of several targets are offline for reasons of the network.
    fn is_isolated(&self) -> bool {
        let targets = &self.view.targets;
        targets.len() > 1
            && targets.iter().all(|target| {
                let finding = target.status.finding.as_ref();
                target.status.status == Status::Offline
                    && finding.is_some_and(|finding| NO_NETWORK.contains(&finding.reason))
            })
    }
}
