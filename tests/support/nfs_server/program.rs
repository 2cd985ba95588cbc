//! The procedures of MOUNT and NFS, version 3 (RFC 1813).
//!
//! Files can be created, written, read and removed, by every user. Other procedures that would change something answer
//! `NFS3ERR_ROFS`. READLINK is not implemented.

use std::io::Cursor;
use std::path::Path;

use nfs3_types::mount::{MOUNT_PROGRAM, dirpath, export_node, exports, fhandle3, mountres3, mountres3_ok, mountstat3};
use nfs3_types::nfs3::{
    ACCESS3_EXECUTE, ACCESS3_LOOKUP, ACCESS3_READ, ACCESS3args, ACCESS3res, ACCESS3resok, CREATE3args, CREATE3res,
    CREATE3resok, FSF3_HOMOGENEOUS, FSF3_SYMLINK, FSINFO3args, FSINFO3res, FSINFO3resok, FSSTAT3args, FSSTAT3res,
    GETATTR3args, GETATTR3res, GETATTR3resok, LOOKUP3args, LOOKUP3res, LOOKUP3resok, NFS_PROGRAM, Nfs3Option,
    Nfs3Result, PATHCONF3args, PATHCONF3res, PATHCONF3resok, READ3args, READ3res, READ3resok, READDIR3args,
    READDIR3res, READDIR3resok, READDIRPLUS3args, READDIRPLUS3res, READDIRPLUS3resok, REMOVE3args, REMOVE3res,
    REMOVE3resok, WRITE3args, WRITE3res, WRITE3resok, cookieverf3, dirlist3, dirlistplus3, entry3, entryplus3,
    filename3, nfs_fh3, nfsstat3, nfstime3, stable_how, wcc_data, writeverf3,
};
use nfs3_types::rpc::auth_flavor;
use nfs3_types::xdr_codec::{BoundedList, List, Opaque, Pack, Unpack, Void};

use super::Behaviour;
use super::files::{self, Files};

/// Maximum size of one READ or WRITE that clients are offered, in bytes.
pub const TRANSFER_MAX_BYTES: u32 = 64 * 1024;

/// Maximum size of a directory listing in one reply, in bytes.
const LISTING_MAX_BYTES: u32 = 64 * 1024;

/// Size of a listing without its entries, in bytes: status, attributes, verifier and end.
const LISTING_OVERHEAD_BYTES: u32 = 4 + 88 + 8 + 4;

/// Why a procedure has no result.
pub enum ProcedureError {
    /// The program has no such procedure.
    NoSuchProcedure,
    /// The arguments cannot be decoded.
    BadArguments,
    /// The result cannot be encoded as XDR.
    CannotEncode,
}

type Encoded = Result<Vec<u8>, ProcedureError>;

/// Runs a procedure of MOUNT.
///
/// # Errors
/// [`ProcedureError`].
pub fn mount(procedure: u32, arguments: &[u8], files: &mut Files, behaviour: &Behaviour) -> Encoded {
    match MOUNT_PROGRAM::try_from(procedure).map_err(|_| ProcedureError::NoSuchProcedure)? {
        MOUNT_PROGRAM::MOUNTPROC3_NULL => Ok(Vec::new()),
        MOUNT_PROGRAM::MOUNTPROC3_MNT => {
            let path: dirpath<'_> = decode(arguments)?;
            encode(&open_export(path.0.as_ref(), files, behaviour))
        }
        MOUNT_PROGRAM::MOUNTPROC3_UMNT => decode::<dirpath<'_>>(arguments).map(|_| Vec::new()),
        MOUNT_PROGRAM::MOUNTPROC3_UMNTALL => Ok(Vec::new()),
        // The server does not remember which clients mounted. An export without groups is open to everybody.
        MOUNT_PROGRAM::MOUNTPROC3_DUMP => encode(&false),
        MOUNT_PROGRAM::MOUNTPROC3_EXPORT => {
            let node = |path: &str| export_node {
                ex_dir: dirpath(Opaque::owned(path.as_bytes().to_vec())),
                ex_groups: List::default(),
            };
            encode::<exports<'_, '_>>(&List(files.export_paths().map(node).collect()))
        }
    }
}

/// Opens an export. A missing export is refused like a forbidden one, as nfsd does.
fn open_export(path: &[u8], files: &mut Files, behaviour: &Behaviour) -> mountres3<'static> {
    let is_refused = match behaviour {
        Behaviour::RefuseExport(refused) => refused.as_bytes() == path,
        Behaviour::RequireReservedPort => true,
        _ => false,
    };
    if is_refused {
        return mountres3::Err(mountstat3::MNT3ERR_ACCES);
    }
    match files.open_export(path) {
        None => mountres3::Err(mountstat3::MNT3ERR_ACCES),
        Some(Err(_)) => mountres3::Err(mountstat3::MNT3ERR_SERVERFAULT),
        Some(Ok(root)) => mountres3::Ok(mountres3_ok {
            fhandle: fhandle3(root.data),
            auth_flavors: vec![auth_flavor::AUTH_UNIX as u32, auth_flavor::AUTH_NULL as u32],
        }),
    }
}

/// Runs a procedure of NFS.
///
/// # Errors
/// [`ProcedureError`].
pub fn nfs(procedure: u32, arguments: &[u8], files: &mut Files, behaviour: &Behaviour) -> Encoded {
    let procedure = NFS_PROGRAM::try_from(procedure).map_err(|_| ProcedureError::NoSuchProcedure)?;
    let refusal = match behaviour {
        Behaviour::StaleHandle => Some(nfsstat3::NFS3ERR_STALE),
        Behaviour::RequireReservedPort => Some(nfsstat3::NFS3ERR_PERM),
        _ => None,
    };
    let mut call = Call { files, refusal };
    let is_writable = *behaviour != Behaviour::ReadOnly;
    match procedure {
        NFS_PROGRAM::NFSPROC3_CREATE if is_writable => encode(&call.create(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_WRITE if is_writable => encode(&call.write(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_REMOVE if is_writable => encode(&call.remove(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_READ => {
            let mut result = call.read(&decode(arguments)?);
            if let (Nfs3Result::Ok(read), Behaviour::CorruptData) = (&mut result, behaviour) {
                read.data = Opaque::owned(vec![7; read.data.as_ref().len()]);
            }
            encode(&result)
        }
        NFS_PROGRAM::NFSPROC3_NULL => Ok(Vec::new()),
        NFS_PROGRAM::NFSPROC3_GETATTR => encode(&call.getattr(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_ACCESS => encode(&call.access(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_LOOKUP => encode(&call.lookup(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_READDIR => encode(&call.readdir(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_READDIRPLUS => encode(&call.readdirplus(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_FSSTAT => {
            let mut result = call.fsstat(&decode(arguments)?);
            if let (Nfs3Result::Ok(counts), Behaviour::Counts([total, free, available, inodes, inodes_free])) =
                (&mut result, behaviour)
            {
                (counts.tbytes, counts.fbytes, counts.abytes) = (*total, *free, *available);
                (counts.tfiles, counts.ffiles, counts.afiles) = (*inodes, *inodes_free, *inodes_free);
            }
            encode(&result)
        }
        NFS_PROGRAM::NFSPROC3_FSINFO => encode(&call.fsinfo(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_PATHCONF => encode(&call.pathconf(&decode(arguments)?)),
        NFS_PROGRAM::NFSPROC3_READLINK => Err(ProcedureError::NoSuchProcedure),
        NFS_PROGRAM::NFSPROC3_LINK => read_only(3),
        NFS_PROGRAM::NFSPROC3_RENAME => read_only(4),
        NFS_PROGRAM::NFSPROC3_SETATTR
        | NFS_PROGRAM::NFSPROC3_WRITE
        | NFS_PROGRAM::NFSPROC3_CREATE
        | NFS_PROGRAM::NFSPROC3_MKDIR
        | NFS_PROGRAM::NFSPROC3_SYMLINK
        | NFS_PROGRAM::NFSPROC3_MKNOD
        | NFS_PROGRAM::NFSPROC3_REMOVE
        | NFS_PROGRAM::NFSPROC3_RMDIR
        | NFS_PROGRAM::NFSPROC3_COMMIT => read_only(2),
    }
}

/// `NFS3ERR_ROFS` with this number of absent attributes. An absent attribute is one zero word.
fn read_only(attributes: usize) -> Encoded {
    let mut result = encode(&nfsstat3::NFS3ERR_ROFS)?;
    result.resize(result.len() + 4 * attributes, 0);
    Ok(result)
}

struct Call<'a> {
    files: &'a mut Files,
    /// Status of each call with a handle.
    refusal: Option<nfsstat3>,
}

/// A result whose failure consists of its status only.
fn reported<T, E: Default>(result: Result<T, nfsstat3>) -> Nfs3Result<T, E> {
    match result {
        Ok(done) => Nfs3Result::Ok(done),
        Err(status) => Nfs3Result::Err((status, E::default())),
    }
}

impl Call<'_> {
    /// The path and attributes of a handle. The handle of a removed file is stale.
    fn object(&self, handle: &nfs_fh3) -> Result<(std::path::PathBuf, nfs3_types::nfs3::fattr3), nfsstat3> {
        if let Some(status) = self.refusal {
            return Err(status);
        }
        let path = self.files.path(handle)?;
        match files::attributes(&path) {
            Ok(attributes) => Ok((path, attributes)),
            Err(nfsstat3::NFS3ERR_NOENT) => Err(nfsstat3::NFS3ERR_STALE),
            Err(status) => Err(status),
        }
    }

    fn getattr(&self, arguments: &GETATTR3args) -> GETATTR3res {
        match self.object(&arguments.object) {
            Ok((_, obj_attributes)) => Nfs3Result::Ok(GETATTR3resok { obj_attributes }),
            Err(status) => Nfs3Result::Err((status, Void)),
        }
    }

    fn access(&self, arguments: &ACCESS3args) -> ACCESS3res {
        reported(self.object(&arguments.object).map(|(_, attributes)| ACCESS3resok {
            obj_attributes: Nfs3Option::Some(attributes),
            access: arguments.access & (ACCESS3_READ | ACCESS3_LOOKUP | ACCESS3_EXECUTE),
        }))
    }

    fn lookup(&mut self, arguments: &LOOKUP3args<'_>) -> LOOKUP3res {
        reported(self.object(&arguments.what.dir).and_then(|(directory, attributes)| {
            let path = self.files.child(&directory, arguments.what.name.as_ref())?;
            Ok(LOOKUP3resok {
                obj_attributes: Nfs3Option::Some(files::attributes(&path)?),
                object: self.files.handle(path)?,
                dir_attributes: Nfs3Option::Some(attributes),
            })
        }))
    }

    fn create(&mut self, arguments: &CREATE3args<'_>) -> CREATE3res {
        reported(self.object(&arguments.where_.dir).and_then(|(directory, _)| {
            let path = self.files.child(&directory, arguments.where_.name.as_ref())?;
            files::create(&path)?;
            Ok(CREATE3resok {
                obj_attributes: Nfs3Option::Some(files::attributes(&path)?),
                obj: Nfs3Option::Some(self.files.handle(path)?),
                dir_wcc: wcc_data::default(),
            })
        }))
    }

    fn write(&self, arguments: &WRITE3args<'_>) -> WRITE3res {
        reported(self.object(&arguments.file).and_then(|(path, _)| {
            files::write(&path, arguments.offset, arguments.data.as_ref())?;
            let after = Nfs3Option::Some(files::attributes(&path)?);
            Ok(WRITE3resok {
                file_wcc: wcc_data { after, ..wcc_data::default() },
                count: arguments.count,
                committed: stable_how::FILE_SYNC,
                verf: writeverf3::default(),
            })
        }))
    }

    fn read(&self, arguments: &READ3args) -> READ3res<'static> {
        reported(self.object(&arguments.file).and_then(|(path, attributes)| {
            let data = files::read(&path, arguments.offset, arguments.count.min(TRANSFER_MAX_BYTES))?;
            let length = data.len() as u64;
            Ok(READ3resok {
                count: u32::try_from(length).unwrap_or(u32::MAX),
                eof: arguments.offset + length >= attributes.size,
                file_attributes: Nfs3Option::Some(attributes),
                data: Opaque::owned(data),
            })
        }))
    }

    fn remove(&mut self, arguments: &REMOVE3args<'_>) -> REMOVE3res {
        reported(self.object(&arguments.object.dir).and_then(|(directory, _)| {
            let path = self.files.child(&directory, arguments.object.name.as_ref())?;
            files::remove(&path)?;
            self.files.forget(&path);
            Ok(REMOVE3resok { dir_wcc: wcc_data::default() })
        }))
    }

    fn readdir(&mut self, arguments: &READDIR3args) -> READDIR3res<'static> {
        reported(self.object(&arguments.dir).and_then(|(directory, attributes)| {
            let build = |this: &mut Self, name: Vec<u8>, cookie| {
                let attributes = files::attributes(&this.files.child(&directory, &name)?)?;
                Ok(entry3 { fileid: attributes.fileid, name: filename3::from(name), cookie })
            };
            let (entries, eof) = self.list(&directory, arguments.cookie, arguments.count, build)?;
            Ok(READDIR3resok {
                dir_attributes: Nfs3Option::Some(attributes),
                cookieverf: cookieverf3::default(),
                reply: dirlist3 { entries, eof },
            })
        }))
    }

    fn readdirplus(&mut self, arguments: &READDIRPLUS3args) -> READDIRPLUS3res<'static> {
        reported(self.object(&arguments.dir).and_then(|(directory, attributes)| {
            let build = |this: &mut Self, name: Vec<u8>, cookie| {
                let path = this.files.child(&directory, &name)?;
                let attributes = files::attributes(&path)?;
                Ok(entryplus3 {
                    fileid: attributes.fileid,
                    name: filename3::from(name),
                    cookie,
                    name_attributes: Nfs3Option::Some(attributes),
                    name_handle: Nfs3Option::Some(this.files.handle(path)?),
                })
            };
            let (entries, eof) = self.list(&directory, arguments.cookie, arguments.maxcount, build)?;
            Ok(READDIRPLUS3resok {
                dir_attributes: Nfs3Option::Some(attributes),
                cookieverf: cookieverf3::default(),
                reply: dirlistplus3 { entries, eof },
            })
        }))
    }

    /// The entries after `cookie` that fit into `count` bytes, and whether they are the last ones.
    fn list<E: Pack>(
        &mut self,
        directory: &Path,
        cookie: u64,
        count: u32,
        mut build: impl FnMut(&mut Self, Vec<u8>, u64) -> Result<E, nfsstat3>,
    ) -> Result<(List<E>, bool), nfsstat3> {
        let room = count.min(LISTING_MAX_BYTES).saturating_sub(LISTING_OVERHEAD_BYTES);
        let mut entries = BoundedList::new(room as usize);
        let mut any = false;
        for (cookie, name) in (1..).zip(files::names(directory)?).skip_while(|(at, _)| *at <= cookie) {
            let entry = match build(self, name, cookie) {
                // It was removed after the names were read.
                Err(nfsstat3::NFS3ERR_NOENT) => continue,
                built => built?,
            };
            if entries.try_push(entry).is_err() {
                return if any { Ok((entries.into_inner(), false)) } else { Err(nfsstat3::NFS3ERR_TOOSMALL) };
            }
            any = true;
        }
        Ok((entries.into_inner(), true))
    }

    fn fsstat(&self, arguments: &FSSTAT3args) -> FSSTAT3res {
        reported(self.object(&arguments.fsroot).and_then(|(path, _)| files::capacity(&path)))
    }

    fn fsinfo(&self, arguments: &FSINFO3args) -> FSINFO3res {
        reported(self.object(&arguments.fsroot).map(|(_, attributes)| FSINFO3resok {
            obj_attributes: Nfs3Option::Some(attributes),
            rtmax: TRANSFER_MAX_BYTES,
            rtpref: TRANSFER_MAX_BYTES,
            rtmult: 1,
            wtmax: TRANSFER_MAX_BYTES,
            wtpref: TRANSFER_MAX_BYTES,
            wtmult: 1,
            dtpref: LISTING_MAX_BYTES,
            maxfilesize: i64::MAX.unsigned_abs(),
            time_delta: nfstime3 { seconds: 0, nseconds: 1 },
            properties: FSF3_SYMLINK | FSF3_HOMOGENEOUS,
        }))
    }

    fn pathconf(&self, arguments: &PATHCONF3args) -> PATHCONF3res {
        reported(self.object(&arguments.object).map(|(_, attributes)| PATHCONF3resok {
            obj_attributes: Nfs3Option::Some(attributes),
            linkmax: 1,
            name_max: 255,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        }))
    }
}

fn decode<T: Unpack>(arguments: &[u8]) -> Result<T, ProcedureError> {
    T::unpack(&mut Cursor::new(arguments)).map(|(decoded, _)| decoded).map_err(|_| ProcedureError::BadArguments)
}

fn encode<T: Pack>(result: &T) -> Encoded {
    let mut bytes = Vec::new();
    result.pack(&mut bytes).map_err(|_| ProcedureError::CannotEncode)?;
    Ok(bytes)
}
