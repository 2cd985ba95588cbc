//! Creation and polling under the worst storage: a hundred targets on a server that accepts calls and never answers,
//! probed without a pause.

use std::time::Duration;

use anyhow::{bail, ensure};
use targetwatch::api::wire;
use tokio::time::{MissedTickBehavior, interval};

use crate::TARGETS;
use crate::daemon::Daemon;
use crate::http;
use crate::storage::{self, Kind};
use crate::table::{Sample, Table};

/// Number of created targets on each kind of storage.
const CREATIONS: usize = 15;

/// Goal: each creation takes less.
const CREATION_MAX: Duration = Duration::from_millis(100);

/// Polling interval of the list.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Number of polls, which take 20 s, or ten rounds of probes.
const POLLS: usize = 400;

/// Creates the silent targets, then the measured ones, then polls.
pub async fn measure(daemon: &Daemon, table: &mut Table) -> anyhow::Result<()> {
    for number in CREATIONS..CREATIONS + TARGETS {
        daemon.create(&storage::export(Kind::Silent, number)).await?;
    }
    let mut all = Vec::with_capacity(Kind::ALL.len() * CREATIONS);
    let mut of_kind = Kind::ALL.map(|kind| (kind, Vec::with_capacity(CREATIONS)));
    for number in 0..CREATIONS {
        for (kind, measured) in &mut of_kind {
            let took = daemon.create(&storage::export(*kind, number)).await?;
            measured.push(took);
            all.push(took);
        }
    }
    let all = Sample::new(all)?;
    table.add_with_goal(
        "POST /backup_targets: median / p99 / max",
        all.summary(),
        "max under 100 ms",
        all.max() < CREATION_MAX,
    );
    for (kind, measured) in of_kind {
        table.add(format!("  of these on {} storage", kind.name()), Sample::new(measured)?.summary());
    }

    let mut polls = Vec::with_capacity(POLLS);
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..POLLS {
        ticks.tick().await;
        polls.push(http::get(daemon.address, "/backup_targets").await?.took);
    }
    table.add("GET /backup_targets at 20 Hz, silent storage", Sample::new(polls)?.summary());
    verify(daemon).await
}

/// Verifies that each kind of storage behaved as it should during the measurement.
async fn verify(daemon: &Daemon) -> anyhow::Result<()> {
    let targets = daemon.details().await?.backup_targets;
    for kind in Kind::ALL {
        let path = format!(":/{}/", kind.name());
        let mut reports = targets.iter().map(|one| &one.report).filter(|one| one.filesystem_export.contains(&path));
        let expected = kind.reasons();
        // The reason of an available target is a warning, for example that this disk is nearly full.
        let is_expected = |report: &wire::Report| match report.verdict.as_deref() {
            None => false,
            Some("available") => expected.is_empty(),
            Some(_) => report.reason.as_deref().is_some_and(|reason| expected.contains(&reason)),
        };
        if let Some(unexpected) = reports.find(|report| !is_expected(report)) {
            bail!(
                "{} is {} for {:?}, expected {expected:?}",
                unexpected.filesystem_export,
                unexpected.status,
                unexpected.reason
            );
        }
    }
    let expected = TARGETS + Kind::ALL.len() * CREATIONS;
    ensure!(targets.len() == expected, "{} targets, expected {expected}", targets.len());
    Ok(())
}
