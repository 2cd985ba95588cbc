//! The journal: log records with fields, in its native protocol.
//!
//! systemd connects standard error of a service to the journal as a stream of plain lines. A datagram to the journal's
//! socket also carries fields, by which `journalctl FIELD=value` selects records. Format of a datagram:
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. Sending waits while the journal does not read, so only the writer
//! thread of [`super::LogQueue`] sends.
//!
//! A line without such fields stays in the stream, with its priority in front (sd-daemon(3)). The journal finds the
//! unit of a datagram by the process that sent it. If that process has ended, such as after an error at its start,
//! `journalctl --unit` would not show the line.
//!
//! `tracing-journald` was considered. It sends on the thread that logs, which a stopped journal would block. It also
//! uses the field `TARGET` for the Rust module.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Socket of the journal (systemd-journald.service(8)).
const SOCKET: &str = "/run/systemd/journal/socket";

/// Environment variable with the device and inode number of the stream to the journal (systemd.exec(5)).
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";

/// First field of each record, before one digit.
const PRIORITY: &[u8] = b"PRIORITY=";

/// Separates the fields of a record from its message: the end of the last field, and an empty line.
const END_OF_FIELDS: &[u8] = b"\n\n";

/// Writer of records. Each call of [`Write::write`] takes one record: a line `FIELD=value` for each field, an empty
/// line, and the message. The first field is `PRIORITY`. If it is the only one, or if the journal does not accept the
/// record, the message goes to standard error.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    stderr: File,
}

impl Journal {
    /// Returns the writer if `stderr` is connected to the journal. Without the resources that it needs, plain lines
    /// still reach the journal.
    pub(super) fn behind(stderr: &File) -> Option<Self> {
        let stream = env::var_os(STREAM_VARIABLE)?;
        if !is_stream(&stream, stderr) {
            return None;
        }
        Self::at(Path::new(SOCKET), stderr.try_clone().ok()?).ok()
    }

    fn at(path: &Path, stderr: File) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned(), stderr })
    }

    /// Returns whether the journal accepted the datagram. The caller repeats the call after an interruption.
    fn send(&self, datagram: &[u8]) -> io::Result<bool> {
        // Not connected, so that it also reaches a socket that was created anew.
        match self.socket.send_to(datagram, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            sent => Ok(sent.is_ok()),
        }
    }

    /// Returns a writer to the socket at `path`, for tests in other modules.
    #[cfg(test)]
    pub(crate) fn for_test(path: &Path) -> Self {
        let null = File::options().write(true).open("/dev/null").expect("/dev/null");
        Self::at(path, null).expect("a socket")
    }
}

impl Write for Journal {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let end = record.windows(END_OF_FIELDS.len()).position(|bytes| bytes == END_OF_FIELDS).unwrap_or(0);
        let (fields, message) = (&record[..end], record[end..].trim_ascii_start());
        let message = message.trim_ascii_end();
        let is_sent = fields.contains(&b'\n') && self.send(&datagram(fields, message))?;
        if !is_sent {
            self.stderr.write_all(&stream_lines(fields, message))?;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a value of [`STREAM_VARIABLE`] names the file. A service may redirect standard error after its start.
fn is_stream(value: &OsStr, file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| value.to_str() == Some(&format!("{}:{}", metadata.dev(), metadata.ino())))
}

/// Encodes a message as lines of the stream, each with the priority of its record.
fn stream_lines(fields: &[u8], message: &[u8]) -> Vec<u8> {
    let priority = fields.strip_prefix(PRIORITY).and_then(|value| value.get(..1)).unwrap_or(b"6");
    let line = |line: &[u8]| [b"<", priority, b">", line, b"\n"].concat();
    message.split(|byte| *byte == b'\n').flat_map(line).collect()
}

/// Encodes a record. The message has the form with a length, because it may contain line breaks.
fn datagram(fields: &[u8], message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let program = concat!("\nSYSLOG_IDENTIFIER=", env!("CARGO_PKG_NAME"), "\nMESSAGE\n");
    [fields, program.as_bytes(), &length, message, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _};

    #[test]
    fn message_goes_to_stderr_without_fields_or_when_not_accepted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let mut stderr = tempfile::tempfile().expect("a file");
        let mut journal = Journal::at(&path, stderr.try_clone().expect("a file")).expect("a socket");
        journal.write_all(b"PRIORITY=4\nTARGET=nas:/b\n\n WARN offline\n").expect("written");
        let socket = UnixDatagram::bind(&path).expect("bound");
        journal.write_all(b"PRIORITY=6\nTARGET=nas:/b\n\n INFO one\ntwo\n").expect("written");
        journal.write_all(b"PRIORITY=3\n\nERROR no\nfield\n").expect("written");
        let too_large = [b"PRIORITY=6\nTARGET=nas:/b\n\nlong ", [b'x'; 1 << 20].as_slice(), b"\n"].concat();
        journal.write_all(&too_large).expect("written");

        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("received");
        assert_eq!(
            &buffer[..length],
            b"PRIORITY=6\nTARGET=nas:/b\nSYSLOG_IDENTIFIER=targetwatch\nMESSAGE\n\x0c\0\0\0\0\0\0\0INFO one\ntwo\n"
        );
        let mut lines = String::new();
        stderr.rewind().expect("rewound");
        stderr.read_to_string(&mut lines).expect("read");
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!((&lines[..3], lines.len()), (&["<4>WARN offline", "<3>ERROR no", "<3>field"][..], 4));
        assert!(lines[3].starts_with("<6>long xxx"));
    }

    #[test]
    fn stderr_is_the_journal_if_device_and_inode_match_the_variable() {
        let (file, other) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        let metadata = file.metadata().expect("metadata");
        let stream = format!("{}:{}", metadata.dev(), metadata.ino());
        for (value, file, is) in
            [(&*stream, &file, true), (&stream, &other, false), ("", &file, false), ("8:", &file, false)]
        {
            assert_eq!(is_stream(OsStr::new(value), file), is, "{value}");
        }
    }
}
