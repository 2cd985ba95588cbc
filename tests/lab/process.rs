//! The agent's processes, as the kernel describes them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::machine::main_pid;

/// Clock ticks per second (`USER_HZ`), the unit of processor time in `/proc`.
const TICKS_PER_SECOND: u64 = 100;

/// Resources of the agent that must not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Threads of the main process.
    pub threads: usize,
    /// Open files of the main process.
    pub files: usize,
    /// Living child processes, with theirs.
    pub children: usize,
    /// Child processes that ended and were not reaped.
    pub zombies: usize,
    /// Resident memory of the main process, in KiB, without pages of files. The agent unmaps those of its program now and
    /// then, and uses them again.
    pub anonymous_kib: u64,
}

/// A process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub parent: u32,
    /// State, as one letter of proc_pid_stat(5): `R`, `S`, `D`, `T`, `Z`.
    pub state: char,
    /// Command line, separated by spaces.
    pub command: String,
}

impl Usage {
    /// Of the running agent.
    pub fn now() -> Self {
        Self::of(main_pid())
    }

    /// Of a process.
    pub fn of(pid: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib = |line: &str| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok();
        let children = children(pid);
        Self {
            threads: count("task"),
            files: count("fd"),
            children: children.iter().filter(|child| child.state != 'Z').count(),
            zombies: children.iter().filter(|child| child.state == 'Z').count(),
            anonymous_kib: status.lines().find_map(kib).unwrap_or(0),
        }
    }
}

/// The processor time of a process and of its reaped children.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let after_name = stat.rsplit_once(") ").expect("a name").1;
    // utime, stime, cutime and cstime are fields 14 to 17 (proc_pid_stat(5)), the state is field 3.
    let ticks: u64 = after_name.split(' ').skip(11).take(4).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// The children of a process, with theirs.
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

/// All probe workers of the machine, including those whose agent is gone.
pub fn workers() -> Vec<Process> {
    processes().into_iter().filter(|process| process.command.ends_with("probe-worker")).collect()
}

/// The mount namespace of a process.
pub fn mount_namespace(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("a namespace")
}

/// All processes of the machine.
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
