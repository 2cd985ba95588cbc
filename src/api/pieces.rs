//! The bytes of an answer in pieces, each with its own memory. The server keeps the piece that it is sending, so a
//! client that does not read keeps that piece in memory, and not the whole answer. All answers with the same bytes
//! share the pieces, which are never copied.

use std::sync::Arc;
use std::{fmt, io};

use axum::body::Bytes;

/// Size of a piece, in bytes. Only a piece of a list with a single, larger item may exceed it.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Bytes in pieces. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    pieces: Arc<[Bytes]>,
    length: usize,
}

impl Pieces {
    /// Copies bytes into pieces of equal size. The last one may be shorter.
    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        bytes.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect()
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Whether both have the same memory.
    pub(super) fn are_same(one: &Self, other: &Self) -> bool {
        Arc::ptr_eq(&one.pieces, &other.pieces)
    }
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let pieces: Arc<[Bytes]> = pieces.into_iter().collect();
        let length = pieces.iter().map(Bytes::len).sum();
        Self { pieces, length }
    }
}

/// Builds [`Pieces`] from what is written.
#[derive(Default)]
pub(super) struct PiecesBuilder {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl PiecesBuilder {
    pub(super) fn finish(mut self) -> Pieces {
        self.last.shrink_to_fit();
        self.full.into_iter().chain([self.last.into()]).collect()
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.last.len() == PIECE_BYTES {
                let next = Vec::with_capacity(PIECE_BYTES);
                self.full.push(std::mem::replace(&mut self.last, next).into());
            }
            let (fitting, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.last.len()));
            self.last.extend_from_slice(fitting);
            bytes = rest;
        }
    }
}

impl fmt::Write for PiecesBuilder {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }
}

impl io::Write for PiecesBuilder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes of all pieces together.
    fn joined(pieces: &Pieces) -> Vec<u8> {
        pieces.pieces().concat()
    }

    proptest! {
        #[test]
        fn written_bytes_fill_the_pieces(lengths in prop::collection::vec(0..2 * PIECE_BYTES, 0..12)) {
            let parts: Vec<String> = lengths.iter().zip("abcdefghijkl".chars()).map(|(&length, fill)| fill.to_string().repeat(length)).collect();
            let mut builder = PiecesBuilder::default();
            parts.iter().try_for_each(|part| fmt::Write::write_str(&mut builder, part)).expect("memory");
            let pieces = builder.finish();
            prop_assert_eq!(joined(&pieces), parts.concat().into_bytes());
            let (last, full) = pieces.pieces().split_last().expect("a piece");
            prop_assert!(full.iter().all(|piece| piece.len() == PIECE_BYTES) && last.len() <= PIECE_BYTES);
        }

        #[test]
        fn copy_has_the_same_bytes(length in 0..4 * PIECE_BYTES) {
            let all: Vec<u8> = (0..=u8::MAX).collect();
            let bytes = &all.repeat(4 * PIECE_BYTES / all.len())[..length];
            let pieces = Pieces::copy_of(bytes);
            prop_assert_eq!(joined(&pieces), bytes);
            prop_assert!(pieces.pieces().iter().all(|piece| piece.len() <= PIECE_BYTES));
        }
    }
}
