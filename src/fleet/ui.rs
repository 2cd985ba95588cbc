//! `GET /ui/fleet`: the targets of the fleet as pages for a browser, in the form of the pages of an agent
//! ([`crate::api::ui`]). They have no script, need no further request, and show the same as the API.

mod overview;
mod parts;
mod target;
#[cfg(test)]
mod tests;

pub(super) use overview::FleetOverview;
pub(super) use parts::PATH;
pub(super) use target::FleetTargetPage;
