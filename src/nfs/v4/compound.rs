//! COMPOUND: the one procedure of version 4, a list of operations on a current file handle (RFC 8881 §16.2).

use super::super::xdr::{Decoder, Encoder, Malformed};
use super::attributes;
use super::reply_error::ReplyError;

/// An operation: its number (`nfs_opnum4`, RFC 8881 §16.2.1) and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) number: u32,
    pub(super) name: &'static str,
}

macro_rules! operations {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(pub(super) const $name: Operation = Operation { number: $number, name: stringify!($name) };)*
    };
}

operations! {
    CLOSE = 4,
    GETATTR = 9,
    GETFH = 10,
    LOOKUP = 15,
    OPEN = 18,
    PUTFH = 22,
    PUTROOTFH = 24,
    READ = 25,
    READDIR = 26,
    READLINK = 27,
    REMOVE = 28,
    SECINFO = 33,
    WRITE = 38,
    EXCHANGE_ID = 42,
    CREATE_SESSION = 43,
    DESTROY_SESSION = 44,
    SEQUENCE = 53,
    DESTROY_CLIENTID = 57,
    RECLAIM_COMPLETE = 58,
}

/// Longest file handle, in bytes (`NFS4_FHSIZE`, RFC 8881 §3.1).
const HANDLE_MAX_BYTES: usize = 128;

/// Longest tag of a reply, in bytes. Servers return the one of the request, which is empty here.
const TAG_MAX_BYTES: usize = 1024;

/// Largest number of operations in one compound of this module, with SEQUENCE. A server may limit a session to fewer.
pub(super) const OPERATIONS_MAX: u32 = 16;

/// The same for minor version 0, where the server names no limit. Servers accept 8 and more.
pub(super) const OPERATIONS_MAX_V40: u32 = 8;

/// Operations to execute one after the other, until one fails.
#[derive(Debug, Clone)]
pub(super) struct Compound {
    /// The operation for which the compound exists, for messages.
    purpose: Operation,
    operations: Encoder,
    count: u32,
}

impl Compound {
    pub(super) fn new(purpose: Operation) -> Self {
        Self { purpose, operations: Encoder::default(), count: 0 }
    }

    /// Name of the operation for which the compound exists.
    pub(super) fn name(&self) -> &'static str {
        self.purpose.name
    }

    /// Adds an operation. `encode` adds its arguments.
    pub(super) fn with(mut self, operation: Operation, encode: impl FnOnce(&mut Encoder)) -> Self {
        encode(self.operations.u32(operation.number));
        self.count += 1;
        self
    }

    pub(super) fn put_handle(self, handle: &[u8]) -> Self {
        self.with(PUTFH, |arguments| {
            arguments.opaque(handle);
        })
    }

    pub(super) fn look_up(self, name: &[u8]) -> Self {
        self.with(LOOKUP, |arguments| {
            arguments.opaque(name);
        })
    }

    pub(super) fn get_attributes(self, requested: &[u32]) -> Self {
        let mask = attributes::mask(requested);
        self.with(GETATTR, |arguments| attributes::encode_mask(arguments, &mask))
    }

    /// Encodes the arguments of the procedure, with `first` before the other operations.
    pub(super) fn encode(&self, minor: u32, first: Option<&Compound>) -> Encoder {
        let mut arguments = Encoder::default();
        arguments.opaque(b"").u32(minor).u32(self.count + first.map_or(0, |first| first.count));
        if let Some(first) = first {
            arguments.append(&first.operations);
        }
        arguments.append(&self.operations);
        arguments
    }
}

/// Results of a compound, in the order of its operations.
pub(super) struct Results<'a> {
    decoder: Decoder<'a>,
    left: u32,
    status: u32,
    purpose: Operation,
}

impl<'a> Results<'a> {
    /// Begins to read the results of a compound.
    pub(super) fn of(compound: &Compound, mut decoder: Decoder<'a>) -> Result<Self, Malformed> {
        let status = decoder.u32()?;
        decoder.opaque(TAG_MAX_BYTES)?;
        let left = decoder.u32()?;
        Ok(Self { decoder, left, status, purpose: compound.purpose })
    }

    /// Returns the result of the next operation, which must be this one.
    pub(super) fn next(&mut self, operation: Operation) -> Result<&mut Decoder<'a>, ReplyError> {
        if self.left == 0 {
            // The server did not execute the operation: it refused the whole compound.
            return Err(match self.status {
                0 => Malformed("the reply has fewer results than the request has operations").into(),
                status => ReplyError::Status(self.purpose.name, status),
            });
        }
        self.left -= 1;
        let (number, status) = (self.decoder.u32()?, self.decoder.u32()?);
        if status != 0 {
            return Err(ReplyError::Status(operation.name, status));
        }
        if number != operation.number {
            return Err(Malformed("the reply has the result of another operation").into());
        }
        Ok(&mut self.decoder)
    }

    pub(super) fn put_handle(&mut self) -> Result<(), ReplyError> {
        self.next(PUTFH).map(drop)
    }

    /// Result of GETFH.
    pub(super) fn handle(&mut self) -> Result<Vec<u8>, ReplyError> {
        Ok(self.next(GETFH)?.opaque(HANDLE_MAX_BYTES)?.to_vec())
    }
}
