//! Files of an exported directory over NFSv4.1 and 4.2.

use super::super::calls::BoundedCalls;
use super::super::canary::{BYTES, ExportedFiles, FoundFile, ListedNames, ListingPosition, NAME_MAX_BYTES};
use super::super::error::NfsError;
use super::super::xdr::{Decoder, Malformed};
use super::attributes::{self, Attributes, MODE, OWNER, OWNER_GROUP, REGULAR_FILE, SIZE, TIME_MODIFY, TYPE, mask};
use super::client::V4Client;
use super::compound::{CLOSE, Compound, GETATTR, GETFH, LOOKUP, OPEN, READ, READDIR, REMOVE, Results, WRITE};
use super::reply_error::ReplyError;

/// Read and write access (`OPEN4_SHARE_ACCESS_BOTH`), without a delegation (`OPEN4_SHARE_ACCESS_WANT_NO_DELEG`), which
/// would need callbacks.
const ACCESS: u32 = 0x3 | 0x400;

/// The file is created (`OPEN4_CREATE`), and must not exist yet (`GUARDED4`).
const CREATE: u32 = 1;
const GUARDED: u32 = 1;

/// The file is named in the current directory (`CLAIM_NULL`).
const CLAIM_NULL: u32 = 0;

/// Permissions of a canary.
const PERMISSIONS: u32 = 0o600;

/// Types of delegations (`OPEN_DELEGATE_NONE`, `OPEN_DELEGATE_NONE_EXT`). The second one has a reason.
const NO_DELEGATION: u32 = 0;
const NO_DELEGATION_BECAUSE: u32 = 3;

/// Reasons that a flag follows (`WND4_CONTENTION`, `WND4_RESOURCE`).
const WHY_WITH_A_FLAG: [u32; 2] = [1, 2];

/// The server writes to its disk before it answers (`FILE_SYNC4`).
const FILE_SYNC: u32 = 2;

/// Length of a state id, in bytes: a sequence number and 12 bytes.
const STATE_ID_BYTES: usize = 16;

/// Size of a reply to READDIR, in bytes.
const LISTING_BYTES: u32 = 8192;

/// An exported directory, accessed by a user. The client is that of this user.
pub(super) struct FilesV4<'a> {
    pub(super) client: &'a mut V4Client,
    pub(super) root: &'a [u8],
}

/// An open file.
pub(super) struct OpenedV4 {
    handle: Vec<u8>,
    state: [u8; STATE_ID_BYTES],
}

impl ExportedFiles for FilesV4<'_> {
    type Opened = OpenedV4;

    async fn create(&mut self, name: &str, calls: &BoundedCalls) -> Result<OpenedV4, NfsError> {
        let client = self.client.id();
        let request = Compound::new(OPEN).put_handle(self.root).with(OPEN, |arguments| {
            // Sequence numbers of owners are not used in these minor versions. The owner is this client.
            arguments.u32(0).u32(ACCESS).u32(0).u64(client).opaque(b"canary");
            arguments.u32(CREATE).u32(GUARDED);
            attributes::encode_mask(arguments, &mask(&[MODE]));
            arguments.opaque(&PERMISSIONS.to_be_bytes());
            arguments.u32(CLAIM_NULL).opaque(name.as_bytes());
        });
        let read = |results: &mut Results<'_>| {
            results.put_handle()?;
            let state = opened_state(results.next(OPEN)?)?;
            Ok(OpenedV4 { handle: results.handle()?, state })
        };
        self.client.run(calls, &request.with(GETFH, |_| {}), read).await
    }

    async fn write(&mut self, file: &OpenedV4, content: &[u8], calls: &BoundedCalls) -> Result<i64, NfsError> {
        let request = Compound::new(WRITE).put_handle(&file.handle).with(WRITE, |arguments| {
            arguments.fixed(&file.state).u64(0).u32(FILE_SYNC).opaque(content);
        });
        let request = request.get_attributes(&[TIME_MODIFY]);
        let read = |results: &mut Results<'_>| {
            results.put_handle()?;
            let written = results.next(WRITE)?;
            if (written.u32()?, written.u32()?) != (BYTES, FILE_SYNC) {
                return Err(Malformed("the server did not write everything to its disk, as requested").into());
            }
            let _verifier = written.u64()?;
            let found = Attributes::decode(results.next(GETATTR)?, &[TIME_MODIFY])?;
            Ok(found.modified.unwrap_or(i64::MIN))
        };
        self.client.run(calls, &request, read).await
    }

    async fn read(&mut self, file: &OpenedV4, calls: &BoundedCalls) -> Result<Vec<u8>, NfsError> {
        let request = Compound::new(READ).put_handle(&file.handle).with(READ, |arguments| {
            arguments.fixed(&file.state).u64(0).u32(BYTES);
        });
        let read = |results: &mut Results<'_>| {
            results.put_handle()?;
            let decoder = results.next(READ)?;
            let _is_end = decoder.bool()?;
            Ok(decoder.opaque(BYTES as usize)?.to_vec())
        };
        self.client.run(calls, &request, read).await
    }

    async fn close(&mut self, file: OpenedV4, calls: &BoundedCalls) -> Result<(), NfsError> {
        let request = Compound::new(CLOSE).put_handle(&file.handle).with(CLOSE, |arguments| {
            arguments.u32(0).fixed(&file.state);
        });
        let read = |results: &mut Results<'_>| {
            results.put_handle()?;
            results.next(CLOSE).map(drop)
        };
        self.client.run(calls, &request, read).await
    }

    async fn remove(&mut self, name: &str, calls: &BoundedCalls) -> Result<(), NfsError> {
        let request = Compound::new(REMOVE).put_handle(self.root).with(REMOVE, |arguments| {
            arguments.opaque(name.as_bytes());
        });
        let read = |results: &mut Results<'_>| {
            results.put_handle()?;
            results.next(REMOVE).map(drop)
        };
        self.client.run(calls, &request, read).await
    }

    async fn list(&mut self, from: ListingPosition, calls: &BoundedCalls) -> Result<ListedNames, NfsError> {
        let request = Compound::new(READDIR).put_handle(self.root).with(READDIR, |arguments| {
            arguments.u64(from.cookie).fixed(&from.verifier).u32(LISTING_BYTES).u32(LISTING_BYTES);
            attributes::encode_mask(arguments, &mask(&[]));
        });
        let read = |results: &mut Results<'_>| -> Result<ListedNames, ReplyError> {
            results.put_handle()?;
            listed_names(results.next(READDIR)?)
        };
        self.client.run(calls, &request, read).await
    }

    async fn find(&mut self, name: &str, calls: &BoundedCalls) -> Result<FoundFile, NfsError> {
        let requested = [TYPE, SIZE, TIME_MODIFY];
        let request = Compound::new(LOOKUP).put_handle(self.root).look_up(name.as_bytes()).get_attributes(&requested);
        let read = |results: &mut Results<'_>| {
            results.put_handle()?;
            results.next(LOOKUP)?;
            Attributes::decode(results.next(GETATTR)?, &requested)
        };
        let found = self.client.run(calls, &request, read).await?;
        // A file without these attributes is not taken for a leftover.
        Ok(FoundFile {
            is_regular: found.kind == Some(REGULAR_FILE),
            bytes: found.size.unwrap_or(u64::MAX),
            modified: found.modified.unwrap_or(i64::MAX),
        })
    }

    async fn describe(&mut self, calls: &BoundedCalls) -> Result<String, NfsError> {
        let requested = [MODE, OWNER, OWNER_GROUP];
        let request = Compound::new(GETATTR).put_handle(self.root).get_attributes(&requested);
        let read = |results: &mut Results<'_>| {
            results.put_handle()?;
            Attributes::decode(results.next(GETATTR)?, &requested)
        };
        let found = self.client.run(calls, &request, read).await?;
        let (owner, group) = (found.owner.unwrap_or_default(), found.group.unwrap_or_default());
        let mode = found.mode.unwrap_or_default() & 0o7777;
        Ok(format!("the root of the export belongs to user {owner} group {group} and has mode {mode:04o}"))
    }
}

/// Returns the state id of `OPEN4resok` (RFC 8881 §18.16).
pub(super) fn opened_state(decoder: &mut Decoder<'_>) -> Result<[u8; STATE_ID_BYTES], Malformed> {
    let state = decoder.fixed(STATE_ID_BYTES)?.try_into().unwrap_or_default();
    // Change of the directory (a flag and two numbers), and flags of the result.
    decoder.fixed(4 + 8 + 8 + 4)?;
    for _ in 0..decoder.length(attributes::REPLY_MASK_WORDS_MAX)? {
        decoder.u32()?;
    }
    match decoder.u32()? {
        NO_DELEGATION => {}
        NO_DELEGATION_BECAUSE => {
            if WHY_WITH_A_FLAG.contains(&decoder.u32()?) {
                decoder.bool()?;
            }
        }
        _ => return Err(Malformed("the server gave a delegation that was not wanted")),
    }
    Ok(state)
}

/// `READDIR4resok` without attributes (RFC 8881 §18.23).
pub(super) fn listed_names(decoder: &mut Decoder<'_>) -> Result<ListedNames, ReplyError> {
    let verifier = decoder.fixed(8)?.try_into().unwrap_or_default();
    let (mut names, mut cookie) = (Vec::new(), 0);
    while decoder.bool()? {
        cookie = decoder.u64()?;
        names.push(decoder.opaque(NAME_MAX_BYTES)?.to_vec());
        Attributes::decode(decoder, &[])?;
    }
    let next = (!decoder.bool()? && !names.is_empty()).then_some(ListingPosition { cookie, verifier });
    Ok(ListedNames { names, next })
}
