//! The malloc heap: a limit on the number of arenas, separate mappings of large blocks, and the return of free memory
//! to the kernel. All of them reduce resident memory.
//!
//! The C library gives a thread its own arena as soon as two threads contend for one. Free memory
//! of one arena is not available to the others. Threads that mostly wait for a disk, a name server or a
//! child do not need their own. `cargo bench --bench mounts` measures the resident memory, and
//! `--bench agent` the effect on request rates.

use std::time::Duration;
use std::{io, thread};

/// Size from which a block is mapped separately, in bytes (mallopt(3), `M_MMAP_THRESHOLD`). It is glibc's initial
/// value. Unless it is set, glibc raises it to the size of the largest block that was freed, up to 32 MiB.
const MAPPED_MIN_BYTES: i32 = 128 << 10;

/// Limits the number of malloc arenas (mallopt(3), `M_ARENA_MAX`), and maps each block of [`MAPPED_MIN_BYTES`] or more.
/// Has an effect only before the process starts its second thread, and only with glibc.
#[allow(unsafe_code, reason = "the allocator can only be configured through the C library")]
pub fn configure(arenas: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and rejects unknown ones.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, arenas.into());
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MAPPED_MIN_BYTES);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = arenas;
}

/// Interval between two looks at the memory of the process.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// Growth of the resident memory after which memory is returned at the next look, in bytes.
const GROWTH_MIN_BYTES: u64 = 2 << 20;

/// Most looks until memory is returned without growth. A return takes two milliseconds, so one at each look would be a
/// fifth of the processor time at rest.
const LOOKS_MAX: u32 = 8;

/// Least amount of free memory that is worth returning to the kernel, in bytes.
const TRIM_MIN_BYTES: usize = 1 << 20;

/// Starts a thread that returns the memory of the start and of bursts to the kernel, until the process ends. By itself,
/// the C library returns only the free memory at the end of an arena, so one small block can keep all memory of a burst
/// of requests. A separate thread is needed because a trim of 100 MB takes several milliseconds, too long for a thread
/// that runs tasks.
///
/// # Errors
/// When the thread cannot be started.
pub fn start_trimming() -> io::Result<()> {
    let return_memory = || {
        let (mut schedule, mut kept) = (Schedule::default(), 0);
        loop {
            thread::sleep(LOOK_INTERVAL);
            if schedule.is_due(resident_bytes()) {
                kept = trim_if_worth_it(kept);
                unmap_program();
            }
        }
    };
    thread::Builder::new().name("heap".to_owned()).spawn(return_memory).map(drop)
}

/// When memory is returned: as soon as the process has grown, and then after twice as many looks each time, because a
/// burst frees its memory when it ends.
#[derive(Debug, Default)]
struct Schedule {
    /// Resident bytes at the first look after the latest return. `None` until then.
    in_use: Option<u64>,
    looks_left: u32,
    /// Looks until the next return if the process does not grow.
    pause: u32,
}

impl Schedule {
    /// Returns whether memory is to be returned now, which the caller does.
    fn is_due(&mut self, resident: u64) -> bool {
        // Nothing is in use before the first look, so the memory of the start is returned.
        let in_use = if self.pause == 0 { 0 } else { *self.in_use.get_or_insert(resident) };
        let has_grown = resident >= in_use + GROWTH_MIN_BYTES;
        self.looks_left = self.looks_left.saturating_sub(1);
        if !has_grown && self.looks_left > 0 {
            return false;
        }
        self.pause = if has_grown { 1 } else { (self.pause * 2).clamp(1, LOOKS_MAX) };
        (self.in_use, self.looks_left) = (None, self.pause);
        true
    }
}

/// Returns the resident memory of the process, in bytes (proc_pid_statm(5)). 0 if it cannot be read.
fn resident_bytes() -> u64 {
    let sizes = procfs::process::Process::myself().and_then(|process| process.statm());
    sizes.map_or(0, |sizes| sizes.resident * procfs::page_size())
}

/// Trims if [`TRIM_MIN_BYTES`] became free since the latest trim. `kept` bytes were free after that trim: malloc still
/// counts bytes as free that it has returned to the kernel. Returns the new value of `kept`.
fn trim_if_worth_it(kept: usize) -> usize {
    let free = free_bytes();
    if free < kept + TRIM_MIN_BYTES {
        return kept.min(free);
    }
    trim();
    free_bytes()
}

/// Returns the free bytes of all arenas (mallinfo(3)), modulo 4 GiB.
#[allow(unsafe_code, reason = "the allocator can only be called through the C library")]
fn free_bytes() -> usize {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallinfo may be called at any time, by any thread.
    let free = unsafe { nix::libc::mallinfo() }.fordblks.cast_unsigned() as usize;
    #[cfg(not(target_env = "gnu"))]
    let free = 0;
    free
}

/// Returns free memory of all arenas to the kernel (malloc_trim(3)).
#[allow(unsafe_code, reason = "the allocator can only be called through the C library")]
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, by any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Unmaps the pages of the program and its libraries that the process has not changed (madvise(2), `MADV_DONTNEED`).
/// The kernel keeps them in its page cache, and maps those that are still used again, each in less than a microsecond.
/// It maps pages in groups of 64 KiB or more, and the start uses many functions that are rarely used afterwards.
#[allow(unsafe_code, reason = "segments can only be listed, and pages only be unmapped, through the C library")]
fn unmap_program() {
    // SAFETY: the function has the required signature, and dl_iterate_phdr(3) does not keep it.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::dl_iterate_phdr(Some(unmap_object), std::ptr::null_mut());
    }
}

/// Unmaps the segments of a program or library that are never writable. Each page of them equals the page of its file.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "called by the C library")]
extern "C" fn unmap_object(
    object: *mut nix::libc::dl_phdr_info,
    _size: nix::libc::size_t,
    _data: *mut nix::libc::c_void,
) -> nix::libc::c_int {
    // SAFETY: the C library passes an object that stays loaded during the call, with its program headers.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    let page = procfs::page_size() as usize;
    let unchanged = headers.iter().filter(|one| one.p_type == nix::libc::PT_LOAD && one.p_flags & nix::libc::PF_W == 0);
    for header in unchanged {
        // The base of an object below its linked address is a negative number, as that of a vDSO can be.
        let address = (base as usize).wrapping_add(header.p_vaddr as usize);
        let begin = address / page * page;
        let length = address + header.p_memsz as usize - begin;
        // SAFETY: the kernel reads unchanged pages of a file again when they are accessed.
        unsafe {
            nix::libc::madvise(begin as *mut nix::libc::c_void, length, nix::libc::MADV_DONTNEED);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use procfs::process::Process;

    use super::*;

    /// Looks until the next return, while this much is resident.
    fn looks(schedule: &mut Schedule, resident: u64) -> usize {
        (1..100).find(|_| schedule.is_due(resident)).expect("a return")
    }

    #[test]
    fn memory_is_returned_at_once_after_growth_and_then_more_rarely() {
        const MB: u64 = 1 << 20;
        let mut schedule = Schedule::default();
        assert_eq!([12, 8, 8, 8, 8, 8].map(|size| looks(&mut schedule, size * MB)), [1, 1, 2, 4, 8, 8], "start");
        assert!([8 * MB, 10 * MB - 1].iter().all(|size| !schedule.is_due(*size)), "nearly as much as before");
        assert_eq!([20, 30, 40].map(|size| looks(&mut schedule, size * MB)), [1, 1, 2], "a burst");
        assert_eq!([40, 10, 10].map(|size| looks(&mut schedule, size * MB)), [4, 8, 8], "its end");
        let mut unknown = Schedule::default();
        assert_eq!([0; 5].map(|size| looks(&mut unknown, size)), [1, 1, 2, 4, 8]);
    }

    #[test]
    #[cfg_attr(not(target_env = "gnu"), ignore = "only the GNU C library unmaps")]
    fn program_runs_with_less_memory_after_its_pages_are_unmapped() {
        // Other tests in this process may use more heap meanwhile.
        let pages_of_files = || Process::myself().and_then(|process| process.statm()).expect("sizes").shared;
        let before = pages_of_files();
        unmap_program();
        let after = pages_of_files();
        assert!(after < before, "{before} pages before, {after} after");
    }
}
