//! Record marking, which delimits RPC messages in a TCP stream (RFC 5531 §11).

use std::io;

use nfs3_types::rpc::fragment_header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Maximum size of a call, in bytes. A WRITE of [`super::program::TRANSFER_MAX_BYTES`] fits.
const CALL_MAX_BYTES: usize = 128 * 1024;

/// Reads one call, in any number of fragments. Returns `None` if the client disconnected between two calls.
///
/// # Errors
/// When the stream ends within a record, or the record exceeds [`CALL_MAX_BYTES`].
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    loop {
        let mut header = [0; 4];
        if let Err(error) = stream.read_exact(&mut header).await {
            let is_disconnected = error.kind() == io::ErrorKind::UnexpectedEof && record.is_empty();
            return if is_disconnected { Ok(None) } else { Err(error) };
        }
        let header = fragment_header::from(header);
        let (start, length) = (record.len(), header.fragment_length() as usize);
        if start + length > CALL_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the call is too long"));
        }
        record.resize(start + length, 0);
        stream.read_exact(&mut record[start..]).await?;
        if header.eof() {
            return Ok(Some(record));
        }
    }
}

/// Writes one reply as a record of one fragment.
///
/// # Errors
/// When the connection is broken, or the reply has 2 GiB or more.
pub async fn write(stream: &mut TcpStream, reply: &[u8]) -> io::Result<()> {
    let length = u32::try_from(reply.len()).ok().filter(|length| *length <= fragment_header::MASK);
    let announced = length.ok_or(io::ErrorKind::InvalidData)?;
    write_part(stream, announced, reply).await
}

/// Writes the header of a reply of `announced` bytes, and then only `sent`.
///
/// # Errors
/// When the connection is broken.
pub async fn write_part(stream: &mut TcpStream, announced: u32, sent: &[u8]) -> io::Result<()> {
    let mut bytes = fragment_header::new(announced, true).into_xdr_buf().to_vec();
    bytes.extend_from_slice(sent);
    stream.write_all(&bytes).await
}
