//! The agent's process as the kernel counts it.

use std::fs;
use std::time::Duration;

use crate::machine::main_pid;

/// Ticks of the processor clock in a second (`USER_HZ`), by which the kernel tells times to programs.
const TICKS_PER_SECOND: u64 = 100;

/// What the agent has of what it must give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Threads of the main process.
    pub threads: usize,
    /// Open files of the main process.
    pub files: usize,
    /// Living processes below the main process.
    pub children: usize,
    /// Those of them that are dead and were not reaped.
    pub zombies: usize,
    /// Memory of the main process, in KiB.
    pub rss_kib: u64,
}

/// A process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its state, as one letter: `R`, `S`, `D`, `T`, `Z`.
    pub state: char,
    /// Its command line, separated by spaces.
    pub command: String,
}

impl Usage {
    /// Of the agent as it runs now.
    pub fn now() -> Self {
        Self::of(main_pid())
    }

    /// Of a process.
    pub fn of(pid: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let children = children(pid);
        Self {
            threads: count("task"),
            files: count("fd"),
            children: children.iter().filter(|child| child.state != 'Z').count(),
            zombies: children.iter().filter(|child| child.state == 'Z').count(),
            rss_kib: rss.unwrap_or(0),
        }
    }
}

/// The processor time of a process and of those of its children that it has reaped.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let after_name = stat.rsplit_once(") ").expect("a name").1;
    // utime, stime, cutime and cstime are fields 14 to 17 (proc_pid_stat(5)), the state is field 3.
    let ticks: u64 = after_name.split(' ').skip(11).take(4).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// The children of a process, and theirs.
pub fn children(pid: u32) -> Vec<Process> {
    let all = processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let next: Vec<&Process> = all.iter().filter(|process| process.parent == parent).collect();
        parents.extend(next.iter().map(|process| process.pid));
        found.extend(next.into_iter().cloned());
    }
    found
}

/// The agent's probe workers, in the whole machine: also those that have lost their agent.
pub fn workers() -> Vec<Process> {
    processes().into_iter().filter(|process| process.command.ends_with("probe-worker")).collect()
}

/// Every process.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("processes").flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(Process { pid, parent, state, command: command.trim_end_matches('\0').replace('\0', " ") })
}
