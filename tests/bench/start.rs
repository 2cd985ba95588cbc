//! Start: from exec to the answer of `/healthz`.
//!
//! The request follows the notification that the daemon is ready, so the figure includes the time of the notification.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Workspace};
use crate::http;
use crate::table::{Sample, Table};

/// Number of starts.
const STARTS: usize = 20;

/// Goal: each start takes less.
const START_MAX: Duration = Duration::from_millis(50);

/// Starts and stops the daemon of a workspace whose registry has targets.
pub async fn measure(workspace: &Workspace, table: &mut Table) -> anyhow::Result<()> {
    let mut measured = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let began = Instant::now();
        let daemon = Daemon::start(workspace).await?;
        http::get(daemon.address, "/healthz").await?;
        measured.push(began.elapsed());
        daemon.stop().await?;
    }
    let starts = Sample::new(measured)?;
    table.add_with_goal(
        "exec to /healthz: median / p99 / max",
        starts.summary(),
        "max under 50 ms",
        starts.max() < START_MAX,
    );
    Ok(())
}
