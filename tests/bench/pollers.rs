//! Sixteen pollers on persistent connections, while a thousand targets are probed.
//!
//! Every report changes the list, so the agent must build nearly every answer again.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::daemon::Daemon;
use crate::http::Connection;
use crate::table::{Sample, Table};

/// Number of pollers.
const POLLERS: usize = 16;

/// Polling interval of each.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Number of polls of each, which take three rounds of probes.
const POLLS: usize = 30;

/// Goal: the 99th percentile of polls is less.
const P99_MAX: Duration = Duration::from_millis(5);

/// Polls and measures.
pub async fn measure(daemon: &Daemon, targets: usize, table: &mut Table) -> anyhow::Result<()> {
    let before = daemon.details().await?;
    let mut pollers = JoinSet::new();
    for _ in 0..POLLERS {
        pollers.spawn(poll(daemon.address));
        // Spread over the interval.
        tokio::time::sleep(POLL_INTERVAL / u32::try_from(POLLERS)?).await;
    }
    let mut all = Vec::with_capacity(POLLERS * POLLS);
    while let Some(polled) = pollers.join_next().await {
        all.extend(polled??);
    }
    let after = daemon.details().await?;
    let pairs = before.backup_targets.iter().zip(&after.backup_targets);
    let probed = pairs.filter(|(before, after)| before.report.checked_at < after.report.checked_at).count();
    anyhow::ensure!(probed == targets, "only {probed} of {targets} targets were probed meanwhile");
    let all = Sample::new(all)?;
    table.add_with_goal(
        format!("GET /backup_targets of {targets} by {POLLERS} pollers during probes: median / p99 / max"),
        all.summary(),
        "p99 under 5 ms",
        all.percentile(99) < P99_MAX,
    );
    Ok(())
}

async fn poll(address: std::net::SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::open(address).await?;
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::with_capacity(POLLS);
    for _ in 0..POLLS {
        ticks.tick().await;
        let request = Request::builder().uri("/backup_targets").header(http::header::HOST, address.to_string());
        took.push(connection.send(request.body(Full::<Bytes>::default())?).await?.took);
    }
    Ok(took)
}
