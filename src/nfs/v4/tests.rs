//! Sessions, retries and invalid replies, against a server in this process that answers each compound as its test says.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{Either, select};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::volume::Volume;
use super::super::volume_address::VolumeAddress;
use super::super::xdr::{Decoder, Encoder};
use super::attributes::{Attributes, DIRECTORY, FS_LOCATIONS, NUMLINKS, SPACE_AND_FILES, SYMBOLIC_LINK, TYPE, mask};
use super::compound::{
    CREATE_SESSION, Compound, DESTROY_CLIENTID, DESTROY_SESSION, EXCHANGE_ID, GETATTR, GETFH, LOOKUP, PUTFH, PUTROOTFH,
    READLINK, Results, SEQUENCE,
};
use super::reply_error::ReplyError;
use super::*;
use crate::model::canary_file::CanaryFileNames;
use crate::model::{NfsOptions, Reason};

const DEADLINE: Duration = Duration::from_millis(500);

/// First operation of each compound, in the order of their arrival.
type Seen = Arc<Mutex<Vec<u32>>>;

/// Status of a call whose sequence number is not the next one of its slot (RFC 8881 §15.1.11.8).
const SEQ_MISORDERED: u32 = 10063;

/// Serves connections, and verifies the sequence numbers of the session. `answer` returns the result of COMPOUND for
/// its first operation. Without one, the server does not answer.
async fn serve(answer: impl Fn(u32) -> Option<Encoder> + Send + Sync + 'static) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let (address, seen) = (listener.local_addr().expect("an address"), Seen::default());
    let (answer, log, slot) = (Arc::new(answer), seen.clone(), Arc::default());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, answer.clone(), log.clone(), Arc::clone(&slot)));
        }
    });
    (address, seen)
}

async fn converse(
    mut stream: TcpStream,
    answer: Arc<impl Fn(u32) -> Option<Encoder>>,
    seen: Seen,
    slot: Arc<Mutex<u32>>,
) {
    while let Ok(mark) = stream.read_u32().await {
        let mut call = vec![0; (mark & 0x7fff_ffff) as usize];
        stream.read_exact(&mut call).await.expect("a call");
        let mut decoder = Decoder::new(&call);
        let xid = decoder.u32().expect("an id");
        decoder.fixed(5 * 4).expect("a header");
        for _ in 0..2 {
            // Credential and verifier.
            decoder.u32().expect("a flavor");
            decoder.opaque(400).expect("a body");
        }
        decoder.opaque(0).expect("the tag");
        decoder.u64().expect("minor version and number of operations");
        let operation = decoder.u32().expect("an operation");
        seen.lock().expect("unpoisoned").push(operation);
        let Some(mut body) = answer(operation) else { continue };
        if operation == CREATE_SESSION.number {
            *slot.lock().expect("unpoisoned") = 0;
        }
        if operation == SEQUENCE.number {
            decoder.fixed(16).expect("a session");
            let (sequence, mut latest) = (decoder.u32().expect("a number"), slot.lock().expect("unpoisoned"));
            if sequence != *latest + 1 {
                body = results(SEQ_MISORDERED, &[(operation, SEQ_MISORDERED, Encoder::default())]);
            } else if first_status(&body) == Some(0) {
                *latest = sequence;
            }
        }
        let mut reply = Encoder::default();
        // An accepted reply with an empty verifier.
        reply.u32(xid).u32(1).u32(0).u32(0).u32(0).u32(0).append(&body);
        // In two fragments (RFC 5531 §11).
        let (first, last) = reply.bytes().split_at(8);
        for (fragment, mark) in [(first, 0), (last, 0x8000_0000)] {
            let length = u32::try_from(fragment.len()).expect("short");
            stream.write_u32(length | mark).await.expect("sent");
            stream.write_all(fragment).await.expect("sent");
        }
    }
}

/// Status of the first operation in the result of a compound.
fn first_status(body: &Encoder) -> Option<u32> {
    let mut decoder = Decoder::new(body.bytes());
    decoder.u32().ok()?;
    decoder.opaque(0).ok()?;
    decoder.u64().ok()?;
    decoder.u32().ok()
}

/// Result of a compound whose operations have these results.
fn results(status: u32, operations: &[(u32, u32, Encoder)]) -> Encoder {
    let mut body = Encoder::default();
    body.u32(status).opaque(b"").u32(u32::try_from(operations.len()).expect("few"));
    for (number, status, result) in operations {
        body.u32(*number).u32(*status).append(result);
    }
    body
}

/// Answers to the operations that create and destroy the session, and the refusal of all others.
fn refuse_in_session(operation: u32, status: u32) -> Encoder {
    let mut result = Encoder::default();
    match operation {
        42 => {
            // Client id, sequence, flags, no protection, and the server's identity.
            result.u64(7).u32(1).u32(0).u32(0).u64(0).opaque(b"major").opaque(b"scope").u32(0);
        }
        43 => {
            result.fixed(&[9; 16]).u32(1).u32(0).fixed(&[0; 16]).u32(8).fixed(&[0; 9 * 4]);
        }
        44 | 57 => {}
        _ => return results(status, &[(operation, status, Encoder::default())]),
    }
    results(0, &[(operation, 0, result)])
}

async fn open(server: SocketAddr) -> NfsError {
    let calls = BoundedCalls::start(DEADLINE);
    VolumeV4::open(server, "/b", None, &calls).await.expect_err("not a volume")
}

fn numbers(operations: &[compound::Operation]) -> Vec<u32> {
    operations.iter().map(|operation| operation.number).collect()
}

#[tokio::test]
async fn session_and_client_are_destroyed_after_a_failure() {
    let (server, seen) = serve(|operation| Some(refuse_in_session(operation, NfsStatus::IO))).await;
    assert_eq!(open(server).await.reason(), Reason::InputOutputError);
    let expected = [EXCHANGE_ID, CREATE_SESSION, SEQUENCE, DESTROY_SESSION, DESTROY_CLIENTID];
    assert_eq!(*seen.lock().expect("unpoisoned"), numbers(&expected));
}

#[tokio::test]
async fn session_and_client_are_destroyed_after_a_timeout() {
    let silent = SEQUENCE.number;
    let (server, seen) =
        serve(move |operation| (operation != silent).then(|| refuse_in_session(operation, NfsStatus::IO))).await;
    assert_eq!(open(server).await.reason(), Reason::ResponseTimedOut);
    let expected = [EXCHANGE_ID, CREATE_SESSION, SEQUENCE, DESTROY_SESSION, DESTROY_CLIENTID];
    assert_eq!(*seen.lock().expect("unpoisoned"), numbers(&expected));
}

#[tokio::test]
async fn session_and_client_are_destroyed_although_the_caller_gave_up() {
    let silent = SEQUENCE.number;
    let (server, seen) =
        serve(move |operation| (operation != silent).then(|| refuse_in_session(operation, NfsStatus::IO))).await;
    let options = NfsOptions::parse(&format!("nfsvers=4.1,port={}", server.port())).expect("options");
    let address = VolumeAddress::new(server.ip(), "/b", &options);
    let last = || seen.lock().expect("unpoisoned").last().copied();
    {
        let opening = pin!(Volume::open(&address, DEADLINE));
        let silence = pin!(until(|| last() == Some(silent)));
        assert!(matches!(select(opening, silence).await, Either::Right(_)), "the caller gives up while it waits");
    }
    until(|| last() == Some(DESTROY_CLIENTID.number)).await;
}

/// Waits until a condition is true, at most ten times the deadline.
async fn until(is_so: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE * 10;
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "too late");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn delayed_call_is_repeated_until_the_deadline() {
    for status in [NfsStatus::DELAY, NfsStatus::GRACE] {
        let (server, seen) = serve(move |operation| Some(refuse_in_session(operation, status))).await;
        let error = open(server).await;
        assert!(error.is_timeout() && error.to_string().contains("asks for a retry later"), "{error}");
        let seen = seen.lock().expect("unpoisoned");
        assert!(seen.iter().filter(|operation| **operation == SEQUENCE.number).count() > 1, "{seen:?}");
        assert!(seen.ends_with(&numbers(&[DESTROY_SESSION, DESTROY_CLIENTID])), "{seen:?}");
    }
}

#[tokio::test]
async fn lower_minor_versions_are_tried() {
    let mismatch = NfsStatus::MINOR_VERS_MISMATCH;
    let (server, seen) = serve(move |_| Some(results(mismatch, &[]))).await;
    let error = open(server).await;
    assert_eq!(error.reason(), Reason::NfsVersionUnsupported);
    assert!(error.to_string().contains("NFS 4.0"), "{error}");
    let expected = [EXCHANGE_ID, EXCHANGE_ID, compound::PUTROOTFH];
    assert_eq!(*seen.lock().expect("unpoisoned"), numbers(&expected));
}

/// Answers the compounds of a session with these results, one after the other, and the last one again. Each result is a
/// status with the operations that were executed.
fn in_session(script: Vec<Encoder>) -> impl Fn(u32) -> Option<Encoder> {
    let script = Mutex::new(VecDeque::from(script));
    move |operation| {
        if operation != SEQUENCE.number {
            return Some(refuse_in_session(operation, 0));
        }
        let mut script = script.lock().expect("unpoisoned");
        if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
    }
}

/// Result of a compound in a session. The last operation has the status.
fn executed(status: u32, operations: &[(compound::Operation, Encoder)]) -> Encoder {
    let mut sequence = Encoder::default();
    sequence.fixed(&[9; 16]).fixed(&[0; 20]);
    let mut all = vec![(SEQUENCE.number, 0, sequence)];
    all.extend(operations.iter().map(|(operation, result)| (operation.number, 0, result.clone())));
    all.last_mut().expect("not empty").1 = status;
    results(status, &all)
}

/// Attributes with a type of file, or none.
fn of_kind(kind: Option<u32>) -> Encoder {
    let (mut values, mut reply) = (Encoder::default(), Encoder::default());
    kind.into_iter().for_each(|kind| {
        values.u32(kind);
    });
    attributes::encode_mask(&mut reply, &mask(if kind.is_some() { &[TYPE] } else { &[] }));
    reply.opaque(values.bytes());
    reply
}

fn handle(number: u8) -> Encoder {
    let mut reply = Encoder::default();
    reply.opaque(&[number]);
    reply
}

/// Result of one compound that looks up these directories from the root.
fn walked(lookups: usize, number: u8) -> Encoder {
    let mut operations = vec![(PUTROOTFH, Encoder::default()), (GETATTR, of_kind(None))];
    operations.extend(std::iter::repeat_n((LOOKUP, Encoder::default()), lookups));
    operations.extend([(GETFH, handle(number)), (GETATTR, of_kind(Some(DIRECTORY)))]);
    executed(0, &operations)
}

/// Result of the lookup of the root, and of one component below a directory.
fn root() -> Encoder {
    executed(0, &[(PUTROOTFH, Encoder::default()), (GETFH, handle(1)), (GETATTR, of_kind(Some(DIRECTORY)))])
}

fn component(number: u8, kind: u32) -> Encoder {
    let operations = [
        (PUTFH, Encoder::default()),
        (LOOKUP, Encoder::default()),
        (GETFH, handle(number)),
        (GETATTR, of_kind(Some(kind))),
    ];
    executed(0, &operations)
}

fn link_target(target: &[u8]) -> Encoder {
    let mut text = Encoder::default();
    text.opaque(target);
    executed(0, &[(PUTFH, Encoder::default()), (READLINK, text)])
}

/// Opens a path. Returns the handle of its directory, and the number of compounds in the session.
async fn open_path(path: &str, script: Vec<Encoder>) -> (Result<Vec<u8>, NfsError>, usize) {
    let (server, seen) = serve(in_session(script)).await;
    let opened = VolumeV4::open(server, path, Some(1), &BoundedCalls::start(DEADLINE)).await;
    let compounds = seen.lock().expect("unpoisoned").iter().filter(|first| **first == SEQUENCE.number).count();
    (opened.map(|volume| volume.directory.handle), compounds)
}

#[tokio::test]
async fn path_is_looked_up_in_one_round_trip() {
    let (found, compounds) = open_path("/a/b/c", vec![walked(3, 7)]).await;
    assert_eq!((found.expect("found"), compounds), (vec![7], 1));
    // The server limits a compound of this session to eight operations.
    let operations = [(PUTFH, Encoder::default()), (LOOKUP, Encoder::default()), (GETFH, handle(8))];
    let rest = executed(0, &[&operations[..], &[(GETATTR, of_kind(Some(DIRECTORY)))]].concat());
    let (found, compounds) = open_path("/a/b/c/d", vec![walked(3, 7), rest]).await;
    assert_eq!((found.expect("found"), compounds), (vec![8], 2));
    let (found, compounds) = open_path("/", vec![walked(0, 1)]).await;
    assert_eq!((found.expect("found"), compounds), (vec![1], 1));
}

#[tokio::test]
async fn missing_component_is_named_after_one_round_trip() {
    let begin = [(PUTROOTFH, Encoder::default()), (GETATTR, of_kind(None)), (LOOKUP, Encoder::default())];
    let missing = executed(NfsStatus::NOENT, &[&begin[..], &[(LOOKUP, Encoder::default())]].concat());
    let (found, compounds) = open_path("/a/missing/c", vec![missing]).await;
    let error = found.expect_err("missing");
    assert_eq!((error.reason(), compounds), (Reason::ExportNotFound, 1));
    assert!(error.to_string().contains("(missing: NFS4ERR_NOENT)"), "{error}");
}

#[tokio::test]
async fn symbolic_link_is_followed_component_by_component() {
    let begin = [(PUTROOTFH, Encoder::default()), (GETATTR, of_kind(None)), (LOOKUP, Encoder::default())];
    let link = executed(NfsStatus::SYMLINK, &[&begin[..], &[(LOOKUP, Encoder::default())]].concat());
    let script = |target: &[u8], last| {
        vec![link.clone(), root(), component(2, SYMBOLIC_LINK), link_target(target), component(3, DIRECTORY), last]
    };
    let (found, _) = open_path("/link/b", script(b"elsewhere", component(4, DIRECTORY))).await;
    assert_eq!(found.expect("found"), [4]);
    // The name comes from the server.
    let missing = executed(NfsStatus::NOENT, &[(PUTFH, Encoder::default()), (LOOKUP, Encoder::default())]);
    let (found, _) = open_path("/link", script("a/\u{1b}[2J\u{202e}b\n".as_bytes(), missing)).await;
    let text = found.expect_err("missing").to_string();
    assert!(text.contains(r"(\u{1b}[2J\u{202e}b\n: NFS4ERR_NOENT)"), "{text}");
}

#[tokio::test]
async fn lost_session_is_replaced_once() {
    for status in [NfsStatus::BADSESSION, NfsStatus::STALE_CLIENTID, NfsStatus::DEADSESSION] {
        let (server, seen) = serve(in_session(vec![executed(status, &[]), walked(1, 7)])).await;
        let opened = VolumeV4::open(server, "/b", Some(1), &BoundedCalls::start(DEADLINE)).await;
        assert_eq!(opened.expect("opened").directory.handle, [7], "{status}");
        let begin = [EXCHANGE_ID, CREATE_SESSION, SEQUENCE];
        let expected = [&begin[..], &[DESTROY_CLIENTID], &begin, &[DESTROY_SESSION, DESTROY_CLIENTID]].concat();
        assert_eq!(*seen.lock().expect("unpoisoned"), numbers(&expected));

        let (server, seen) = serve(in_session(vec![executed(status, &[])])).await;
        let error = VolumeV4::open(server, "/b", Some(1), &BoundedCalls::start(DEADLINE)).await.expect_err("lost");
        assert_eq!(error.reason(), Reason::InputOutputError);
        assert_eq!(*seen.lock().expect("unpoisoned"), numbers(&expected), "it was repeated more than once");
    }
}

#[tokio::test]
async fn client_that_the_server_forgot_before_its_session_is_replaced() {
    let is_forgotten = Mutex::new(true);
    let answers = in_session(vec![walked(1, 7)]);
    let (server, _) = serve(move |operation| {
        if operation == CREATE_SESSION.number && std::mem::take(&mut *is_forgotten.lock().expect("unpoisoned")) {
            let status = NfsStatus::STALE_CLIENTID;
            return Some(results(status, &[(operation, status, Encoder::default())]));
        }
        answers(operation)
    })
    .await;
    let opened = VolumeV4::open(server, "/b", Some(1), &BoundedCalls::start(DEADLINE)).await;
    assert_eq!(opened.expect("opened").directory.handle, [7]);
}

#[test]
fn first_locations_of_a_long_referral_are_kept() {
    let mut locations = Encoder::default();
    locations.u32(0).u32(20);
    for number in 0..20 {
        // One server, or two.
        locations.u32(1 + number % 2);
        for _ in 0..=number % 2 {
            locations.opaque(format!("nas{number}").as_bytes());
        }
        locations.u32(1).opaque(b"backups");
    }
    let mut reply = Encoder::default();
    attributes::encode_mask(&mut reply, &mask(&[FS_LOCATIONS]));
    reply.opaque(locations.bytes());
    let found = Attributes::decode(&mut Decoder::new(reply.bytes()), &[FS_LOCATIONS]).expect("locations");
    assert_eq!((found.locations.len(), found.locations[0].as_str()), (16, "nas0:/backups"));
    assert_eq!(found.locations[15], "nas10:/backups");
}

#[tokio::test]
async fn truncated_replies_are_refused() {
    let whole = refuse_in_session(EXCHANGE_ID.number, 0);
    // The description of the server at the end is not read.
    for length in (0..whole.bytes().len() - 4).step_by(4) {
        let mut cut = Encoder::default();
        cut.fixed(&whole.bytes()[..length]);
        let (server, _) = serve(move |_| Some(cut.clone())).await;
        assert_eq!(open(server).await.reason(), Reason::NotNfs, "{length} bytes");
    }
}

#[test]
fn every_client_has_another_name() {
    let name = |compound: &Compound| compound.encode(1, None);
    assert_ne!(name(&client::exchange_id()), name(&client::exchange_id()));
}

proptest! {
    /// A reply of arbitrary bytes never panics, and its attributes are not believed beyond what was requested.
    #[test]
    fn arbitrary_replies_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let compound = Compound::new(GETATTR).get_attributes(&[TYPE]);
        if let Ok(mut results) = Results::of(&compound, Decoder::new(&bytes)) {
            let _ = results.handle();
            let _ = client::client_id(&mut results);
        }
        let _ = files::listed_names(&mut Decoder::new(&bytes));
        let _ = files::opened_state(&mut Decoder::new(&bytes));
        for requested in [&[TYPE][..], SPACE_AND_FILES, &[FS_LOCATIONS, NUMLINKS]] {
            if let Ok(found) = Attributes::decode(&mut Decoder::new(&bytes), requested) {
                prop_assert!(found.kind.is_none() || requested.contains(&TYPE));
                prop_assert!(found.locations.is_empty() || requested.contains(&FS_LOCATIONS));
            }
        }
    }

    /// Each count is found by the number of its attribute, whichever of them the server supports.
    #[test]
    fn supported_counts_are_decoded(supported in prop::sample::subsequence(SPACE_AND_FILES.to_vec(), 0..=6)) {
        let mut values = Encoder::default();
        for attribute in &supported {
            values.u64(u64::from(*attribute) << 33);
        }
        let mut reply = Encoder::default();
        attributes::encode_mask(&mut reply, &mask(&supported));
        reply.opaque(values.bytes());
        let found = Attributes::decode(&mut Decoder::new(reply.bytes()), SPACE_AND_FILES);
        let counts = found.map(|found| found.block_counts()).expect("attributes");
        let value = |attribute: u32| if supported.contains(&attribute) { u64::from(attribute) << 33 } else { 0 };
        prop_assert_eq!([counts.available, counts.free, counts.blocks, counts.inodes], [42, 43, 44, 23].map(value));
        let free: Vec<u64> = [21, 22].map(value).into_iter().filter(|count| *count > 0).collect();
        prop_assert_eq!(counts.inodes_free, free.into_iter().min().unwrap_or_default());
    }

    #[test]
    fn referral_is_decoded_as_server_and_path(names in prop::collection::vec("[a-z0-9.]{1,20}", 1..8)) {
        let mut locations = Encoder::default();
        // Root of the file system on this server, and one location with one server.
        locations.u32(0).u32(1).u32(1).opaque(b"nas2").u32(u32::try_from(names.len()).expect("few"));
        for name in &names {
            locations.opaque(name.as_bytes());
        }
        let mut reply = Encoder::default();
        attributes::encode_mask(&mut reply, &mask(&[FS_LOCATIONS]));
        reply.opaque(locations.bytes());
        let found = Attributes::decode(&mut Decoder::new(reply.bytes()), &[FS_LOCATIONS]).expect("locations");
        prop_assert_eq!(found.locations, [format!("nas2:/{}", names.join("/"))]);
    }
}

#[test]
fn opened_file_has_no_delegation() {
    let reply = |delegation: &[u32]| {
        let mut reply = Encoder::default();
        // State id, change of the directory, flags, and two words of attributes that were set.
        reply.fixed(&[3; 16]).fixed(&[0; 20]).u32(4).u32(2).u32(0).u32(2);
        for word in delegation {
            reply.u32(*word);
        }
        let mut decoder = Decoder::new(reply.bytes());
        (files::opened_state(&mut decoder), decoder.is_at_end())
    };
    for delegation in [&[0][..], &[3, 0], &[3, 1, 1], &[3, 2, 0], &[3, 7]] {
        assert_eq!(reply(delegation), (Ok([3; 16]), true), "{delegation:?}");
    }
    assert!(reply(&[1, 0, 0]).0.is_err() && reply(&[3]).0.is_err());
}

#[tokio::test]
async fn canary_that_cannot_be_opened_leaves_no_client() {
    let (server, seen) = serve(|operation| Some(refuse_in_session(operation, NfsStatus::ROFS))).await;
    let directory = path::Directory { handle: vec![1], file_system: None, root_file_system: None, lease_seconds: None };
    let volume = VolumeV4 { nfs: server, path: "/b".to_owned(), minor: 1, directory };
    let names = CanaryFileNames::new("here");
    let written = volume.write_canary((1, 1), &names, &BoundedCalls::start(DEADLINE)).await.expect("not 4.0");
    assert_eq!(written.expect_err("refused").error.write_reason(), Reason::ReadOnly);
    let seen = seen.lock().expect("unpoisoned").clone();
    assert!(seen.ends_with(&numbers(&[DESTROY_SESSION, DESTROY_CLIENTID])), "{seen:?}");
    let old = VolumeV4 { minor: 0, ..volume };
    assert!(old.write_canary((1, 1), &names, &BoundedCalls::start(DEADLINE)).await.is_none());
}

#[test]
fn unrequested_and_excess_attributes_are_refused() {
    let mut reply = Encoder::default();
    attributes::encode_mask(&mut reply, &mask(&[TYPE, NUMLINKS]));
    reply.opaque(&[0; 8]);
    assert!(Attributes::decode(&mut Decoder::new(reply.bytes()), &[TYPE]).is_err());
    let mut excess = Encoder::default();
    attributes::encode_mask(&mut excess, &mask(&[TYPE]));
    excess.opaque(&[0; 8]);
    assert!(matches!(Attributes::decode(&mut Decoder::new(excess.bytes()), &[TYPE]), Err(ReplyError::Malformed(_))));
}
