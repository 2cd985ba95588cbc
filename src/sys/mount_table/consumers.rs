//! Which processes of this host see a mount: those with the configured names, in their own mount namespaces.
//!
//! A process is recognized by `/proc/PID/comm`, and `/proc/PID/mountinfo` shows what it sees. The kernel answers both
//! from memory and without a lock of that process, unlike `cmdline`, whose reader waits for the process's memory. A
//! mount is recognized by its device number and source, and not by its path, because a container may have it elsewhere.
//!
//! One sweep of `/proc` serves all targets for [`SWEEP_INTERVAL`]. It runs in a thread of its own, reads a bounded
//! number of processes and bytes, and is abandoned at a deadline. An abandoned thread is not joined by a second one.

#![allow(clippy::disallowed_methods, reason = "procfs answers from memory: nothing here can wait for storage")]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::sync::{Mutex, oneshot};

use super::table::{MountEntry, MountTable};
use super::watch::MountTableWatch;
use crate::model::line::escape_invisible;
use crate::model::settings::LocationPattern;
use crate::sys::selinux::{SELINUX, denies_nfs_to_guests};

/// Time for which the result of a sweep is used.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time between two sweeps, also for a requested probe and for a mount that is newer than the latest sweep.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest time of a sweep.
const SWEEP_DEADLINE: Duration = Duration::from_secs(5);

/// Largest number of processes with one configured name whose mounts are read: those with the lowest ids. A host may
/// run hundreds of virtual machines.
const PROCESSES_MAX: usize = 16;

/// Largest number of bytes of the mount table of one process.
const TABLE_MAX_BYTES: u64 = 16 << 20;

/// Largest number of bytes in `comm`: `TASK_COMM_LEN`, in which the final zero is replaced by a new line.
const NAME_MAX_BYTES: usize = 16;

/// What the processes with one configured name see of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSight {
    /// The configured name.
    pub consumer: String,
    /// Number of processes whose mounts were read.
    pub verified: usize,
    /// Number of processes whose mounts were not read, because there are too many or `/proc` hides them.
    pub unverified: usize,
    /// The processes that do not see the mount.
    pub blind: Vec<ConsumerProcess>,
}

/// A process with a configured name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerProcess {
    /// Process id.
    pub pid: u32,
    /// Name of the process (`comm`).
    pub name: String,
}

/// What all consumers see of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The configured names that a process has.
    pub consumers: Vec<ConsumerSight>,
    /// Whether SELinux of this host denies virtual machines the files on NFS.
    pub selinux_denies_nfs: bool,
}

/// What identifies a mount in every mount namespace. Mounts of one file system of a server may share the device number,
/// so the source counts too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MountKey {
    device: String,
    source: String,
}

impl MountKey {
    fn of(entry: &MountEntry) -> Self {
        Self { device: entry.device.clone(), source: entry.source.clone() }
    }
}

/// The latest sweep, shared by all targets.
#[derive(Debug)]
pub struct ConsumerWatch {
    proc: PathBuf,
    latest: Mutex<Option<Latest>>,
    /// Whether the thread of a sweep runs, also an abandoned one.
    is_running: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Latest {
    began: Instant,
    ended: Instant,
    names: Vec<LocationPattern>,
    /// Mounts that existed during the whole sweep.
    known: HashSet<Arc<MountKey>>,
    result: Result<Swept, String>,
}

/// Result of a sweep.
#[derive(Debug)]
struct Swept {
    /// One for each name.
    groups: Vec<Group>,
    selinux_denies_nfs: bool,
}

/// The processes with one configured name.
#[derive(Debug, Default)]
struct Group {
    unverified: usize,
    /// Each process with the wanted mounts that it does not see.
    verified: Vec<(ConsumerProcess, HashSet<Arc<MountKey>>)>,
}

impl Default for ConsumerWatch {
    fn default() -> Self {
        Self { proc: "/proc".into(), latest: Mutex::default(), is_running: Arc::default() }
    }
}

impl ConsumerWatch {
    /// Returns what the processes with these names see of a mount of this process, at most `max_age` ago. A name may
    /// contain `*`. Names without a process are left out. `None` if the mount is newer than the latest sweep, or not
    /// mounted any more.
    ///
    /// # Errors
    /// Why the processes cannot be read.
    pub async fn sight(
        &self,
        mounts: &MountTableWatch,
        names: &[LocationPattern],
        mount_id: u32,
        max_age: Duration,
    ) -> Result<Option<Sight>, String> {
        let asked = Instant::now();
        // One probe sweeps, and all others that wait for the lock use the result.
        let mut latest = self.latest.lock().await;
        let own = mounts.current();
        let Some(key) = own.entries().iter().find(|entry| entry.mount_id == mount_id).map(MountKey::of) else {
            return Ok(None);
        };
        let is_current = latest.as_ref().is_some_and(|latest| {
            let is_complete = latest.result.is_err() || latest.known.contains(&key);
            let max_age = if is_complete { max_age.max(SWEEP_INTERVAL_MIN) } else { SWEEP_INTERVAL_MIN };
            latest.names == names && (latest.began >= asked || latest.ended.elapsed() < max_age)
        });
        let latest = match latest.take().filter(|_| is_current) {
            Some(current) => latest.insert(current),
            // If this probe is cancelled, nothing is kept, and the next one sweeps.
            None => latest.insert(self.sweep(mounts, &own, names).await?),
        };
        let swept = latest.result.as_ref().map_err(Clone::clone)?;
        if !latest.known.contains(&key) {
            return Ok(None);
        }
        let found = names.iter().zip(&swept.groups).filter(|(_, group)| group.unverified + group.verified.len() > 0);
        let sights = found.map(|(name, group)| {
            let blind = group.verified.iter().filter(|(_, missing)| missing.contains(&key));
            ConsumerSight {
                consumer: name.as_str().to_owned(),
                verified: group.verified.len(),
                unverified: group.unverified,
                blind: blind.map(|(process, _)| process.clone()).collect(),
            }
        });
        Ok(Some(Sight { consumers: sights.collect(), selinux_denies_nfs: swept.selinux_denies_nfs }))
    }

    /// # Errors
    /// An earlier sweep still runs.
    async fn sweep(
        &self,
        mounts: &MountTableWatch,
        own: &MountTable,
        names: &[LocationPattern],
    ) -> Result<Latest, String> {
        if self.is_running.swap(true, Ordering::AcqRel) {
            return Err("an earlier sweep of the processes in /proc has not ended yet".to_owned());
        }
        let began = Instant::now();
        let before: Vec<MountEntry> = own.entries().iter().filter(|entry| entry.is_nfs()).cloned().collect();
        let wanted = before.iter().map(|entry| Arc::new(MountKey::of(entry))).collect();
        let result = self.sweep_in_thread(names.to_vec(), wanted, began + SWEEP_DEADLINE).await;
        // A mount that was replaced meanwhile may have been missing everywhere for a moment.
        let after = mounts.reread().unwrap_or_default();
        let after: HashMap<u32, &MountEntry> = after.entries().iter().map(|entry| (entry.mount_id, entry)).collect();
        let known = before.iter().filter(|entry| after.get(&entry.mount_id) == Some(entry));
        let known = known.map(|entry| Arc::new(MountKey::of(entry))).collect();
        Ok(Latest { began, ended: Instant::now(), names: names.to_vec(), known, result })
    }

    async fn sweep_in_thread(
        &self,
        names: Vec<LocationPattern>,
        wanted: HashSet<Arc<MountKey>>,
        deadline: Instant,
    ) -> Result<Swept, String> {
        let (reply, result) = oneshot::channel();
        let (proc, is_running) = (self.proc.clone(), self.is_running.clone());
        let thread = std::thread::Builder::new().name("consumers".to_owned()).spawn(move || {
            let selinux_denies_nfs = denies_nfs_to_guests(Path::new(SELINUX));
            let swept = sweep(&proc, &names, &wanted, deadline).map(|groups| Swept { groups, selinux_denies_nfs });
            is_running.store(false, Ordering::Release);
            // The receiver may have stopped waiting.
            drop(reply.send(swept));
        });
        if let Err(error) = thread {
            self.is_running.store(false, Ordering::Release);
            return Err(format!("a thread cannot be started: {error}"));
        }
        let waiting = tokio::time::timeout_at(deadline.into(), result);
        let late = || format!("the processes in /proc were not read within {} s", SWEEP_DEADLINE.as_secs());
        waiting.await.ok().and_then(Result::ok).unwrap_or_else(|| Err(late()))
    }
}

/// Reads the processes with these names. Returns a group for each name.
fn sweep(
    proc: &Path,
    names: &[LocationPattern],
    wanted: &HashSet<Arc<MountKey>>,
    deadline: Instant,
) -> Result<Vec<Group>, String> {
    let failed = |error| format!("cannot list {}: {error}", proc.display());
    let mut pids = Vec::new();
    for entry in std::fs::read_dir(proc).map_err(failed)? {
        pids.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    let mut groups: Vec<Group> = names.iter().map(|_| Group::default()).collect();
    for pid in pids {
        if Instant::now() > deadline {
            return Err("reading the processes in /proc takes too long".to_owned());
        }
        let directory = proc.join(pid.to_string());
        let Some(name) = process_name(&directory) else { continue };
        let Some(at) = names.iter().position(|pattern| is_named(pattern, &name)) else { continue };
        let group = &mut groups[at];
        if group.verified.len() >= PROCESSES_MAX {
            group.unverified += 1;
            continue;
        }
        match missing(&directory, wanted) {
            Ok(missing) => {
                group.verified.push((ConsumerProcess { pid, name: escape_invisible(&name) }, missing));
            }
            Err(error) if has_ended(&error) => {}
            Err(_) => group.unverified += 1,
        }
    }
    Ok(groups)
}

/// Returns the name of a process. `None` if it has ended, or `/proc` hides it.
fn process_name(directory: &Path) -> Option<String> {
    let mut name = Vec::with_capacity(NAME_MAX_BYTES);
    File::open(directory.join("comm")).ok()?.take(NAME_MAX_BYTES as u64).read_to_end(&mut name).ok()?;
    Some(String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned())
}

/// Whether a process has a configured name. The kernel cuts names after 15 bytes.
fn is_named(pattern: &LocationPattern, name: &str) -> bool {
    let full = pattern.as_str();
    let cut = full.get(..NAME_MAX_BYTES - 1).filter(|_| full.len() >= NAME_MAX_BYTES && !full.contains('*'));
    pattern.matches(name) || cut == Some(name)
}

/// Returns the wanted mounts that a process does not see.
fn missing(directory: &Path, wanted: &HashSet<Arc<MountKey>>) -> std::io::Result<HashSet<Arc<MountKey>>> {
    let mut missing = wanted.clone();
    let file = File::open(directory.join("mountinfo"))?;
    let mut lines = BufReader::new(file.take(TABLE_MAX_BYTES + 1));
    let (mut line, mut total) = (Vec::new(), 0);
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line)?;
        if length == 0 {
            // It is kept until the next sweep, and usually empty.
            missing.shrink_to_fit();
            return Ok(missing);
        }
        total += length as u64;
        if total > TABLE_MAX_BYTES {
            return Err(std::io::Error::other("the mount table is too large"));
        }
        // Most lines are not about NFS, so they are not parsed.
        if line.windows(6).any(|part| part == b" - nfs")
            && let Some(entry) = MountTable::parse(&line).entries().first()
        {
            missing.remove(&MountKey::of(entry));
        }
    }
}

/// Whether a process ended before its mounts were read. A process that is ending has no mount namespace any more.
fn has_ended(error: &std::io::Error) -> bool {
    let ended = [Errno::ENOENT, Errno::ESRCH, Errno::EINVAL].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|code| ended.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "20 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n";
    const MOUNT: &str = "30 20 0:9 / /elsewhere rw master:2 - nfs nas:/b rw\n";

    fn patterns(names: &[&str]) -> Vec<LocationPattern> {
        names.iter().map(|name| LocationPattern::new(name)).collect()
    }

    fn key(device: &str, source: &str) -> MountKey {
        MountKey { device: device.to_owned(), source: source.to_owned() }
    }

    fn process(proc: &Path, pid: u32, name: &str, table: Option<&str>) {
        let directory = proc.join(pid.to_string());
        std::fs::create_dir(&directory).expect("created");
        std::fs::write(directory.join("comm"), format!("{name}\n")).expect("written");
        match table {
            Some(table) => std::fs::write(directory.join("mountinfo"), table).expect("written"),
            // Opening it succeeds, and reading it fails.
            None => std::fs::create_dir(directory.join("mountinfo")).expect("created"),
        }
    }

    fn swept(proc: &Path, names: &[&str]) -> Vec<Group> {
        let wanted = HashSet::from([Arc::new(key("0:9", "nas:/b"))]);
        sweep(proc, &patterns(names), &wanted, Instant::now() + SWEEP_DEADLINE).expect("swept")
    }

    #[test]
    fn mount_is_recognized_by_device_and_source_in_the_table_of_a_process() {
        let proc = tempfile::tempdir().expect("a directory");
        let tables = [
            (10, format!("{ROOT}{MOUNT}"), true),
            (11, ROOT.to_owned(), false),
            (12, format!("{ROOT}{}", MOUNT.replace("0:9", "0:8")), false),
            (13, format!("{ROOT}{}", MOUNT.replace("nas:/b", "nas:/c")), false),
            (14, String::new(), false),
        ];
        for (pid, table, _) in &tables {
            process(proc.path(), *pid, "libvirtd", Some(table));
        }
        process(proc.path(), 15, "bash", Some(ROOT));
        process(proc.path(), 16, "libvirtd", None);
        let groups = swept(proc.path(), &["libvirtd", "absent"]);
        let seen: Vec<(u32, bool)> =
            groups[0].verified.iter().map(|(process, missing)| (process.pid, missing.is_empty())).collect();
        assert_eq!(seen, tables.map(|(pid, _, is_seen)| (pid, is_seen)));
        assert_eq!((groups[0].unverified, groups[1].verified.len(), groups[1].unverified), (1, 0, 0));
    }

    #[test]
    fn processes_are_named_as_the_kernel_cuts_names() {
        for (pattern, name, is_named_so) in [
            ("libvirtd", "libvirtd", true),
            ("libvirtd", "libvirtd2", false),
            ("qemu-system-*", "qemu-system-x86", true),
            ("qemu-system-x86_64", "qemu-system-x86", true),
            ("qemu-system-x86_64", "qemu-system-x87", false),
            ("sixteen-letters-", "sixteen-letters", true),
            ("*", "", true),
        ] {
            assert_eq!(is_named(&LocationPattern::new(pattern), name), is_named_so, "{pattern} {name}");
        }
    }

    #[test]
    fn number_of_processes_of_one_name_is_bounded() {
        let proc = tempfile::tempdir().expect("a directory");
        for pid in 1..=20 {
            process(proc.path(), pid, "qemu-kvm", Some(ROOT));
        }
        let groups = swept(proc.path(), &["qemu-kvm"]);
        assert_eq!((groups[0].verified.len(), groups[0].unverified), (PROCESSES_MAX, 20 - PROCESSES_MAX));
        assert_eq!(groups[0].verified[0].0.pid, 1);
    }

    #[test]
    fn too_large_table_is_not_verified_and_a_late_sweep_is_an_error() {
        let proc = tempfile::tempdir().expect("a directory");
        process(proc.path(), 1, "libvirtd", Some(""));
        let file = File::options().write(true).open(proc.path().join("1/mountinfo")).expect("opened");
        file.set_len(TABLE_MAX_BYTES + 1).expect("sparse");
        assert_eq!(swept(proc.path(), &["libvirtd"])[0].unverified, 1);
        let error = sweep(proc.path(), &patterns(&["libvirtd"]), &HashSet::new(), Instant::now() - SWEEP_DEADLINE);
        assert!(error.expect_err("late").contains("too long"));
    }

    #[tokio::test]
    async fn sweep_is_shared_and_a_running_one_is_not_joined_by_another() {
        let mounts = MountTableWatch::start().expect("procfs");
        let own = mounts.current().entries().first().expect("a mount").mount_id;
        let names = patterns(&["no-such-process"]);
        let watch = ConsumerWatch::default();
        // Only NFS mounts are looked for.
        assert_eq!(watch.sight(&mounts, &names, own, SWEEP_INTERVAL).await, Ok(None));
        let first = watch.latest.lock().await.as_ref().expect("swept").began;
        assert_eq!(watch.sight(&mounts, &names, own, SWEEP_INTERVAL).await, Ok(None));
        assert_eq!(watch.latest.lock().await.as_ref().expect("swept").began, first, "not swept again");
        watch.is_running.store(true, Ordering::Release);
        let other = patterns(&["other"]);
        let error = watch.sight(&mounts, &other, own, SWEEP_INTERVAL).await.expect_err("busy");
        assert!(error.contains("has not ended yet"), "{error}");
        watch.is_running.store(false, Ordering::Release);
        assert_eq!(watch.sight(&mounts, &other, own, SWEEP_INTERVAL).await, Ok(None), "the error is not kept");
    }
}
