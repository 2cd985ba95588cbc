//! Processor time, wakeups and memory of a process, as the kernel reports them.

use std::time::Duration;

use anyhow::Context as _;
use procfs::process::Process;

/// User and system time of a process so far.
pub fn processor_time(pid: i32) -> anyhow::Result<Duration> {
    let stat = Process::new(pid)?.stat()?;
    let ticks = u32::try_from(stat.utime + stat.stime)?;
    Ok(Duration::from_secs(1) * ticks / u32::try_from(procfs::ticks_per_second())?)
}

/// Execution time of the threads that a process has now. The kernel reports it in nanoseconds.
pub fn exact_processor_time(pid: i32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in Process::new(pid)?.tasks()?.filter_map(Result::ok) {
        nanoseconds += thread.schedstat()?.sum_exec_runtime;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// How often a thread of a process has waited for something so far. Each wait ends with a wakeup.
pub fn wakeups(pid: i32) -> anyhow::Result<u64> {
    let mut waits = 0;
    for thread in Process::new(pid)?.tasks()?.filter_map(Result::ok) {
        waits += thread.status()?.voluntary_ctxt_switches.context("the kernel counts no context switches")?;
    }
    Ok(waits)
}

/// Resident memory of a process.
pub fn resident_bytes(pid: i32) -> anyhow::Result<u64> {
    let kib = Process::new(pid)?.status()?.vmrss.context("the kernel reports no VmRSS")?;
    Ok(kib * 1024)
}

/// Anonymous resident memory of a process, without mapped files such as its program.
pub fn anonymous_bytes(pid: i32) -> anyhow::Result<u64> {
    let kib = Process::new(pid)?.status()?.rssanon.context("the kernel reports no RssAnon")?;
    Ok(kib * 1024)
}

/// A size for the table.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
