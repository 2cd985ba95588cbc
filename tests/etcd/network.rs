//! Members of a cluster in network namespaces, and the links between them.
//!
//! ```text
//!                link                     link
//! agents, tests ────── namespace of m0 ─────────┐
//!               ────── namespace of m1 ───────── switch, in a namespace of its own
//!               ────── namespace of m2 ─────────┘
//! ```
//!
//! Each link can be cut. Its packets are then lost without an error, as when a cable between two switches is unplugged.
//! The namespaces have no names, so the kernel removes them and all links when the test process ends, even if it is
//! killed. Requires root.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, unshare};

/// Ports of members, which have addresses of their own.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The switch and the members, which exist until it is dropped.
pub struct ClusterNetwork {
    switch: Namespace,
    members: Vec<Namespace>,
    /// Network of the links to agents, a part of the one for benchmarks (RFC 2544).
    clients: [u8; 3],
}

/// A network namespace without a name.
struct Namespace(File);

impl Namespace {
    /// Creates a namespace. The thread that enters it ends at once.
    fn new() -> Self {
        let create = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root can create network namespaces");
            File::open("/proc/thread-self/ns/net").expect("the namespace")
        };
        let namespace = Self(std::thread::spawn(create).join().expect("created"));
        namespace.ip("link set lo up");
        namespace
    }

    /// Path of the namespace, also for other processes.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// A command that starts a program in this namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs `ip` with these arguments in this namespace.
    fn ip(&self, arguments: &str) {
        run(self.command("ip"), arguments);
    }
}

fn run(mut command: Command, arguments: &str) {
    let output = command.args(arguments.split(' ')).output().expect("ip and nsenter run");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl ClusterNetwork {
    /// Creates the namespaces and the links.
    pub fn new(members: usize) -> Self {
        // Other test processes of this host are unlikely to have the same.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let [low, ..] = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).to_le_bytes();
        let network = Self {
            switch: Namespace::new(),
            members: (0..members).map(|_| Namespace::new()).collect(),
            clients: [198, 18, low],
        };
        network.switch.ip("link add switch type bridge");
        network.switch.ip("link set switch up");
        for member in 0..members {
            network.connect(member);
        }
        network
    }

    fn connect(&self, member: usize) {
        let (namespace, peer) = (&self.members[member], self.peer(member).ip());
        namespace.ip(&format!("link add peers type veth peer name m{member} netns {}", self.switch.path()));
        namespace.ip(&format!("addr add {peer}/24 dev peers"));
        namespace.ip("link set peers up");
        self.switch.ip(&format!("link set m{member} master switch up"));
        // The other end is in the namespace of the tests, where names of links must be unique.
        let ([a, b, c], ours) = (self.clients, format!("etcd{}-{member}", self.clients[2]));
        let client = self.client(member).ip();
        run(Command::new("ip"), &format!("link add {ours} type veth peer name clients netns {}", namespace.path()));
        run(Command::new("ip"), &format!("addr add {a}.{b}.{c}.{}/30 dev {ours}", 4 * member + 1));
        run(Command::new("ip"), &format!("link set {ours} up"));
        namespace.ip(&format!("addr add {client}/30 dev clients"));
        namespace.ip("link set clients up");
    }

    /// Address of a member for agents.
    pub fn client(&self, member: usize) -> SocketAddr {
        let ([a, b, c], number) = (self.clients, u8::try_from(4 * member + 2).expect("few members"));
        (Ipv4Addr::new(a, b, c, number), CLIENT_PORT).into()
    }

    /// Address of a member for the other members.
    pub fn peer(&self, member: usize) -> SocketAddr {
        let number = u8::try_from(member + 1).expect("few members");
        (Ipv4Addr::new(10, 0, 0, number), PEER_PORT).into()
    }

    /// A command that starts a program in the namespace of a member.
    pub fn command(&self, member: usize, program: &str) -> Command {
        self.members[member].command(program)
    }

    /// Cuts the link of a member to the other members, or connects all again.
    pub fn isolate(&self, isolated: Option<usize>) {
        for member in 0..self.members.len() {
            let state = if isolated == Some(member) { "down" } else { "up" };
            self.switch.ip(&format!("link set m{member} {state}"));
        }
    }

    /// Cuts the links of all members to agents, or connects them again.
    pub fn cut_clients_off(&self, is_cut: bool) {
        for member in &self.members {
            member.ip(if is_cut { "link set clients down" } else { "link set clients up" });
        }
    }
}
