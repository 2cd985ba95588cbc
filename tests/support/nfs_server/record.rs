//! Record marking: how RPC messages are told apart in a TCP stream (RFC 5531 §11).

use std::io;

use nfs3_types::rpc::fragment_header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest call that is read, in bytes. A WRITE of [`super::program::TRANSFER_MAX_BYTES`] fits.
const CALL_MAX_BYTES: usize = 128 * 1024;

/// Reads one call, in however many fragments it comes; `None` when the client has left between two.
///
/// # Errors
/// When the stream ends within a record, or the record is longer than [`CALL_MAX_BYTES`].
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    loop {
        let mut mark = [0; 4];
        if let Err(error) = stream.read_exact(&mut mark).await {
            let left = error.kind() == io::ErrorKind::UnexpectedEof && record.is_empty();
            return if left { Ok(None) } else { Err(error) };
        }
        let mark = fragment_header::from(mark);
        let (start, length) = (record.len(), mark.fragment_length() as usize);
        if start + length > CALL_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a call longer than any that is served"));
        }
        record.resize(start + length, 0);
        stream.read_exact(&mut record[start..]).await?;
        if mark.eof() {
            return Ok(Some(record));
        }
    }
}

/// Writes one reply as a record of one fragment.
///
/// # Errors
/// When the connection is broken, or the reply is of 2 GiB or more.
pub async fn write(stream: &mut TcpStream, reply: &[u8]) -> io::Result<()> {
    let length = u32::try_from(reply.len()).ok().filter(|length| *length <= fragment_header::MASK);
    let announced = length.ok_or(io::ErrorKind::InvalidData)?;
    write_part(stream, announced, reply).await
}

/// Writes the mark of a reply of `announced` bytes, and then only `sent`.
///
/// # Errors
/// When the connection is broken.
pub async fn write_part(stream: &mut TcpStream, announced: u32, sent: &[u8]) -> io::Result<()> {
    let mut bytes = fragment_header::new(announced, true).into_xdr_buf().to_vec();
    bytes.extend_from_slice(sent);
    stream.write_all(&bytes).await
}
