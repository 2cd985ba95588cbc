//! Frames: length-prefixed messages on a worker's standard input and output.
//!
//! A frame is a length of four bytes, little-endian, and a message of that many bytes, at most [`FRAME_MAX_BYTES`]. The
//! format of messages is that of postcard, which costs less to decode than JSON. Both ends are of one build, so a message
//! need not name its fields.
//!
//! The agent sends a [`Batch`] of requests, and the worker sends a frame for each answer. Each request has a number,
//! which its answer repeats. An answer with another number means that the worker is broken. So an answer is never
//! mistaken for the measurement of another target. A new worker first sends an answer without a request ([`HELLO`]),
//! which means that it is ready.
//!
//! When the time of the batch is up, a worker hands back the requests that it has not started. So storage that has
//! just become slow does not delay other targets.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::node::monotonic_now;

/// Size of the length field, in bytes.
pub(in crate::sys::worker) const LENGTH_BYTES: usize = 4;

/// Maximum size of a frame without its length field, in bytes.
pub const FRAME_MAX_BYTES: usize = 64 << 10;

/// Number of a worker's first answer. No request has this number.
pub(in crate::sys::worker) const HELLO: u64 = 0;

/// Maximum number of requests in a batch.
pub(in crate::sys::worker) const BATCH_MAX: usize = 16;

/// Time after the sending of a batch in which the worker still starts its requests.
pub(in crate::sys::worker) const BATCH_TIME: Duration = Duration::from_millis(5);

/// A request or an answer with its number.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sys::worker) struct Numbered<T> {
    pub(in crate::sys::worker) number: u64,
    pub(in crate::sys::worker) body: T,
}

/// A time in nanoseconds, of the clock that the agent shares with its children ([`monotonic_now`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::sys::worker) struct HostTime(u64);

impl HostTime {
    /// Returns the current time.
    pub(in crate::sys::worker) fn now() -> Self {
        Self(0).after(monotonic_now())
    }

    /// Returns the time `duration` later.
    pub(in crate::sys::worker) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Requests of different targets. The worker answers them in order. An answer is a [`Response`](super::Response), a
/// [`WorkerFault`](super::WorkerFault), or `None` if the worker did not start the request. It always starts the
/// first. `R` is a [`Request`](super::Request), or a reference to one.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sys::worker) struct Batch<R> {
    /// When the worker stops starting requests.
    pub(in crate::sys::worker) until: HostTime,
    /// From one to [`BATCH_MAX`] requests.
    pub(in crate::sys::worker) requests: Vec<Numbered<R>>,
}

/// Returns the frame of this body.
///
/// # Errors
/// When it is larger than [`FRAME_MAX_BYTES`] or a path in it is not UTF-8.
pub(in crate::sys::worker) fn encode(body: &impl Serialize) -> io::Result<Vec<u8>> {
    let frame = vec![0; LENGTH_BYTES];
    let mut frame = postcard::to_extend(body, frame).map_err(io::Error::other)?;
    let length = frame.len() - LENGTH_BYTES;
    let prefix = u32::try_from(length).ok().filter(|_| length <= FRAME_MAX_BYTES);
    let prefix =
        prefix.ok_or_else(|| io::Error::other(format!("a frame of {length} bytes exceeds {FRAME_MAX_BYTES} bytes")))?;
    frame[..LENGTH_BYTES].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// Returns the length of a frame from its length field.
///
/// # Errors
/// When it is larger than [`FRAME_MAX_BYTES`].
fn length(prefix: [u8; LENGTH_BYTES]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if length > FRAME_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes exceeds {FRAME_MAX_BYTES} bytes"),
        ));
    }
    Ok(length)
}

/// Decodes the body of a frame.
///
/// # Errors
/// When it is not a `T`.
pub(in crate::sys::worker) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((decoded, [])) => Ok(decoded),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "there are bytes after the message")),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// Reads a frame, or `None` at the end of the input.
///
/// # Errors
/// When the input ends within a frame, or the frame is not a `T`.
pub(in crate::sys::worker) fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
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
/// When the frame is larger than [`FRAME_MAX_BYTES`], or the output was closed.
pub(in crate::sys::worker) fn write(output: &mut impl Write, body: &impl Serialize) -> io::Result<()> {
    output.write_all(&encode(body)?)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::errno::Errno;

    use super::*;
    use crate::sys::worker::protocol::{
        BATCH_PATH_MAX_BYTES, CanaryFileNames, CanaryRequest, Request, Response, UnmountHow, WorkerFault,
    };

    #[test]
    fn frame_round_trips() {
        let request = Request::Canary(CanaryRequest {
            path: "/m/ü".into(),
            uid: 42436,
            gid: 42436,
            names: CanaryFileNames::new("node-1"),
            expect_nfs: true,
        });
        let frame = encode(&Numbered { number: 7, body: &request }).expect("encodes");
        let read: Numbered<Request> = read(&mut frame.as_slice()).expect("reads").expect("a frame");
        assert_eq!((read.number, read.body), (7, request));
        let answer: Result<Response, WorkerFault> = Err(WorkerFault::system("fstatfs", Path::new("/m"), Errno::ESTALE));
        let frame = encode(&Numbered { number: 8, body: &answer }).expect("encodes");
        let read: Numbered<Result<Response, WorkerFault>> = decode(&frame[LENGTH_BYTES..]).expect("reads");
        assert_eq!(read.body.as_ref().map_err(WorkerFault::errno), Err(Some(Errno::ESTALE)));
        assert_eq!(read.body.expect_err("a fault").to_string(), "fstatfs /m: Stale file handle (ESTALE)");
    }

    #[test]
    fn largest_batch_fits_into_a_frame() {
        let request = |length| Request::StatVfs { path: "\u{1}".repeat(length).into(), expect_nfs: false };
        assert!(!request(BATCH_PATH_MAX_BYTES + 1).is_brief());
        let largest = request(BATCH_PATH_MAX_BYTES);
        assert!(largest.is_brief());
        let members = || Numbered { number: u64::MAX, body: &largest };
        let requests = std::iter::repeat_with(members).take(BATCH_MAX).collect();
        assert!(encode(&Batch { until: HostTime(u64::MAX), requests }).is_ok());
    }

    #[test]
    fn malformed_frame_is_refused() {
        let mut announced: &[u8] = &[0xff; 8];
        assert!(read::<Request>(&mut announced).is_err(), "4 GiB");
        assert!(read::<Request>(&mut [9, 0, 0, 0, b'{'].as_slice()).is_err(), "cut off");
        assert!(read::<Request>(&mut [2, 0, 0, 0, b'{', b'}'].as_slice()).is_err(), "not a request");
        let request = Request::VerifyMountPoint { path: "/m".into() };
        let mut frame = encode(&request).expect("encodes");
        assert_eq!(decode::<Request>(&frame[LENGTH_BYTES..]).expect("decodes"), request);
        frame.push(0);
        assert!(decode::<Request>(&frame[LENGTH_BYTES..]).is_err(), "longer than its message");
        assert!(read::<Request>(&mut [].as_slice()).expect("an end").is_none());
        let long = Request::Unmount { path: "x".repeat(FRAME_MAX_BYTES).into(), mount_id: 1, how: UnmountHow::Plain };
        assert!(encode(&long).is_err());
    }
}
