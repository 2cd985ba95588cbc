//! What a process costs its host, as the kernel tells it.

use std::time::Duration;

use anyhow::Context as _;
use procfs::process::Process;

/// User and system time of a process so far.
pub fn processor_time(pid: i32) -> anyhow::Result<Duration> {
    let stat = Process::new(pid)?.stat()?;
    let ticks = u32::try_from(stat.utime + stat.stime)?;
    Ok(Duration::from_secs(1) * ticks / u32::try_from(procfs::ticks_per_second())?)
}

/// Resident memory of a process.
pub fn resident_bytes(pid: i32) -> anyhow::Result<u64> {
    let kib = Process::new(pid)?.status()?.vmrss.context("the kernel does not tell VmRSS")?;
    Ok(kib * 1024)
}

/// That part of it which is the process's own, and not of files that it has mapped, as its program.
pub fn anonymous_bytes(pid: i32) -> anyhow::Result<u64> {
    let kib = Process::new(pid)?.status()?.rssanon.context("the kernel does not tell RssAnon")?;
    Ok(kib * 1024)
}

/// As tables have it.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
