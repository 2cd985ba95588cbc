//! NFSv4 client: its connection to the server, client id and session (RFC 8881 §2.4, §2.10).

use std::net::SocketAddr;

use nfs3_client::rpc::RpcClient;
use nfs3_types::nfs3;
use nfs3_types::rpc::opaque_auth;
use uuid::Uuid;

use super::super::calls::{BoundedCalls, NFS, Pause};
use super::super::error::NfsError;
use super::super::status::NfsStatus;
use super::super::transport::{REPLY_MAX_BYTES, Records};
use super::super::xdr::{Encoder, Received};
use super::compound::{
    CREATE_SESSION, Compound, DESTROY_CLIENTID, DESTROY_SESSION, EXCHANGE_ID, OPERATIONS_MAX, OPERATIONS_MAX_V40,
    RECLAIM_COMPLETE, Results, SEQUENCE,
};
use super::reply_error::ReplyError;

/// Version of the program.
const VERSION: u32 = 4;

/// Number of the procedure COMPOUND (RFC 8881 §16.2).
const COMPOUND_PROCEDURE: u32 = 1;

/// Minor versions to try, as `mount.nfs` does, if the options name none.
const MINOR_VERSIONS: &[u32] = &[2, 1, 0];

/// Length of a session id, in bytes (`NFS4_SESSIONID_SIZE`).
const SESSION_ID_BYTES: usize = 16;

/// Longest identity of a server, in bytes (`NFS4_OPAQUE_LIMIT`).
const OPAQUE_MAX_BYTES: usize = 1024;

/// The client can use a referral (`EXCHGID4_FLAG_SUPP_MOVED_REFER`). Otherwise the server may not name the location.
const SUPPORTS_REFERRALS: u32 = 1;

/// The state of the client is not protected (`SP4_NONE`).
const NO_PROTECTION: u32 = 0;

/// Flavor of a credential (`AUTH_SYS`, RFC 5531 §8.2).
const AUTH_SYS: u32 = 1;

/// Program number of the callbacks, which this session does not accept (the first transient one, RFC 5531 §8.4).
const CALLBACK_PROGRAM: u32 = 0x4000_0000;

/// Largest callback, in bytes. The server of Linux refuses a session with less than about 800 (`NFSD_CB_MAX_REQ_SZ`).
const CALLBACK_MAX_BYTES: u32 = 4096;

/// A client of the server. [`V4Client::close`] must end it.
pub(super) struct V4Client {
    server: SocketAddr,
    /// The path for which it exists, for messages.
    path: String,
    credential: opaque_auth<'static>,
    minor: u32,
    /// `None` before the first call, and after a call that got no complete answer.
    rpc: Option<RpcClient<Records>>,
    id: Option<u64>,
    session: Option<V4Session>,
    /// Whether it opens files, so the server must know that it has nothing to reclaim.
    opens_files: bool,
}

/// A session with one slot, so calls are sent one after the other.
struct V4Session {
    id: [u8; SESSION_ID_BYTES],
    /// Number of the latest call.
    sequence: u32,
    /// Largest number of operations in a compound, with SEQUENCE.
    operations_max: u32,
}

impl V4Client {
    /// Connects and creates a session. Without a minor version, the highest one that the server speaks is used.
    pub(super) async fn connect(
        server: SocketAddr,
        path: &str,
        minor: Option<u32>,
        credential: opaque_auth<'static>,
        calls: &BoundedCalls,
    ) -> Result<Self, NfsError> {
        let candidates = minor.as_ref().map_or(MINOR_VERSIONS, std::slice::from_ref);
        let path = path.to_owned();
        let mut client =
            Self { server, path, credential, minor: 0, rpc: None, id: None, session: None, opens_files: false };
        for (position, minor) in candidates.iter().enumerate() {
            client.minor = *minor;
            match client.create_session(&calls.before_cleanup()).await {
                Ok(()) => return Ok(client),
                Err(NfsError::MinorVersion { .. }) if position + 1 < candidates.len() => {}
                Err(error) => {
                    client.close(calls).await;
                    return Err(error);
                }
            }
        }
        Ok(client)
    }

    /// The minor version.
    pub(super) fn minor(&self) -> u32 {
        self.minor
    }

    /// Id of the client. 0 without a session.
    pub(super) fn id(&self) -> u64 {
        self.id.unwrap_or_default()
    }

    /// Number of directories that one compound can look up, in addition to `other` operations.
    pub(super) fn lookups_at_once(&self, other: u32) -> usize {
        // SEQUENCE is one of those of a session.
        let in_session = |session: &V4Session| session.operations_max.saturating_sub(1);
        let most = self.session.as_ref().map_or(OPERATIONS_MAX_V40, in_session);
        most.saturating_sub(other).max(1) as usize
    }

    /// Creates client and session. If the server restarts meanwhile, once more.
    async fn create_session(&mut self, calls: &BoundedCalls) -> Result<(), NfsError> {
        match self.try_create_session(calls).await {
            Err(error) if error.is_lost_session() => self.try_create_session(calls).await,
            other => other,
        }
    }

    async fn try_create_session(&mut self, calls: &BoundedCalls) -> Result<(), NfsError> {
        if self.minor == 0 {
            return Ok(());
        }
        let (id, sequence) = self.execute(calls, &exchange_id(), client_id).await?;
        self.id = Some(id);
        let (id, operations_max) = self.execute(calls, &create_session(id, sequence), created_session).await?;
        self.session = Some(V4Session { id, sequence: 0, operations_max });
        Ok(())
    }

    /// Replaces a session that the server does not know any more.
    async fn renew_session(&mut self, calls: &BoundedCalls) -> Result<(), NfsError> {
        self.session = None;
        // The server may have ended only the session.
        self.destroy_client(calls).await;
        self.create_session(calls).await?;
        if self.opens_files { self.reclaim(calls).await } else { Ok(()) }
    }

    /// Executes a compound, and reads its results. Repeats it while the server asks for that and there is time, and
    /// once in a new session if the server has lost the session, as after a restart.
    pub(super) async fn run<T>(
        &mut self,
        calls: &BoundedCalls,
        compound: &Compound,
        read: impl Fn(&mut Results<'_>) -> Result<T, ReplyError>,
    ) -> Result<T, NfsError> {
        match self.execute(calls, compound, &read).await {
            Err(error) if error.is_lost_session() && self.session.is_some() => {
                self.renew_session(calls).await?;
                self.execute(calls, compound, &read).await
            }
            other => other,
        }
    }

    /// Executes a compound in the current session, if there is one.
    async fn execute<T>(
        &mut self,
        calls: &BoundedCalls,
        compound: &Compound,
        read: impl Fn(&mut Results<'_>) -> Result<T, ReplyError>,
    ) -> Result<T, NfsError> {
        let mut pause = Pause::default();
        loop {
            let sequence = self.session.as_ref().map(V4Session::next_call);
            let arguments = compound.encode(self.minor, sequence.as_ref());
            let received = self.call(calls, compound.name(), &arguments).await?;
            let results = Results::of(compound, received.decoder()).map_err(ReplyError::from);
            let result = results.and_then(|mut results| {
                if let Some(session) = &mut self.session {
                    read_sequence(&mut results)?;
                    // After an error of SEQUENCE the slot is unchanged (RFC 8881 §18.46.3).
                    session.sequence = session.sequence.wrapping_add(1);
                }
                read(&mut results)
            });
            match result {
                Ok(value) => return Ok(value),
                Err(ReplyError::Malformed(malformed)) => {
                    let (call, detail) = (compound.name(), malformed.to_string());
                    return Err(NfsError::NotRpc { service: NFS, call, detail });
                }
                Err(ReplyError::Status(_, NfsStatus::MINOR_VERS_MISMATCH)) => {
                    return Err(NfsError::MinorVersion { minor: self.minor });
                }
                Err(ReplyError::Status(call, code)) => {
                    let status = NfsStatus::v4(code);
                    if !status.is_later() || !calls.pause(&mut pause).await {
                        return Err(NfsError::Status { call, path: self.path.clone(), status });
                    }
                }
            }
        }
    }

    async fn call(
        &mut self,
        calls: &BoundedCalls,
        name: &'static str,
        arguments: &Encoder,
    ) -> Result<Received, NfsError> {
        let mut rpc = match self.rpc.take() {
            Some(rpc) => rpc,
            None => {
                let records = calls.connect(NFS, self.server).await?;
                RpcClient::new_with_auth(records, self.credential.clone(), opaque_auth::default())
            }
        };
        let answer = rpc.call::<_, Received>(nfs3::PROGRAM, VERSION, COMPOUND_PROCEDURE, arguments);
        let received = calls.call(NFS, name, VERSION, answer).await?;
        self.rpc = Some(rpc);
        Ok(received)
    }

    /// Reports that this client has no state of an earlier run to reclaim (RFC 8881 §18.51). Otherwise the server lets
    /// it open no file.
    pub(super) async fn complete_reclaim(&mut self, calls: &BoundedCalls) -> Result<(), NfsError> {
        self.opens_files = true;
        match self.reclaim(calls).await {
            Err(error) if error.is_lost_session() => self.renew_session(calls).await,
            other => other,
        }
    }

    async fn reclaim(&mut self, calls: &BoundedCalls) -> Result<(), NfsError> {
        let complete = Compound::new(RECLAIM_COMPLETE).with(RECLAIM_COMPLETE, |arguments| {
            // Not only for one file system.
            arguments.u32(0);
        });
        self.execute(calls, &complete, |results| results.next(RECLAIM_COMPLETE).map(drop)).await
    }

    /// Destroys the session and the client id. If the server does not answer, they expire with their lease.
    pub(super) async fn close(mut self, calls: &BoundedCalls) {
        if let Some(session) = self.session.take() {
            let destroy = Compound::new(DESTROY_SESSION).with(DESTROY_SESSION, |arguments| {
                arguments.fixed(&session.id);
            });
            let _ = self.execute(calls, &destroy, |results| results.next(DESTROY_SESSION).map(drop)).await;
        }
        self.destroy_client(calls).await;
    }

    async fn destroy_client(&mut self, calls: &BoundedCalls) {
        if let Some(id) = self.id.take() {
            let destroy = Compound::new(DESTROY_CLIENTID).with(DESTROY_CLIENTID, |arguments| {
                arguments.u64(id);
            });
            let _ = self.execute(calls, &destroy, |results| results.next(DESTROY_CLIENTID).map(drop)).await;
        }
    }
}

impl V4Session {
    /// SEQUENCE of the next call, in slot 0, whose answer the server need not keep (RFC 8881 §18.46).
    fn next_call(&self) -> Compound {
        Compound::new(SEQUENCE).with(SEQUENCE, |arguments| {
            arguments.fixed(&self.id).u32(self.sequence.wrapping_add(1)).u32(0).u32(0).u32(0);
        })
    }
}

fn read_sequence(results: &mut Results<'_>) -> Result<(), ReplyError> {
    let decoder = results.next(SEQUENCE)?;
    decoder.fixed(SESSION_ID_BYTES)?;
    decoder.fixed(5 * size_of::<u32>())?;
    Ok(())
}

/// EXCHANGE_ID (RFC 8881 §18.35) of a client with a unique name.
pub(super) fn exchange_id() -> Compound {
    let id = Uuid::new_v4();
    let (verifier, _) = id.as_u64_pair();
    Compound::new(EXCHANGE_ID).with(EXCHANGE_ID, |arguments| {
        arguments.u64(verifier).opaque(format!("targetwatch {id}").as_bytes());
        // No description of the implementation.
        arguments.u32(SUPPORTS_REFERRALS).u32(NO_PROTECTION).u32(0);
    })
}

/// Returns the client id, and the number of its first CREATE_SESSION.
pub(super) fn client_id(results: &mut Results<'_>) -> Result<(u64, u32), ReplyError> {
    let decoder = results.next(EXCHANGE_ID)?;
    let (id, sequence, _flags) = (decoder.u64()?, decoder.u32()?, decoder.u32()?);
    if decoder.u32()? != NO_PROTECTION {
        return Err(
            super::super::xdr::Malformed("the server protects the state of a client that asked for none").into()
        );
    }
    // Identity of the server: minor and major id, and scope. Its description is not needed.
    decoder.u64()?;
    decoder.opaque(OPAQUE_MAX_BYTES)?;
    decoder.opaque(OPAQUE_MAX_BYTES)?;
    Ok((id, sequence))
}

/// CREATE_SESSION (RFC 8881 §18.36) without callbacks.
fn create_session(client: u64, sequence: u32) -> Compound {
    Compound::new(CREATE_SESSION).with(CREATE_SESSION, |arguments| {
        arguments.u64(client).u32(sequence).u32(0);
        channel(arguments, REPLY_MAX_BYTES, OPERATIONS_MAX);
        channel(arguments, CALLBACK_MAX_BYTES, 2);
        // Stamp, machine name, user, group and groups of the callbacks.
        arguments.u32(CALLBACK_PROGRAM).u32(1).u32(AUTH_SYS).u32(0).opaque(b"").u32(0).u32(0).u32(0);
    })
}

/// `channel_attrs4`: padding, largest request and response, largest response that the server keeps, operations of a
/// compound, slots, and no RDMA.
fn channel(arguments: &mut Encoder, max_bytes: u32, operations: u32) {
    arguments.u32(0).u32(max_bytes).u32(max_bytes).u32(max_bytes).u32(operations).u32(1).u32(0);
}

/// Returns the id of the session, and the largest number of operations in a compound.
fn created_session(results: &mut Results<'_>) -> Result<([u8; SESSION_ID_BYTES], u32), ReplyError> {
    let decoder = results.next(CREATE_SESSION)?;
    let id = decoder.fixed(SESSION_ID_BYTES)?.try_into().unwrap_or_default();
    let (_sequence, _flags) = (decoder.u32()?, decoder.u32()?);
    // `channel_attrs4` of the requests: padding, largest request, response and response that the server keeps.
    decoder.fixed(4 * size_of::<u32>())?;
    Ok((id, decoder.u32()?.min(OPERATIONS_MAX)))
}
