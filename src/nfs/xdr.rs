//! XDR (RFC 4506): the few types that NFS uses, read with a limit on each length.
//!
//! `nfs3_types` allocates as much memory as a length in the message announces. The types here read from a record whose
//! length is bounded ([`super::transport`]), and never allocate more than that.

use std::io::{Read, Write};

use nfs3_types::xdr_codec::{self, Pack, Unpack};

/// Message that is not valid XDR, or not of the expected type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Arguments of a call, as they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes of a length that both sides know.
    pub(super) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Bytes with their length before them.
    pub(super) fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        // Everything that is encoded here is shorter than a page or two.
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).fixed(bytes)
    }

    /// Encoded words of another encoder.
    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Pack for Encoder {
    fn packed_size(&self) -> usize {
        self.0.len()
    }

    fn pack(&self, out: &mut impl Write) -> xdr_codec::Result<usize> {
        out.write_all(&self.0)?;
        Ok(self.0.len())
    }
}

/// Result of a call, as it was received.
#[derive(Debug)]
pub(super) struct Received(Vec<u8>);

impl Received {
    pub(super) fn decoder(&self) -> Decoder<'_> {
        Decoder::new(&self.0)
    }
}

impl Unpack for Received {
    /// Takes the rest of the record.
    fn unpack(input: &mut impl Read) -> xdr_codec::Result<(Self, usize)> {
        let mut rest = Vec::new();
        let length = input.read_to_end(&mut rest)?;
        Ok((Self(rest), length))
    }
}

/// Reads a received message.
#[derive(Debug, Clone)]
pub(super) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        let (word, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*word))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        let (word, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*word))
    }
    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a boolean of the reply is neither 0 nor 1")),
        }
    }

    /// Bytes of a length that both sides know.
    pub(super) fn fixed(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (padded, rest) = self.rest.split_at_checked(length.next_multiple_of(4)).ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(&padded[..length])
    }

    /// Number of bytes or elements that follow.
    pub(super) fn length(&mut self, max: usize) -> Result<usize, Malformed> {
        match usize::try_from(self.u32()?) {
            Ok(length) if length <= max => Ok(length),
            _ => Err(Malformed("a length in the reply exceeds its limit")),
        }
    }

    /// Bytes with their length before them.
    pub(super) fn opaque(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = self.length(max)?;
        self.fixed(length)
    }

    /// Whether everything was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

const TOO_SHORT: Malformed = Malformed("the reply ends too early");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encoded_values_are_decoded(
            word in any::<u32>(),
            double in any::<u64>(),
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            flag in any::<bool>(),
        ) {
            let mut encoder = Encoder::default();
            encoder.u32(word).opaque(&bytes).u64(double).fixed(&bytes).u32(u32::from(flag));
            prop_assert_eq!(encoder.bytes().len() % 4, 0);
            let mut decoder = Decoder::new(encoder.bytes());
            prop_assert_eq!(decoder.u32(), Ok(word));
            prop_assert_eq!(decoder.opaque(64), Ok(&bytes[..]));
            prop_assert_eq!(decoder.u64(), Ok(double));
            prop_assert_eq!(decoder.fixed(bytes.len()), Ok(&bytes[..]));
            prop_assert_eq!(decoder.bool(), Ok(flag));
            prop_assert!(decoder.is_at_end());
        }

        #[test]
        fn truncated_values_are_malformed(bytes in prop::collection::vec(any::<u8>(), 1..64), cut in 0_usize..64) {
            let mut encoder = Encoder::default();
            encoder.opaque(&bytes);
            let whole = encoder.bytes();
            let part = &whole[..cut.min(whole.len() - 1)];
            prop_assert!(Decoder::new(part).opaque(64).is_err());
        }
    }

    #[test]
    fn length_over_its_limit_is_malformed() {
        for length in [5_u32, u32::MAX] {
            let mut encoder = Encoder::default();
            encoder.u32(length).fixed(&[7; 8]);
            assert!(Decoder::new(encoder.bytes()).opaque(4).is_err());
        }
        assert!(Decoder::new(&[0, 0, 0, 2]).bool().is_err());
    }
}
