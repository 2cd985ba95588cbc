//! The heaps: few, for a process that is on every host.
//!
//! The C library gives a thread a heap of its own as soon as it meets another at one, and what is free
//! in one is of no use to the others. Threads that wait all day for a disk, a name server or a child
//! need none of their own. `cargo bench --bench mounts` measures what is resident, `--bench agent` how
//! fast those are answered who poll.

/// Lets the process have so many heaps and no more (mallopt(3), `M_ARENA_MAX`). Only a call before the
/// process's second thread has an effect, and with another C library than glibc there is none.
#[allow(unsafe_code, reason = "there is no other way to reach the allocator than the C library's own")]
pub fn limit(heaps: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and refuses those that it does not know.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, heaps.into());
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = heaps;
}
