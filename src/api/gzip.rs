//! Compression of answers.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::pieces::{Pieces, PiecesBuilder};

/// Smallest answer that is compressed, in bytes. A smaller one fits into one packet anyway.
pub(super) const GZIP_MIN_BYTES: usize = 1400;

/// Bytes that are compressed between two yields. They take well under a millisecond.
const GZIP_PIECE_BYTES: usize = 32 << 10;

/// Compresses the parts of an answer together. Other tasks run in between.
pub(super) async fn gzip(parts: &[impl AsRef<[u8]>]) -> io::Result<Pieces> {
    let mut encoder = GzEncoder::new(PiecesBuilder::default(), Compression::fast());
    for piece in parts.iter().flat_map(|part| part.as_ref().chunks(GZIP_PIECE_BYTES)) {
        encoder.write_all(piece)?;
        tokio::task::yield_now().await;
    }
    encoder.finish().map(PiecesBuilder::finish)
}
