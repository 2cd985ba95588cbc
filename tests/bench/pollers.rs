//! Pollers: sixteen of them, on connections that they keep open, while a thousand targets are probed.
//!
//! Every report makes the list another one, so nearly every poll is of a list that was not asked for
//! before.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::daemon::Daemon;
use crate::http::Connection;
use crate::table::{Sample, Table};

/// How many pollers there are.
const POLLERS: usize = 16;

/// How often each polls.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// How many times each: for three rounds of probes.
const POLLS: usize = 30;

/// The goal for one poll in a hundred.
const P99_MAX: Duration = Duration::from_millis(5);

/// Polls and measures.
pub async fn measure(daemon: &Daemon, targets: usize, table: &mut Table) -> anyhow::Result<()> {
    let before = daemon.details().await?;
    let mut pollers = JoinSet::new();
    for _ in 0..POLLERS {
        pollers.spawn(poll(daemon.address));
        // They do not all come at the same moment.
        tokio::time::sleep(POLL_EVERY / u32::try_from(POLLERS)?).await;
    }
    let mut all = Vec::with_capacity(POLLERS * POLLS);
    while let Some(polled) = pollers.join_next().await {
        all.extend(polled??);
    }
    let after = daemon.details().await?;
    let pairs = before.backup_targets.iter().zip(&after.backup_targets);
    let probed = pairs.filter(|(before, after)| before.report.checked_at < after.report.checked_at).count();
    anyhow::ensure!(probed == targets, "{probed} of {targets} targets were probed meanwhile");
    let all = Sample::new(all)?;
    table.judge(
        format!("{POLLERS} pollers of {targets} targets that are probed: median / p99 / max"),
        all.summary(),
        "p99 under 5 ms",
        all.percentile(99) < P99_MAX,
    );
    Ok(())
}

async fn poll(address: std::net::SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::open(address).await?;
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::with_capacity(POLLS);
    for _ in 0..POLLS {
        ticks.tick().await;
        let request = Request::builder().uri("/backup_targets").header(http::header::HOST, address.to_string());
        took.push(connection.send(request.body(Full::<Bytes>::default())?).await?.took);
    }
    Ok(took)
}
