//! Files of an exported directory over NFSv3 (RFC 1813 §3.3).

use std::net::SocketAddr;

use nfs3_client::rpc::RpcClient;
use nfs3_types::nfs3::{self, NFS_PROGRAM};
use nfs3_types::rpc::opaque_auth;

use super::super::calls::{BoundedCalls, NFS, Pause};
use super::super::canary::{BYTES, ExportedFiles, FoundFile, ListedNames, ListingPosition, NAME_MAX_BYTES};
use super::super::error::NfsError;
use super::super::status::NfsStatus;
use super::super::transport::Records;
use super::super::xdr::{Decoder, Encoder, Malformed, Received};

/// The file must not exist yet (`GUARDED`).
const GUARDED: u32 = 1;

/// The server writes to its disk before it answers (`FILE_SYNC`).
const FILE_SYNC: u32 = 2;

/// Permissions of a canary.
const MODE: u32 = 0o600;

/// Type of a regular file (`NF3REG`).
const REGULAR_FILE: u32 = 1;

/// Longest file handle, in bytes (`NFS3_FHSIZE`).
const HANDLE_MAX_BYTES: usize = 64;

/// Size of a reply to READDIR, in bytes.
const LISTING_BYTES: u32 = 8192;

/// Attributes of a file before a call (`wcc_attr`): size and two times.
const ATTRIBUTES_BEFORE_BYTES: usize = 24;

/// An exported directory, accessed by a user.
pub(in crate::nfs) struct FilesV3 {
    pub(super) server: SocketAddr,
    pub(super) path: String,
    pub(super) root: Vec<u8>,
    pub(super) credential: opaque_auth<'static>,
    /// `None` before the first call, and after a call that got no complete answer.
    pub(super) rpc: Option<RpcClient<Records>>,
}

/// The attributes that the canary needs.
struct AttributesV3 {
    kind: u32,
    mode: u32,
    owner: u32,
    group: u32,
    size: u64,
    modified: i64,
}

impl FilesV3 {
    /// Calls a procedure, and reads its result. Repeats it while the server asks for that and there is time.
    async fn call<T>(
        &mut self,
        procedure: NFS_PROGRAM,
        name: &'static str,
        arguments: &Encoder,
        calls: &BoundedCalls,
        read: impl Fn(&mut Decoder<'_>) -> Result<T, Malformed>,
    ) -> Result<T, NfsError> {
        let mut pause = Pause::default();
        loop {
            let mut rpc = match self.rpc.take() {
                Some(rpc) => rpc,
                None => {
                    let records = calls.connect(NFS, self.server).await?;
                    RpcClient::new_with_auth(records, self.credential.clone(), opaque_auth::default())
                }
            };
            let answer = rpc.call::<_, Received>(nfs3::PROGRAM, nfs3::VERSION, procedure as u32, arguments);
            let received = calls.call(NFS, name, nfs3::VERSION, answer).await?;
            self.rpc = Some(rpc);
            let mut decoder = received.decoder();
            let result = decoder.u32().and_then(|code| match code {
                0 => read(&mut decoder).map(Ok),
                code => Ok(Err(NfsStatus::v3(code))),
            });
            match result {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(status)) => {
                    if !status.is_later() || !calls.pause(&mut pause).await {
                        return Err(NfsError::Status { call: name, path: self.path.clone(), status });
                    }
                }
                Err(malformed) => {
                    return Err(NfsError::NotRpc { service: NFS, call: name, detail: malformed.to_string() });
                }
            }
        }
    }

    /// A name in the exported directory (`diropargs3`).
    fn entry(&self, name: &str) -> Encoder {
        let mut arguments = Encoder::default();
        arguments.opaque(&self.root).opaque(name.as_bytes());
        arguments
    }

    async fn look_up(&mut self, name: &str, calls: &BoundedCalls) -> Result<(Vec<u8>, Option<AttributesV3>), NfsError> {
        let arguments = self.entry(name);
        let read = |decoder: &mut Decoder<'_>| {
            let handle = decoder.opaque(HANDLE_MAX_BYTES)?.to_vec();
            Ok((handle, optional_attributes(decoder)?))
        };
        self.call(NFS_PROGRAM::NFSPROC3_LOOKUP, "LOOKUP", &arguments, calls, read).await
    }
}

impl ExportedFiles for FilesV3 {
    /// Its handle.
    type Opened = Vec<u8>;

    async fn create(&mut self, name: &str, calls: &BoundedCalls) -> Result<Vec<u8>, NfsError> {
        let mut arguments = self.entry(name);
        // The mode is set, and no other attribute.
        arguments.u32(GUARDED).u32(1).u32(MODE).u32(0).u32(0).u32(0).u32(0).u32(0);
        let read = |decoder: &mut Decoder<'_>| {
            let has_handle = decoder.bool()?;
            Ok(if has_handle { Some(decoder.opaque(HANDLE_MAX_BYTES)?.to_vec()) } else { None })
        };
        match self.call(NFS_PROGRAM::NFSPROC3_CREATE, "CREATE", &arguments, calls, read).await? {
            Some(handle) => Ok(handle),
            None => Ok(self.look_up(name, calls).await?.0),
        }
    }

    async fn write(&mut self, file: &Vec<u8>, content: &[u8], calls: &BoundedCalls) -> Result<i64, NfsError> {
        let mut arguments = Encoder::default();
        arguments.opaque(file).u64(0).u32(BYTES).u32(FILE_SYNC).opaque(content);
        let read = |decoder: &mut Decoder<'_>| {
            if decoder.bool()? {
                decoder.fixed(ATTRIBUTES_BEFORE_BYTES)?;
            }
            let attributes = optional_attributes(decoder)?;
            if (decoder.u32()?, decoder.u32()?) == (BYTES, FILE_SYNC) { Ok(attributes) } else { Err(NOT_WRITTEN) }
        };
        let attributes = self.call(NFS_PROGRAM::NFSPROC3_WRITE, "WRITE", &arguments, calls, read).await?;
        Ok(attributes.map_or(i64::MIN, |attributes| attributes.modified))
    }

    async fn read(&mut self, file: &Vec<u8>, calls: &BoundedCalls) -> Result<Vec<u8>, NfsError> {
        let mut arguments = Encoder::default();
        arguments.opaque(file).u64(0).u32(BYTES);
        let read = |decoder: &mut Decoder<'_>| {
            optional_attributes(decoder)?;
            let (_count, _is_end) = (decoder.u32()?, decoder.bool()?);
            Ok(decoder.opaque(BYTES as usize)?.to_vec())
        };
        self.call(NFS_PROGRAM::NFSPROC3_READ, "READ", &arguments, calls, read).await
    }

    /// Version 3 has no open files.
    async fn close(&mut self, _file: Vec<u8>, _calls: &BoundedCalls) -> Result<(), NfsError> {
        Ok(())
    }

    async fn remove(&mut self, name: &str, calls: &BoundedCalls) -> Result<(), NfsError> {
        let arguments = self.entry(name);
        self.call(NFS_PROGRAM::NFSPROC3_REMOVE, "REMOVE", &arguments, calls, |_| Ok(())).await
    }

    async fn list(&mut self, from: ListingPosition, calls: &BoundedCalls) -> Result<ListedNames, NfsError> {
        let mut arguments = Encoder::default();
        arguments.opaque(&self.root).u64(from.cookie).fixed(&from.verifier).u32(LISTING_BYTES);
        self.call(NFS_PROGRAM::NFSPROC3_READDIR, "READDIR", &arguments, calls, listed_names).await
    }

    async fn find(&mut self, name: &str, calls: &BoundedCalls) -> Result<FoundFile, NfsError> {
        let (_, attributes) = self.look_up(name, calls).await?;
        // A file without attributes is not taken for a leftover.
        Ok(attributes.map_or(FoundFile { is_regular: false, bytes: 0, modified: 0 }, |found| FoundFile {
            is_regular: found.kind == REGULAR_FILE,
            bytes: found.size,
            modified: found.modified,
        }))
    }

    async fn describe(&mut self, calls: &BoundedCalls) -> Result<String, NfsError> {
        let mut arguments = Encoder::default();
        arguments.opaque(&self.root);
        let found = self.call(NFS_PROGRAM::NFSPROC3_GETATTR, "GETATTR", &arguments, calls, attributes).await?;
        let (owner, group, mode) = (found.owner, found.group, found.mode & 0o7777);
        Ok(format!("the root of the export belongs to uid {owner} gid {group} and has mode {mode:04o}"))
    }
}

const NOT_WRITTEN: Malformed = Malformed("the server did not write everything to its disk, as requested");

/// `post_op_attr`.
fn optional_attributes(decoder: &mut Decoder<'_>) -> Result<Option<AttributesV3>, Malformed> {
    Ok(if decoder.bool()? { Some(attributes(decoder)?) } else { None })
}

/// `fattr3`.
fn attributes(decoder: &mut Decoder<'_>) -> Result<AttributesV3, Malformed> {
    let (kind, mode, _links) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
    let (owner, group, size) = (decoder.u32()?, decoder.u32()?, decoder.u64()?);
    // Used space, device, file system, file id and the time of the last access.
    decoder.fixed(8 + 8 + 8 + 8 + 8)?;
    let modified = i64::from(decoder.u32()?);
    // The fraction of that time, and the time of the last change of the attributes.
    decoder.fixed(4 + 8)?;
    Ok(AttributesV3 { kind, mode, owner, group, size, modified })
}

/// `READDIR3resok`.
fn listed_names(decoder: &mut Decoder<'_>) -> Result<ListedNames, Malformed> {
    optional_attributes(decoder)?;
    let verifier = decoder.fixed(8)?.try_into().unwrap_or_default();
    let (mut names, mut cookie) = (Vec::new(), 0);
    while decoder.bool()? {
        let _file_id = decoder.u64()?;
        names.push(decoder.opaque(NAME_MAX_BYTES)?.to_vec());
        cookie = decoder.u64()?;
    }
    let next = (!decoder.bool()? && !names.is_empty()).then_some(ListingPosition { cookie, verifier });
    Ok(ListedNames { names, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn listing_is_decoded_and_its_parts_are_refused(
            names in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            is_end in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut reply = Encoder::default();
            // No attributes, and the verifier.
            reply.u32(0).fixed(&[5; 8]);
            for (cookie, name) in (7..).zip(&names) {
                reply.u32(1).u64(99).opaque(name).u64(cookie);
            }
            reply.u32(0).u32(u32::from(is_end));
            let whole = reply.bytes();
            let found = listed_names(&mut Decoder::new(whole)).expect("names");
            prop_assert_eq!(&found.names, &names);
            let next = found.next.map(|next| (next.cookie, next.verifier));
            prop_assert_eq!(next, (!is_end && !names.is_empty()).then(|| (6 + names.len() as u64, [5; 8])));
            prop_assert!(listed_names(&mut Decoder::new(&whole[..cut.index(whole.len())])).is_err());
        }

        #[test]
        fn arbitrary_replies_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = listed_names(&mut Decoder::new(&bytes));
            let _ = optional_attributes(&mut Decoder::new(&bytes));
        }
    }

    #[test]
    fn attributes_have_the_length_of_rfc_1813() {
        let mut decoder = Decoder::new(&[0; 84]);
        assert!(attributes(&mut decoder).is_ok() && decoder.is_at_end());
    }
}
