//! The page of one target: its condition and what to do, the checks of its latest probe, its facts, and its history.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};

use super::condition::{Condition, outcome};
use super::history;
use super::layout::{ago, clock, lock_verdict, milliseconds};
use crate::agent::TargetView;
use crate::model::age::{age, in_one_unit};
use crate::model::capacity::format_bytes;
use crate::model::remedy::remedy;
use crate::model::report::{BucketFacts, MountFacts};
use crate::model::{CheckResult, Report, Transition};

/// What the page shows.
pub(super) struct TargetPage<'a> {
    pub(super) view: &'a TargetView,
    /// Its changes, newest first, or why they cannot be read.
    pub(super) history: Result<&'a [Transition], &'a str>,
    /// When the page is made.
    pub(super) now: Timestamp,
}

/// A name and its value.
type Fact = (&'static str, Markup);

impl TargetPage<'_> {
    /// The landmarks.
    pub(super) fn body(&self) -> Markup {
        let Self { view, history, now } = *self;
        let condition = Condition::of(view);
        html! {
            header {
                nav aria-label="Back" { a href="/ui" { "All backup targets" } }
                h1 { (view.target.spec.export()) }
                p {
                    (condition.mark())
                    @if condition.as_str() != view.status.status.as_str() { ", " (view.status.status) }
                    " for " (age(view.status.since, now)) ". As of " (clock(now)) "."
                }
            }
            main {
                @if condition != Condition::Available { (self.what_to_do(condition)) }
                (self.checks())
                (self.facts())
                (history::section(view.target.id, history, now))
            }
        }
    }

    fn what_to_do(&self, condition: Condition) -> Markup {
        let id = self.view.target.id;
        html! {
            section aria-labelledby="todo" {
                h2 #todo { "What to do" }
                @if condition == Condition::NotCurrent {
                    p { "The latest probe ended too long ago. Look whether the agent hangs, and probe the target now." }
                }
                @if let Some(finding) = &self.view.status.finding {
                    p { code { (finding.reason.as_str()) } ": " (finding.message) }
                    @if let Some(text) = remedy(finding.reason.as_str()) { p.remedy { "In general: " (from_markdown(text)) } }
                }
                ul {
                    li { "Probe it now: " code { "targetwatch target check " (id) } }
                    li {
                        "The same over HTTP: "
                        code { "curl -X POST --unix-socket /run/targetwatch/api.sock http://localhost/backup_targets/" (id) "/check" }
                    }
                }
            }
        }
    }

    fn checks(&self) -> Markup {
        html! {
            section aria-labelledby="checks" {
                h2 #checks { "Checks of the latest probe" }
                @match &self.view.report {
                    None => p { "No probe has ended yet." },
                    Some(report) => {
                        p { "It ended " (ago(report.checked_at, self.now)) " and took " (milliseconds(report.duration)) "." }
                        table.checks {
                            thead { tr { @for name in ["Check", "Outcome", "Duration", "Found"] { th scope="col" { (name) } } } }
                            tbody { @for result in &report.checks { (check(result)) } }
                        }
                    }
                }
            }
        }
    }

    fn facts(&self) -> Markup {
        let Self { view, now, .. } = *self;
        let names: Vec<&str> = view.types.iter().map(|found| found.name.as_str()).collect();
        let mut facts: Vec<Fact> = vec![
            ("Id", html! { code { (view.target.id) } }),
            ("Kind", html! { (view.target.spec.kind()) }),
            ("Types", html! { (names.join(", ")) }),
            ("Default", html! { (yes_or_no(view.target.is_default)) }),
            ("Immutable", html! { (yes_or_no(view.target.spec.is_immutable())) }),
            ("Mount path", html! { code { (view.mount_path.display()) } }),
        ];
        facts.extend(view.target.scope.as_ref().map(|scope| ("Expected on", html! { (scope) })));
        facts.extend(view.status.last_available_at.map(|at| ("Last available", ago(at, now))));
        facts.extend(view.record.canary_at.map(|at| ("Latest canary", ago(at, now))));
        if let Some(intervals) = view.record.intervals {
            facts.push(("Probe interval", html! { (intervals.probe.as_secs()) " s" }));
        }
        if let Some(report) = &view.report {
            facts.extend(capacity(report));
            let kind = report.facts.as_ref();
            let mount = kind.and_then(|facts| facts.nfs()).and_then(|(_, mount)| mount);
            facts.extend(mount.into_iter().flat_map(|facts| self.mount(facts)));
            facts.extend(kind.and_then(|facts| facts.bucket()).into_iter().flat_map(|facts| self.bucket(facts)));
        }
        html! {
            section aria-labelledby="facts" {
                h2 #facts { "Facts" }
                dl { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } }
            }
        }
    }

    fn mount(&self, mount: &MountFacts) -> Vec<Fact> {
        let mut facts: Vec<Fact> = vec![("Mount options", html! { code { (mount.options) } })];
        facts.extend(mount.server_address.map(|address| ("Server address", html! { (address) })));
        facts.extend(mount.nfs_version.as_ref().map(|version| ("NFS version", html! { (version) })));
        let Some(traffic) = mount.traffic else { return facts };
        facts.push(("Mounted", ago(traffic.mounted_at, self.now)));
        facts.extend(traffic.round_trip.map(|time| ("NFS round trip", html! { (milliseconds(time)) })));
        facts.push(("Retransmissions", html! { (traffic.retransmissions) " of " (traffic.requests) " requests" }));
        let (read, written) = (format_bytes(traffic.bytes_read), format_bytes(traffic.bytes_written));
        facts.push(("Traffic", html! { (read) " read, " (written) " written" }));
        facts
    }

    fn bucket(&self, bucket: &BucketFacts) -> Vec<Fact> {
        let enabled = |flag| if flag { "enabled" } else { "not enabled" };
        let mut facts: Vec<Fact> = Vec::new();
        facts.extend(bucket.versioning.map(|flag| ("Versioning", html! { (enabled(flag)) })));
        facts.extend(bucket.object_lock.map(|flag| ("Object lock", html! { (enabled(flag)) })));
        facts.extend(bucket.default_retention.as_ref().map(|text| ("Default retention", html! { (text) })));
        facts.extend(lock_verdict(&bucket.lock_proof, self.now).map(|verdict| {
            ("Lock proof", html! { (verdict) @if let Some(proof) = bucket.lock_proof.found() { ": " (proof.why) } })
        }));
        facts.extend(bucket.object_count.map(|count| ("Objects", html! { (count) })));
        facts.extend(bucket.certificate_end.as_ref().map(|end| {
            let which = if end.position == 1 {
                end.subject.clone()
            } else {
                format!("{}, {} of {}", end.subject, end.position, end.of)
            };
            ("Certificate expires", html! { (clock(end.at)) " (" (which) ")" })
        }));
        facts.extend(bucket.credentials_expire_at.map(|end| ("Credentials expire", clock(end))));
        facts.extend(bucket.requests.map(|requests| {
            ("Requests", html! { (requests.this_probe) " by this probe, " (requests.last_hour) " in the last hour" })
        }));
        facts
    }
}

fn capacity(report: &Report) -> Vec<Fact> {
    let Some(capacity) = &report.capacity else { return Vec::new() };
    let bytes = |name, value: Option<u64>| value.map(|value| (name, html! { (format_bytes(value)) }));
    let mut facts: Vec<Fact> = Vec::new();
    facts.extend(bytes("Size", capacity.capacity_bytes));
    facts.extend(bytes("Used space", capacity.used_bytes));
    facts.extend(bytes("Available space", capacity.available_bytes));
    facts.extend(capacity.used_percent().map(|percent| ("Used", html! { (format!("{percent:.1} %")) })));
    facts.extend(report.time_to_full.map(|time| ("Time to full", html! { "about " (in_one_unit(time)) })));
    facts.extend(capacity.inodes_used_percent().map(|percent| ("Used inodes", html! { (format!("{percent:.1} %")) })));
    facts
}

fn check(result: &CheckResult) -> Markup {
    html! {
        tr {
            th scope="row" { (result.check) }
            td data-label="Outcome" { (outcome(result.outcome, !result.findings().is_empty())) }
            td data-label="Duration" { (milliseconds(result.duration)) }
            td data-label="Found" {
                @for finding in result.findings() { p { code { (finding.reason.as_str()) } ": " (finding.message) } }
                @if let Some(detail) = &result.detail { p { (detail) } }
                @if result.findings().is_empty() && result.detail.is_none() { "–" }
            }
        }
    }
}

fn yes_or_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// Renders the Markdown of one cell of our own table. Code stays code. Emphasis and links become plain text.
fn from_markdown(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (without_marks(part)) }
        }
    }
}

fn without_marks(text: &str) -> PreEscaped<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let (name, after) = link.split_once("](").unwrap_or((link, ""));
        plain += before;
        plain += name;
        rest = after.split_once(')').map_or(after, |(_, rest)| rest);
    }
    plain += rest;
    html! { (plain.replace('*', "")) }
}
