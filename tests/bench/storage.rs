//! Storage of the targets: a healthy server, a silent one, a port without a listener, and a name without an address.

use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::Workspace;
use crate::http::free_address;
use crate::support::nfs_server::{Behaviour, NfsExportFixture, NfsServer};

/// How a target's storage behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Healthy,
    Silent,
    Refusing,
    Unresolvable,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Silent, Self::Refusing, Self::Unresolvable];

    /// Name in paths and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Silent => "silent",
            Self::Refusing => "refusing",
            Self::Unresolvable => "unresolvable",
        }
    }

    /// Possible reason codes of a target on this storage. Empty if the target is available.
    pub const fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Healthy => &[],
            Self::Silent => &["response_timed_out"],
            Self::Refusing => &["connection_refused"],
            // The second reason occurs without a name server.
            Self::Unresolvable => &["name_not_resolved", "name_lookup_timed_out"],
        }
    }
}

/// The running servers.
pub struct Storage {
    healthy: NfsServer,
    silent: NfsServer,
    refusing_port: u16,
    _exported: TempDir,
}

impl Storage {
    /// Starts the servers. The healthy one has `exports` exports.
    pub async fn start(exports: usize) -> anyhow::Result<Self> {
        let exported = tempfile::tempdir()?;
        let export = |number| NfsExportFixture { path: path(Kind::Healthy, number), directory: exported.path().into() };
        let healthy = NfsServer::start((0..exports).map(export).collect()).await?;
        let silent = NfsServer::start(Vec::new()).await?;
        silent.set_behaviour(Behaviour::Silent);
        Ok(Self { healthy, silent, refusing_port: free_address()?.port(), _exported: exported })
    }

    /// A workspace whose daemon probes these servers at an interval.
    pub fn workspace(&self, interval: Duration) -> anyhow::Result<Workspace> {
        Workspace::new(&format!("[probe]\nnfs_interval = \"{}s\"\n{}", interval.as_secs(), self.configuration()))
    }

    fn configuration(&self) -> String {
        let ports = [
            (Kind::Healthy, self.healthy.port()),
            (Kind::Silent, self.silent.port()),
            (Kind::Refusing, self.refusing_port),
            (Kind::Unresolvable, self.refusing_port),
        ];
        let section = |(kind, port): (Kind, u16)| {
            let name = kind.name();
            format!(
                "[[mounts.nfs]]\nlocation = \"*:/{name}/*\"\noptions = \"nfsvers=3,port={port},mountport={port}\"\n"
            )
        };
        ports.map(section).concat()
    }
}

/// An export on this kind of storage.
pub fn export(kind: Kind, number: usize) -> String {
    // RFC 6761 §6.4: names below .invalid never exist.
    let host = if kind == Kind::Unresolvable { "nowhere.invalid" } else { "127.0.0.1" };
    format!("{host}:{}", path(kind, number))
}

fn path(kind: Kind, number: usize) -> String {
    format!("/{}/{number:03}", kind.name())
}
