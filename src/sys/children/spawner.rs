//! The thread that starts all children, for the reasons in [`children`](super).

#![allow(clippy::disallowed_methods, reason = "this is where children are started")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::sys::child_setup;

/// Maximum number of children that wait to be started. A pool of workers and the commands of busy targets need far
/// fewer.
const QUEUE_MAX: usize = 4096;

/// Stack of the thread, in bytes. It only starts children.
const STACK_BYTES: usize = 256 << 10;

/// Nice value of child processes, relative to the agent (nice(2)). Many children that start at once must not delay
/// the agent's answers. Most of the work of a worker is its start, so it must have this priority before exec.
const NICENESS: i32 = 5;

/// Origin of the program that a child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) enum Program {
    /// This program, which calls [`child_setup::apply`] itself. It is started without a copy of this process's
    /// memory map (posix_spawn(3)). Copying the map would stop all other threads for a while, and each dead mount costs
    /// a new worker at every probe.
    Ours,
    /// Another program, which [`child_setup::apply`] prepares between fork and exec.
    Foreign,
}

/// A child to start.
struct Order {
    command: Command,
    runtime: Handle,
    started: Box<dyn FnOnce(io::Result<Child>) + Send>,
}

/// Starts a child: the leader of a new process group, which dies with this process. Must be called within a
/// tokio runtime. `wrap` owns the child from the start, even if the caller has stopped waiting.
///
/// # Errors
/// As fork(2) and execve(2), for example when the program does not exist.
pub(super) async fn spawn<T: Send + 'static>(
    mut command: std::process::Command,
    program: Program,
    wrap: impl FnOnce(Child) -> T + Send + 'static,
) -> io::Result<T> {
    use std::os::unix::process::CommandExt;

    command.process_group(0);
    if program == Program::Foreign {
        // SAFETY: the function runs in the forked child before exec and makes nothing but system calls,
        // which are async-signal-safe; it allocates nothing and takes no lock.
        #[allow(unsafe_code, reason = "there is no other way to act between fork and exec")]
        unsafe {
            command.pre_exec(child_setup::apply);
        }
    }
    let mut command = Command::from(command);
    // In a runtime that is shutting down, `wrap` does not get the child, so it must be killed on drop.
    command.kill_on_drop(true);
    let (reply, answer) = oneshot::channel();
    // If the caller has stopped waiting, the child is dropped, which kills it.
    let started = Box::new(|child: io::Result<Child>| drop(reply.send(child.map(wrap))));
    thread()?
        .try_send(Box::new(Order { command, runtime: Handle::current(), started }))
        .map_err(|_| io::Error::other(format!("more than {QUEUE_MAX} children are waiting to start")))?;
    answer.await.map_err(|_| io::Error::other("the child could not be started because the agent is stopping"))?
}

/// Returns the queue of the thread, which the first call starts. The queue has memory for all its orders from the
/// start, so it contains boxes.
fn thread() -> io::Result<&'static SyncSender<Box<Order>>> {
    static THREAD: OnceLock<SyncSender<Box<Order>>> = OnceLock::new();
    if let Some(thread) = THREAD.get() {
        return Ok(thread);
    }
    let (orders, queue) = sync_channel(QUEUE_MAX);
    std::thread::Builder::new().name("spawner".to_owned()).stack_size(STACK_BYTES).spawn(move || serve(&queue))?;
    // If two callers start a thread at once, the queue of one of them loses its sender, and that thread ends.
    Ok(THREAD.get_or_init(|| orders))
}

fn serve(queue: &Receiver<Box<Order>>) {
    // Children inherit the priority of this thread, on Linux an attribute of each thread (setpriority(2)). An error is
    // ignored, because children work at any priority.
    let _ = rustix::process::nice(NICENESS);
    while let Ok(order) = queue.recv() {
        let Order { mut command, runtime, started } = *order;
        let child = catch_unwind(AssertUnwindSafe(|| {
            let _context = runtime.enter();
            let child = command.spawn();
            started(child);
        }));
        // Registering with a runtime that has just been shut down panics. The caller then gets an error.
        drop(child);
    }
}
