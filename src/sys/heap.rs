//! Heaps: a limit on the number of malloc arenas, which saves resident memory.
//!
//! The C library gives a thread an arena of its own as soon as two threads contend for one. Free memory
//! of one arena is not available to the others. Threads that mostly wait for a disk, a name server or a
//! child do not need their own. `cargo bench --bench mounts` measures the resident memory, and
//! `--bench agent` the effect on request rates.

/// Limits the number of malloc arenas (mallopt(3), `M_ARENA_MAX`). Has an effect only before the process
/// starts its second thread, and only with glibc.
#[allow(unsafe_code, reason = "the allocator can only be configured through the C library")]
pub fn limit(heaps: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and rejects unknown ones.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, heaps.into());
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = heaps;
}
