//! Process groups: each child is the leader of a group, and is killed with all members of the group.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use procfs::process::Process;

/// First interval between two checks whether a group without a leader is empty. It doubles after each check.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Longest interval between two such checks.
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// Kills a process group whose leader has not been reaped. Until then no other process has its id.
pub(super) fn kill(leader: u32) {
    if let Some(group) = id(leader) {
        // An error means that the group has ended by itself.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// Returns the group's id, or `None` for ids that mean "every process" or "the caller's group" (kill(2)).
pub(super) fn id(leader: u32) -> Option<Pid> {
    i32::try_from(leader).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

/// Waits until a killed group whose leader was reaped is empty. A helper process that a command started may hang longer
/// than the command.
pub(super) async fn end(leader: u32) {
    let Some(group) = id(leader) else {
        return;
    };
    let mut pause = POLL_INTERVAL;
    let mut members: Option<Vec<Process>> = None;
    loop {
        // If the agent is process 1, as in a container, it must reap the orphans of its children.
        while matches!(
            waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)),
            Ok(status) if status != WaitStatus::StillAlive
        ) {}
        if killpg(group, None::<Signal>) == Err(Errno::ESRCH) {
            return;
        }
        // A dead process stays in its group until its parent, now process 1, has reaped it. So only living members
        // count. They are looked up once, because a killed group gets no new members.
        if let Some(members) = &mut members {
            members.retain(|member| is_alive_in(member, group));
            if members.is_empty() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_INTERVAL_MAX);
        members.get_or_insert_with(|| members_of(group));
    }
}

/// Returns the living processes of a group. Reads the state of every process, so it is slow.
pub(super) fn members_of(group: Pid) -> Vec<Process> {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    processes.filter(|process| is_alive_in(process, group)).collect()
}

fn is_alive_in(process: &Process, group: Pid) -> bool {
    process.stat().is_ok_and(|stat| stat.pgrp == group.as_raw() && !matches!(stat.state, 'Z' | 'X' | 'x'))
}
