//! What the agent and a worker say to each other: length-prefixed JSON over the worker's standard
//! input and output.
//!
//! A frame is four bytes of length, little-endian, and that many bytes of JSON, at most
//! [`FRAME_MAX_BYTES`]. Each request has a number and its answer repeats it: an answer to anything
//! else is a broken worker, never somebody else's measurement. A worker begins with an answer that
//! nobody asked for, to say that it is there ([`HELLO`]).
//!
//! Measurements of several targets may come in one frame ([`Order::Batch`]) and are answered one by one,
//! each as soon as it is made. What a worker has not begun when the batch's time is up it gives back, and
//! says so: storage that has just become slow must keep no other target waiting behind it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::Capacity;

/// How long the length of a frame is, in bytes.
pub(super) const LENGTH_BYTES: usize = 4;

/// The largest frame, in bytes.
pub const FRAME_MAX_BYTES: usize = 64 << 10;

/// The number of a worker's first answer, and of no request; the frame of a batch, which has no answer of
/// its own, bears it too.
pub(super) const HELLO: u64 = 0;

/// How many measurements one frame may ask for.
pub(super) const BATCH_MAX: usize = 16;

/// How long after a batch was sent a worker begins with another measurement of it.
pub(super) const BATCH_TIME: Duration = Duration::from_millis(5);

/// The longest path that is measured in a batch, in bytes: [`BATCH_MAX`] of them fit into a frame, even if
/// JSON needs six bytes for each of theirs.
const BATCH_PATH_MAX_BYTES: usize = 512;

/// What every canary file's name begins with.
const CANARY_PREFIX: &str = ".targetwatch-canary-";

/// A frame on its way: a body and its number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) body: T,
}

/// A time in nanoseconds of `CLOCK_MONOTONIC` (clock_gettime(2)), which is the same in all processes of a
/// host that share the agent's time namespace, as its children do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct HostTime(u64);

impl HostTime {
    /// The time now.
    pub(super) fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let part = |number| u64::try_from(number).unwrap_or_default();
        Self(part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec)))
    }

    /// That much later.
    pub(super) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// What a frame asks for. `R` is a [`Request`], or a reference to one that is to be sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order<R> {
    /// One request, answered by a [`Response`] or a [`WorkerFault`].
    One(R),
    /// Several, each of which is answered in turn: by the same, or by `null` if it was not begun. The first
    /// always is.
    Batch {
        /// Until when another is begun.
        until: HostTime,
        /// What is asked for, at most [`BATCH_MAX`].
        requests: Vec<Numbered<R>>,
    },
}

/// Something that a worker can be asked to do. Paths must be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Measure the file system at a directory. Answered by [`Response::Counts`].
    StatVfs {
        /// The directory.
        path: PathBuf,
        /// Whether anything but NFS is an error ([`FaultKind::NotNfs`]).
        expect_nfs: bool,
    },
    /// Write, read back and remove a file. Answered by [`Response::Canary`].
    Canary(CanaryRequest),
    /// Make the directory that is mounted on. Only when nothing is mounted there. Answered by
    /// [`Response::Prepared`].
    PrepareMountPoint {
        /// The mount root; made if it is missing, with its parents.
        root: PathBuf,
        /// The directory below it.
        relative: PathBuf,
    },
    /// Remove that directory, and those between it and the root that are empty then. Answered by
    /// [`Response::Done`], also when it is gone already.
    RemoveMountPoint {
        /// The mount root, which stays.
        root: PathBuf,
        /// The directory below it.
        relative: PathBuf,
    },
    /// Unmount what is on top at a path. Answered by [`Response::Done`].
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// How hard.
        how: UnmountHow,
    },
}

impl Request {
    /// What it does, for a log.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StatVfs { .. } => "statvfs",
            Self::Canary(_) => "canary",
            Self::PrepareMountPoint { .. } => "prepare_mount_point",
            Self::RemoveMountPoint { .. } => "remove_mount_point",
            Self::Unmount { .. } => "unmount",
        }
    }

    /// Whether it may be done in one batch with those of other targets: it only looks, and takes no time
    /// unless storage does.
    #[must_use]
    pub(super) fn is_brief(&self) -> bool {
        match self {
            Self::StatVfs { path, .. } => path.to_str().is_some_and(|path| path.len() <= BATCH_PATH_MAX_BYTES),
            _ => false,
        }
    }

    /// Whether it comes to the same when it is done twice, so that a worker that broke by it may be
    /// replaced and asked again.
    #[must_use]
    pub const fn is_repeatable(&self) -> bool {
        match self {
            // Nothing is changed; made is made; gone is gone.
            Self::StatVfs { .. } | Self::PrepareMountPoint { .. } | Self::RemoveMountPoint { .. } => true,
            // What the first one left behind would be taken for a fault of the storage.
            Self::Canary(_) => false,
            // A second one takes whatever was below, which may be somebody else's.
            Self::Unmount { .. } => false,
        }
    }
}

/// How hard to unmount, as umount2(2) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnmountHow {
    /// Only if nothing uses it.
    Plain,
    /// Requests that wait for the server are failed first (`MNT_FORCE`); what is in use stays.
    Force,
    /// Out of sight at once, and gone when nothing uses it any more (`MNT_DETACH`).
    Lazy,
}

/// A file to write, read back and remove as the user who writes backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRequest {
    /// The directory.
    pub path: PathBuf,
    /// The user.
    pub uid: u32,
    /// The user's group. There are no supplementary ones.
    pub gid: u32,
    /// The names of the file and of leftovers.
    pub names: CanaryNames,
    /// Whether anything but NFS is an error ([`FaultKind::NotNfs`]).
    pub expect_nfs: bool,
}

/// The name of a canary, and what those of this node begin with. Many nodes write to one export,
/// and each removes only what itself left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryNames {
    /// The name of the file: new for each canary.
    pub name: String,
    /// What the names of this node's canaries begin with.
    pub leftover_prefix: String,
}

impl CanaryNames {
    /// For a canary of this node: `.targetwatch-canary-<node>-<uuid>`.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        // FNV-1a, 64 bits: a name must mean the same in the next release too, which the standard
        // library's hasher does not promise.
        let node = hostname
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let leftover_prefix = format!("{CANARY_PREFIX}{node:016x}-");
        Self { name: format!("{leftover_prefix}{}", Uuid::new_v4()), leftover_prefix }
    }

    /// Whether both are what [`Self::new`] makes: a worker removes files by these.
    pub(super) fn are_sound(&self) -> bool {
        let node = self.leftover_prefix.strip_prefix(CANARY_PREFIX).and_then(|rest| rest.strip_suffix('-'));
        let id = self.name.strip_prefix(&self.leftover_prefix);
        node.is_some_and(|node| node.len() == 16 && node.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && id.is_some_and(|id| Uuid::try_parse(id).is_ok())
    }
}

/// A worker's answer when it did what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::StatVfs`].
    Counts(FileSystemCounts),
    /// To [`Request::Canary`].
    Canary(CanaryWritten),
    /// To [`Request::PrepareMountPoint`].
    Prepared(PreparedMountPoint),
    /// To the others.
    Done,
}

/// The counts of statvfs(3). On Linux an NFS client asks the server for them each time (FSSTAT),
/// so they are never older than the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 7]", into = "[u64; 7]")]
pub struct FileSystemCounts {
    /// The unit of the block counts, in bytes (`f_frsize`).
    pub unit_bytes: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for unprivileged users.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// The file system's magic number, as in statfs(2).
    pub magic: u64,
}

/// Without names: there are a thousand of them in a sweep.
impl From<FileSystemCounts> for [u64; 7] {
    fn from(counts: FileSystemCounts) -> Self {
        let FileSystemCounts { unit_bytes, blocks, blocks_free, blocks_available, files, files_free, magic } = counts;
        [unit_bytes, blocks, blocks_free, blocks_available, files, files_free, magic]
    }
}

impl From<[u64; 7]> for FileSystemCounts {
    fn from(counts: [u64; 7]) -> Self {
        let [unit_bytes, blocks, blocks_free, blocks_available, files, files_free, magic] = counts;
        Self { unit_bytes, blocks, blocks_free, blocks_available, files, files_free, magic }
    }
}

impl FileSystemCounts {
    /// The capacity that they come to.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity::from_blocks(
            self.unit_bytes,
            self.blocks,
            self.blocks_free,
            self.blocks_available,
            self.files,
            self.files_free,
        )
    }
}

/// What came of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryWritten {
    /// How many bytes were written and read back.
    pub bytes: u64,
    /// How they were read back.
    pub read_back: ReadBack,
    /// How many files that earlier canaries of this node had left behind were removed.
    pub leftovers_removed: u32,
}

/// How a canary was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadBack {
    /// With `O_DIRECT`: from the server.
    Direct,
    /// After asking the kernel to forget its own copy, which it need not do.
    Advised,
}

/// What came of preparing a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedMountPoint {
    /// Whether it had to be made.
    pub created: bool,
    /// Whether others than root could write to the bare directory, which was put right.
    pub tightened: bool,
    /// Whether the bare directory holds files, which a mount will hide: perhaps backups that were
    /// written while nothing was mounted.
    pub holds_files: bool,
}

/// Why a worker could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{at}")]
pub struct WorkerFault {
    /// What sort of failure it is.
    pub kind: FaultKind,
    /// The error number of the system call that failed, if one did.
    errno: Option<i32>,
    /// What was tried on what, and how it failed.
    pub at: String,
}

/// The sorts of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A system call failed; [`WorkerFault::errno`] says how.
    System,
    /// The file system at the path is not NFS: it was unmounted meanwhile.
    NotNfs,
    /// What was read back is not what was written.
    CanaryMismatch,
    /// The directory to be removed is not empty.
    NotEmpty,
    /// A symbolic link or a file is where a directory is needed.
    NotADirectory,
    /// Something is mounted where a bare directory was expected.
    Mounted,
    /// The worker may not act as the user that it was asked to.
    Identity,
    /// The request makes no sense: a relative root, a `..`, a name that is no canary's.
    BadRequest,
}

impl WorkerFault {
    pub(super) fn new(kind: FaultKind, at: impl Into<String>) -> Self {
        Self { kind, errno: None, at: at.into() }
    }

    /// A system call that failed on a path.
    #[must_use]
    pub fn system(call: &str, path: &Path, errno: Errno) -> Self {
        let kind = match errno {
            Errno::ELOOP | Errno::ENOTDIR => FaultKind::NotADirectory,
            Errno::ENOTEMPTY => FaultKind::NotEmpty,
            _ => FaultKind::System,
        };
        let at = format!("{call} {}: {} ({})", path.display(), errno.desc(), errno_name(errno));
        Self { kind, errno: Some(errno as i32), at }
    }

    /// The same failure, known to mean something else.
    pub(super) fn of_kind(mut self, kind: FaultKind) -> Self {
        self.kind = kind;
        self
    }

    /// The error number of the system call that failed, if one did.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno.map(Errno::from_raw)
    }
}

fn errno_name(errno: Errno) -> String {
    format!("{errno:?}")
}

/// A frame of this body, ready to be written.
///
/// # Errors
/// When it is larger than [`FRAME_MAX_BYTES`] or a path in it is not UTF-8.
pub(super) fn encode<T: Serialize>(number: u64, body: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut frame, &Numbered { number, body })?;
    let length = frame.len() - LENGTH_BYTES;
    let prefix = u32::try_from(length).ok().filter(|_| length <= FRAME_MAX_BYTES);
    let prefix = prefix.ok_or_else(|| io::Error::other(format!("a frame of {length} bytes is too long")))?;
    frame[..LENGTH_BYTES].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// The length that a frame's prefix announces.
///
/// # Errors
/// When it is larger than [`FRAME_MAX_BYTES`].
fn length(prefix: [u8; LENGTH_BYTES]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if length > FRAME_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes was announced")));
    }
    Ok(length)
}

/// The body of a frame.
///
/// # Errors
/// When it is not what was expected.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<Numbered<T>> {
    serde_json::from_slice(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a frame, or `None` at the end of the input.
///
/// # Errors
/// When the input ends within a frame or holds something else.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<Numbered<T>>> {
    let mut prefix = [0; LENGTH_BYTES];
    let first = loop {
        match input.read(&mut prefix[..1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    input.read_exact(&mut prefix[1..])?;
    let mut body = vec![0; length(prefix)?];
    input.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// Writes a frame.
///
/// # Errors
/// When it is too long or nobody reads.
pub(super) fn write<T: Serialize>(output: &mut impl Write, number: u64, body: &T) -> io::Result<()> {
    output.write_all(&encode(number, body)?)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_way() {
        let request = Request::Canary(CanaryRequest {
            path: "/m/ü".into(),
            uid: 42436,
            gid: 42436,
            names: CanaryNames::new("node-1"),
            expect_nfs: true,
        });
        let frame = encode(7, &request).expect("encodes");
        let read: Numbered<Request> = read(&mut frame.as_slice()).expect("reads").expect("a frame");
        assert_eq!((read.number, read.body), (7, request));
        let answer: Result<Response, WorkerFault> = Err(WorkerFault::system("fstatfs", Path::new("/m"), Errno::ESTALE));
        let frame = encode(8, &answer).expect("encodes");
        let read: Numbered<Result<Response, WorkerFault>> = decode(&frame[LENGTH_BYTES..]).expect("reads");
        assert_eq!(read.body.as_ref().map_err(WorkerFault::errno), Err(Some(Errno::ESTALE)));
        assert_eq!(read.body.expect_err("a fault").to_string(), "fstatfs /m: Stale file handle (ESTALE)");
    }

    #[test]
    fn the_largest_batch_fits_into_a_frame() {
        let request = |length| Request::StatVfs { path: "\u{1}".repeat(length).into(), expect_nfs: false };
        assert!(!request(BATCH_PATH_MAX_BYTES + 1).is_brief());
        let largest = request(BATCH_PATH_MAX_BYTES);
        assert!(largest.is_brief());
        let members = || Numbered { number: u64::MAX, body: &largest };
        let requests = std::iter::repeat_with(members).take(BATCH_MAX).collect();
        assert!(encode(u64::MAX, &Order::Batch { until: HostTime(u64::MAX), requests }).is_ok());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut announced: &[u8] = &[0xff; 8];
        assert!(read::<Request>(&mut announced).is_err(), "4 GiB");
        assert!(read::<Request>(&mut [9, 0, 0, 0, b'{'].as_slice()).is_err(), "cut off");
        assert!(read::<Request>(&mut [2, 0, 0, 0, b'{', b'}'].as_slice()).is_err(), "not a request");
        assert!(read::<Request>(&mut [].as_slice()).expect("an end").is_none());
        let long = Request::Unmount { path: "x".repeat(FRAME_MAX_BYTES).into(), how: UnmountHow::Plain };
        assert!(encode(1, &long).is_err());
    }

    #[test]
    fn a_canary_carries_its_node_and_only_that() {
        let (one, again, other) = (CanaryNames::new("a"), CanaryNames::new("a"), CanaryNames::new("b"));
        assert!(one.are_sound());
        assert_eq!(one.leftover_prefix, again.leftover_prefix);
        assert_eq!(one.leftover_prefix, ".targetwatch-canary-af63dc4c8601ec8c-", "the same in every release");
        assert_ne!(one.name, again.name);
        assert!(!other.name.starts_with(&one.leftover_prefix));
        for (name, prefix) in [("x", ""), ("../x", ".."), (one.name.as_str(), ".targetwatch-canary-"), ("b", "b")] {
            assert!(!CanaryNames { name: name.into(), leftover_prefix: prefix.into() }.are_sound(), "{prefix}");
        }
    }
}
