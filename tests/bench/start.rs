//! Start: from exec to the answer of `/healthz`.
//!
//! The daemon tells its service manager when it is ready; `/healthz` is asked then, so the figure
//! is at worst too high by that notice.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Home};
use crate::http;
use crate::table::{Sample, Table};

/// How often it is started.
const STARTS: usize = 20;

/// The goal: less than this, each time.
const START_MAX: Duration = Duration::from_millis(50);

/// Starts and stops the daemon of a home, whose registry has targets.
pub async fn measure(home: &Home, table: &mut Table) -> anyhow::Result<()> {
    let mut measured = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let began = Instant::now();
        let daemon = Daemon::start(home).await?;
        http::get(daemon.address, "/healthz").await?;
        measured.push(began.elapsed());
        daemon.stop().await?;
    }
    let starts = Sample::new(measured)?;
    table.judge("exec to /healthz: median / p99 / max", starts.summary(), "max under 50 ms", starts.max() < START_MAX);
    Ok(())
}
