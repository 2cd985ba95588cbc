//! The one thread that makes children, for the reasons given in [`super`].

#![allow(clippy::disallowed_methods, reason = "this is where children are made")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Child, ChildCensus};
use crate::sys::child_setup;

/// How many children may be asked for before their callers are told that there are too many. Far
/// more than a pool and one command for each target come to.
const QUEUE_MAX: usize = 4096;

/// Whose program a child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) enum Program {
    /// Our own, which calls [`child_setup::apply`] first thing. It is started without a copy of this
    /// process's memory map (posix_spawn(3)): a copy stops all other threads for a while, and a crowd of
    /// dead mounts costs a new worker each at every probe.
    Ours,
    /// Somebody else's, which has to be prepared between fork and exec.
    Foreign,
}

/// Stack of the thread, in bytes. It does nothing but fork.
const STACK_BYTES: usize = 256 << 10;

struct Order {
    command: tokio::process::Command,
    what: String,
    census: ChildCensus,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Makes a child: the leader of a new process group, which dies with this process. Must be called
/// within a tokio runtime. If the caller gives up meanwhile, the child is killed as soon as it
/// exists.
///
/// # Errors
/// As fork(2) and execve(2) have it: above all, that there is no such program.
pub(in crate::sys) async fn spawn(
    mut command: std::process::Command,
    program: Program,
    what: String,
    census: &ChildCensus,
) -> io::Result<Child> {
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
    let mut command = tokio::process::Command::from(command);
    // For the one case that `Child` cannot see to: a runtime that is shutting down.
    command.kill_on_drop(true);
    let (reply, answer) = oneshot::channel();
    let order = Order { command, what, census: census.clone(), runtime: Handle::current(), reply };
    let thread = thread()?;
    thread
        .try_send(order)
        .map_err(|_| io::Error::other(format!("more than {QUEUE_MAX} children are waiting to start")))?;
    answer.await.map_err(|_| io::Error::other("the child could not be made because the agent is stopping"))?
}

fn thread() -> io::Result<&'static SyncSender<Order>> {
    static THREAD: OnceLock<SyncSender<Order>> = OnceLock::new();
    if let Some(thread) = THREAD.get() {
        return Ok(thread);
    }
    let (orders, queue) = sync_channel(QUEUE_MAX);
    std::thread::Builder::new().name("spawner".to_owned()).stack_size(STACK_BYTES).spawn(move || serve(&queue))?;
    // When two were started at once, the loser's queue has no sender left and its thread ends.
    Ok(THREAD.get_or_init(|| orders))
}

fn serve(queue: &Receiver<Order>) {
    while let Ok(Order { mut command, what, census, runtime, reply }) = queue.recv() {
        let child = catch_unwind(AssertUnwindSafe(|| {
            let _context = runtime.enter();
            command.spawn().map(|process| Child::new(process, what, census, runtime.clone()))
        }));
        // Registering with a runtime that has just been shut down panics; the others go on.
        let child = child.unwrap_or_else(|_| Err(io::Error::other("the runtime is shutting down")));
        // A caller who gave up gets nothing, and dropping the child kills it.
        let _ = reply.send(child);
    }
}
