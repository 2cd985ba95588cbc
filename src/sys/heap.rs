//! The heap: small, for a process that is on every host.
//!
//! The C library gives each thread a heap of its own as soon as two threads meet at one, and what is
//! free in one is of no use to the others. The agent's threads wait far more than they allocate, so
//! one heap serves them all. `cargo bench --bench mounts` measures what is resident, `--bench agent` what it
//! costs those who poll.

/// Lets all threads share one heap (mallopt(3), `M_ARENA_MAX`). Only a call before the process's second
/// thread has an effect, and with another C library than glibc there is none.
#[allow(unsafe_code, reason = "there is no other way to reach the allocator than the C library's own")]
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and refuses those that it does not know.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}
