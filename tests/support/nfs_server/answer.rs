//! The RPC reply (RFC 5531 §9) to a call under each behaviour.

use std::io::Cursor;
use std::sync::Mutex;

use nfs3_types::rpc::{
    RPC_VERSION_2, accept_stat_data, accepted_reply, auth_stat, call_body, fragment_header, msg_body, opaque_auth,
    rejected_reply, reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::{Pack, Unpack};
use nfs3_types::{mount, nfs3};

use super::files::Files;
use super::program::{self, ProcedureError};
use super::{Behaviour, lock};

/// The only supported version of both programs (RFC 1813).
const VERSION: u32 = 3;

/// What the server sends.
pub enum Answer {
    /// Nothing.
    None,
    /// Nothing, and the connection is closed.
    Close,
    /// A complete record.
    Record(Vec<u8>),
    /// The header of a record and a part of its body.
    Part {
        /// The length in the header, in bytes.
        announced: u32,
        /// The part of the body.
        sent: Vec<u8>,
        /// Whether the connection is closed after it.
        then_close: bool,
    },
}

/// The answer to the call in `record`.
pub fn to(record: &[u8], behaviour: &Behaviour, files: &Mutex<Files>) -> Answer {
    let mut call = Cursor::new(record);
    let Ok((rpc_msg { xid, body: msg_body::CALL(body) }, _)) = rpc_msg::unpack(&mut call) else {
        return Answer::Close;
    };
    let arguments = record.get(call.position() as usize..).unwrap_or_default();
    let reply = match behaviour {
        Behaviour::Silent => return Answer::None,
        Behaviour::CloseAtOnce => return Answer::Close,
        Behaviour::Garbage => Some([&xid.to_be_bytes()[..], &[0xa5; 60]].concat()),
        Behaviour::AuthError => {
            encode(xid, reply_body::MSG_DENIED(rejected_reply::auth_error(auth_stat::AUTH_TOOWEAK)), &[])
        }
        Behaviour::VersionMismatch { low, high } => {
            accepted(xid, accept_stat_data::PROG_MISMATCH { low: *low, high: *high }, &[])
        }
        Behaviour::HugeRecord => {
            return Answer::Part { announced: fragment_header::MASK, sent: vec![0; 64], then_close: false };
        }
        _ => reply(xid, &body, arguments, behaviour, files),
    };
    match reply {
        None => Answer::Close,
        Some(mut whole) if *behaviour == Behaviour::EofMidRecord => {
            let announced = u32::try_from(whole.len()).unwrap_or(fragment_header::MASK);
            whole.truncate(whole.len() / 2);
            Answer::Part { announced, sent: whole, then_close: true }
        }
        Some(whole) => Answer::Record(whole),
    }
}

/// Whether the call in `record` is of the procedure NULL.
pub fn is_null(record: &[u8]) -> bool {
    matches!(
        rpc_msg::unpack(&mut Cursor::new(record)),
        Ok((rpc_msg { body: msg_body::CALL(call_body { proc: 0, .. }), .. }, _))
    )
}

/// The reply to a call, or `None` if it cannot be encoded.
fn reply(
    xid: u32,
    call: &call_body<'_>,
    arguments: &[u8],
    behaviour: &Behaviour,
    files: &Mutex<Files>,
) -> Option<Vec<u8>> {
    if call.rpcvers != RPC_VERSION_2 {
        let mismatch = rejected_reply::rpc_mismatch(RPC_VERSION_2, RPC_VERSION_2);
        return encode(xid, reply_body::MSG_DENIED(mismatch), &[]);
    }
    if !matches!(call.prog, mount::PROGRAM | nfs3::PROGRAM) {
        return accepted(xid, accept_stat_data::PROG_UNAVAIL, &[]);
    }
    if call.vers != VERSION {
        return accepted(xid, accept_stat_data::PROG_MISMATCH { low: VERSION, high: VERSION }, &[]);
    }
    let mut files = lock(files);
    let result = if call.prog == mount::PROGRAM {
        program::mount(call.proc, arguments, &mut files, behaviour)
    } else {
        program::nfs(call.proc, arguments, &mut files, behaviour)
    };
    match result {
        Ok(result) => accepted(xid, accept_stat_data::SUCCESS, &result),
        Err(ProcedureError::NoSuchProcedure) => accepted(xid, accept_stat_data::PROC_UNAVAIL, &[]),
        Err(ProcedureError::BadArguments) => accepted(xid, accept_stat_data::GARBAGE_ARGS, &[]),
        Err(ProcedureError::CannotEncode) => accepted(xid, accept_stat_data::SYSTEM_ERR, &[]),
    }
}

fn accepted(xid: u32, reply_data: accept_stat_data, result: &[u8]) -> Option<Vec<u8>> {
    encode(xid, reply_body::MSG_ACCEPTED(accepted_reply { verf: opaque_auth::default(), reply_data }), result)
}

fn encode(xid: u32, body: reply_body<'_>, result: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    rpc_msg { xid, body: msg_body::REPLY(body) }.pack(&mut bytes).ok()?;
    bytes.extend_from_slice(result);
    Some(bytes)
}
