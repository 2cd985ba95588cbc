//! Counters that the kernel keeps for each NFS mount: requests, round-trip times and bytes.
//!
//! `/proc/self/mountstats` (`fs/proc_namespace.c`, `nfs_show_stats` in `fs/nfs/super.c`,
//! `rpc_clnt_show_stats` in `net/sunrpc/stats.c`) contains counters in memory. Reading it takes the locks of
//! the mount table and spin locks of the counters, and sends no request. So it is safe when every server is
//! dead.
//!
//! The file has several kilobytes for each NFS mount. So it is read in pieces, between which other tasks run, and not
//! more often than the cache allows. The `procfs` crate does not parse it, because it loses all mounts at the first
//! unknown line. It also stops silently at a name that is not UTF-8, and leaves the kernel's octal escapes in paths.

#![allow(clippy::disallowed_methods, reason = "procfs answers from memory: nothing here can wait for storage")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::mount_table::table::unescape;

/// Counters of the mounts in this process's mount namespace.
const MOUNTSTATS: &str = "/proc/self/mountstats";

/// Maximum size of the file, in bytes. Ten thousand NFS mounts take about 80 MB.
const MOUNT_STATS_MAX_BYTES: usize = 256 << 20;

/// Maximum size of one read, in bytes. The kernel may return less.
const PIECE_BYTES: usize = 64 << 10;

/// Maximum length of a line that is kept, in bytes: two paths with every byte escaped.
const LINE_MAX_BYTES: usize = 64 << 10;

/// Counters of one NFS mount since it was mounted. Mounts of the same file system of a server with the same options
/// share their counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountCounters {
    /// Time since it was mounted.
    pub age: Duration,
    /// Requests that were answered or abandoned.
    pub requests: u64,
    /// Transmissions of these requests.
    pub transmissions: u64,
    /// Requests that got no answer within all their retransmissions (`rpc_iostats.om_timeouts`).
    pub major_timeouts: u64,
    /// Sum of the times from the last transmission of a request to its answer. The kernel reports whole
    /// milliseconds for each kind of request.
    pub round_trips: Duration,
    /// Bytes read from the server.
    pub bytes_read: u64,
    /// Bytes written to the server.
    pub bytes_written: u64,
}

/// Counters of all NFS mounts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountStats {
    /// When the read began.
    pub read_at: Instant,
    /// Counters by mount point and source. `None` for stacked mounts, which cannot be distinguished.
    pub(super) mounts: HashMap<(PathBuf, String), Option<MountCounters>>,
}

impl MountStats {
    /// Reads the current counters. Never waits for storage.
    ///
    /// # Errors
    /// When `/proc` is not mounted, or the file is larger than [`MOUNT_STATS_MAX_BYTES`].
    pub async fn read() -> io::Result<Self> {
        let context = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {MOUNTSTATS}: {error}"));
        let read_at = Instant::now();
        let mut file = File::open(MOUNTSTATS).map_err(context)?;
        let mut parser = Parser::default();
        let mut piece = vec![0; PIECE_BYTES];
        let mut total = 0;
        loop {
            let length = file.read(&mut piece).map_err(context)?;
            if length == 0 {
                return Ok(MountStats { read_at, ..parser.end() });
            }
            total += length;
            if total > MOUNT_STATS_MAX_BYTES {
                return Err(io::Error::other(format!("{MOUNTSTATS} is larger than {MOUNT_STATS_MAX_BYTES} bytes")));
            }
            parser.feed(&piece[..length]);
            tokio::task::yield_now().await;
        }
    }

    /// Returns counters without any mount.
    #[must_use]
    pub fn none() -> Self {
        Parser::default().end()
    }

    /// Parses the text of mountstats.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut parser = Parser::default();
        parser.feed(text);
        parser.end()
    }

    /// Returns the counters of a source that is mounted exactly once at a path.
    #[must_use]
    pub fn of(&self, mount_point: &Path, source: &str) -> Option<MountCounters> {
        *self.mounts.get(&(mount_point.to_owned(), source.to_owned()))?
    }
}

/// Parses mountstats piece by piece. Skips unknown lines, and mounts with missing lines.
#[derive(Debug, Default)]
struct Parser {
    mounts: HashMap<(PathBuf, String), Option<MountCounters>>,
    current: Option<Mount>,
    /// Beginning of a line that is not complete yet.
    rest: Vec<u8>,
}

/// Mount whose lines are being parsed.
#[derive(Debug)]
struct Mount {
    key: (PathBuf, String),
    counters: MountCounters,
    has_age: bool,
    has_bytes: bool,
    has_requests: bool,
}

impl Parser {
    fn feed(&mut self, piece: &[u8]) {
        let mut lines = piece.split(|byte| *byte == b'\n');
        // The last line is not complete yet. It is empty when the piece ends with a line feed.
        let last = lines.next_back().unwrap_or_default();
        for line in lines {
            if self.rest.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole);
            }
        }
        if self.rest.len() + last.len() <= LINE_MAX_BYTES {
            self.rest.extend_from_slice(last);
        }
    }

    fn end(mut self) -> MountStats {
        let rest = std::mem::take(&mut self.rest);
        self.line(&rest);
        self.finish();
        MountStats { read_at: Instant::now(), mounts: self.mounts }
    }

    fn line(&mut self, line: &[u8]) {
        match line {
            [b'\t', words @ ..] => {
                if let Some(mount) = &mut self.current {
                    mount.line(&String::from_utf8_lossy(words));
                }
            }
            // `device nas:/b mounted on /m with fstype nfs statvers=1.1`, or `no device mounted on …`.
            [] => {}
            _ => {
                self.finish();
                self.current = Mount::begin(line);
            }
        }
    }

    fn finish(&mut self) {
        let whole = self.current.take().filter(|mount| mount.has_age && mount.has_bytes && mount.has_requests);
        if let Some(Mount { key, counters, .. }) = whole {
            self.mounts.entry(key).and_modify(|several| *several = None).or_insert(Some(counters));
        }
    }
}

impl Mount {
    fn begin(line: &[u8]) -> Option<Self> {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [b"device", source, b"mounted", b"on", mount_point, b"with", b"fstype", b"nfs" | b"nfs4", ..] = words[..]
        else {
            return None;
        };
        let source = String::from_utf8_lossy(&unescape(source)).into_owned();
        let mount_point = PathBuf::from(OsString::from_vec(unescape(mount_point)));
        Some(Self {
            key: (mount_point, source),
            counters: MountCounters::default(),
            has_age: false,
            has_bytes: false,
            has_requests: false,
        })
    }

    /// Parses a line of the mount, without the leading tab.
    fn line(&mut self, line: &str) {
        let Some((name, values)) = line.split_once(':') else {
            // Lines before this one may look like lines of requests.
            self.has_requests |= line.trim() == "per-op statistics";
            return;
        };
        let numbers: Vec<u64> = values.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect();
        let counters = &mut self.counters;
        match (name, &numbers[..]) {
            // Fields: operations, transmissions, major timeouts, bytes sent, bytes received. Then milliseconds: queued,
            // round trips, total. Newer kernels add errors.
            (_, [operations, transmissions, timeouts, _, _, _, round_trips, _, ..]) if self.has_requests => {
                counters.requests = counters.requests.saturating_add(*operations);
                counters.transmissions = counters.transmissions.saturating_add(*transmissions);
                counters.major_timeouts = counters.major_timeouts.saturating_add(*timeouts);
                counters.round_trips = counters.round_trips.saturating_add(Duration::from_millis(*round_trips));
            }
            ("age", [seconds]) => {
                counters.age = Duration::from_secs(*seconds);
                self.has_age = true;
            }
            // Fields: bytes read and written by programs, the same with O_DIRECT, bytes read from and written to the
            // server, and pages.
            ("bytes", [_, _, _, _, read, written, ..]) => {
                (counters.bytes_read, counters.bytes_written) = (*read, *written);
                self.has_bytes = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
