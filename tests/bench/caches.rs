//! The caches of the processors, emptied between measurements.
//!
//! A control plane polls an agent every few seconds, and the guests of the host use the caches meanwhile. Without this,
//! the data of a thousand targets would still be in the caches, and that of ten thousand would not fit. Each of these
//! would then cost more, although the agent does the same for it.

use std::hint::black_box;
use std::thread;

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Bytes that each processor reads. The caches of one core, and its part of those that all share, are smaller.
const READ_BYTES: usize = 64 << 20;

/// Size of a cache line of x86-64 and most ARM64 processors.
const LINE_BYTES: usize = 64;

/// Memory that replaces the content of the caches.
pub struct Caches(Vec<u64>);

impl Caches {
    /// Allocates the memory.
    pub fn new() -> Self {
        Self(vec![1; READ_BYTES / size_of::<u64>()])
    }

    /// Lets each processor that this process may use read all of the memory.
    ///
    /// # Errors
    /// When a thread cannot be moved to a processor.
    pub fn empty(&self) -> anyhow::Result<()> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let processors = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or_default());
        thread::scope(|scope| {
            let reads: Vec<_> = processors.map(|number| scope.spawn(move || self.read_on(number))).collect();
            reads.into_iter().try_for_each(|read| read.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?)
        })
    }

    fn read_on(&self, processor: usize) -> anyhow::Result<()> {
        let mut only = CpuSet::new();
        only.set(processor)?;
        sched_setaffinity(Pid::from_raw(0), &only).with_context(|| format!("processor {processor}"))?;
        let lines = self.0.iter().step_by(LINE_BYTES / size_of::<u64>());
        black_box(lines.sum::<u64>());
        Ok(())
    }
}
