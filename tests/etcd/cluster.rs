//! Members of etcd, on loopback or in network namespaces.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use secrecy::SecretString;
use targetwatch::etcd::{EtcdClient, EtcdError, EtcdSettings, KeyValueStore as _, RangeRequest, Txn, TxnOperation};
use tempfile::TempDir;
use tokio::time::Instant;

use super::network::ClusterNetwork;

/// How long members may take to elect a leader on a loaded host.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster, which ends when it is dropped.
pub struct EtcdCluster {
    members: Vec<Child>,
    commands: Vec<Vec<String>>,
    pub urls: Vec<String>,
    /// Authority of the members, which have TLS with it.
    ca_file: Option<PathBuf>,
    /// The network between the members, if they are in namespaces.
    network: Option<ClusterNetwork>,
    directory: TempDir,
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl EtcdCluster {
    /// Starts members and waits for their leader.
    pub async fn start(count: usize, options: &[&str]) -> Self {
        Self::start_as(count, options, None, None).await
    }

    /// The same with members in network namespaces, whose links can be cut.
    pub async fn start_in_namespaces(count: usize) -> Self {
        Self::start_as(count, &[], None, Some(ClusterNetwork::new(count))).await
    }

    /// The same with one member that has TLS.
    pub async fn start_with_tls(authority: &TestAuthority) -> Self {
        let options = ["--cert-file", authority.certificate.as_str(), "--key-file", authority.key.as_str()];
        Self::start_as(1, &options, Some(authority.ca_file.clone()), None).await
    }

    async fn start_as(
        count: usize,
        options: &[&str],
        ca_file: Option<PathBuf>,
        network: Option<ClusterNetwork>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ports = free_ports(2 * count);
        let address = |member: usize| match &network {
            Some(network) => (network.client(member), network.peer(member)),
            None => (on_loopback(ports[member]), on_loopback(ports[count + member])),
        };
        let scheme = if ca_file.is_some() { "https" } else { "http" };
        let client_url = |member: usize| format!("{scheme}://{}", address(member).0);
        let peer_url = |member: usize| format!("http://{}", address(member).1);
        let initial: Vec<String> = (0..count).map(|n| format!("m{n}={}", peer_url(n))).collect();
        let command = |n: usize| {
            let client = client_url(n);
            let data = directory.path().join(format!("m{n}")).display().to_string();
            let own = [
                ("--name", format!("m{n}")),
                ("--data-dir", data),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer_url(n)),
                ("--initial-advertise-peer-urls", peer_url(n)),
                ("--initial-cluster", initial.join(",")),
            ];
            let own = own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
            own.chain(options.iter().map(|option| (*option).to_owned())).collect()
        };
        let commands: Vec<Vec<String>> = (0..count).map(command).collect();
        let urls = (0..count).map(client_url).collect();
        let mut cluster = Self { members: Vec::new(), commands, urls, ca_file, network, directory };
        cluster.members = (0..count).map(|member| cluster.spawn(member)).collect();
        cluster.until_ready().await;
        cluster
    }

    /// The network of members in namespaces.
    pub fn network(&self) -> &ClusterNetwork {
        self.network.as_ref().expect("members in namespaces")
    }

    fn spawn(&self, member: usize) -> Child {
        let log = self.directory.path().join("log");
        let log = std::fs::File::options().append(true).create(true).open(log).expect("a log");
        let command = self.network.as_ref().map(|network| network.command(member, "etcd"));
        command
            .unwrap_or_else(|| Command::new("etcd"))
            .args(&self.commands[member])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("etcd runs (Debian package etcd-server)")
    }

    /// Kills all members and starts them with empty directories.
    pub fn set_up_anew(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
            let data = self.directory.path().join(format!("m{member}"));
            std::fs::remove_dir_all(data).expect("removed");
        }
        for member in 0..self.members.len() {
            self.restart(member);
        }
    }

    /// Waits until every member answers a linearizable read.
    pub async fn until_ready(&self) {
        for url in &self.urls {
            let deadline = Instant::now() + START_TIMEOUT;
            loop {
                let (endpoints, ca_file) = (vec![url.clone()], self.ca_file.clone());
                let settings = EtcdSettings { endpoints, ca_file, login: None };
                let client = EtcdClient::new(settings).await.expect("a client");
                match client.range(&RangeRequest::key("/ready")).await {
                    Ok(_) => break,
                    Err(error) => assert!(Instant::now() < deadline, "{url}: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// A client of all members.
    pub async fn client(&self) -> Arc<EtcdClient> {
        client_of(&self.urls).await
    }

    pub fn signal(&self, member: usize, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.members[member].id()).expect("a process id"));
        kill(pid, signal).expect("signalled");
        if signal == Signal::SIGSTOP {
            // Until all of its threads have stopped, the member may answer.
            waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT).expect("stopped");
        }
    }

    /// Kills a member if it runs, and starts it again.
    pub fn restart(&mut self, member: usize) {
        self.kill(member);
        self.members[member] = self.spawn(member);
    }

    pub fn kill(&mut self, member: usize) {
        self.members[member].kill().expect("killed");
        self.members[member].wait().expect("ended");
    }

    /// Runs etcdctl with one member, and returns what it prints.
    pub fn etcdctl(&self, member: usize, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(&self.urls[member])
            .args(self.ca_file.iter().flat_map(|file| ["--cacert".as_ref(), file.as_os_str()]))
            .args(arguments)
            .output()
            .expect("etcdctl runs (Debian package etcd-client)");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("text");
        assert!(output.status.success(), "etcdctl {arguments:?}: {text}");
        text
    }

    /// Writes until the database of a single member with a small quota is full.
    pub async fn fill(&self) {
        let (client, large) = (self.client().await, "x".repeat(1 << 20));
        let write = |number: usize| {
            let write = TxnOperation::put(format!("/large/{number}"), large.clone());
            Txn { success: vec![write], ..Txn::default() }
        };
        let mut error = None;
        for number in 0..8 {
            error = error.or(client.commit(&write(number)).await.err());
        }
        assert_eq!(error, Some(EtcdError::NoSpace));
    }

    /// Removes what filled the database, and disarms the alarm.
    pub async fn make_room(&self) {
        self.etcdctl(0, &["del", "--prefix", "/large"]);
        let newest = self.client().await.range(&RangeRequest::key("/large/0")).await.expect("answered");
        // Otherwise the space may become free after the defragmentation.
        self.etcdctl(0, &["compaction", "--physical=true", &newest.header.revision.0.to_string()]);
        self.etcdctl(0, &["defrag"]);
        self.etcdctl(0, &["alarm", "disarm"]);
    }

    fn status(&self, member: usize) -> serde_json::Value {
        let status = self.etcdctl(member, &["endpoint", "status", "--write-out=json"]);
        let mut status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status[0]["Status"].take()
    }

    /// The member that is the leader.
    pub fn leader(&self) -> usize {
        let is_leader = |member: &usize| {
            let status = self.status(*member);
            status["header"]["member_id"] == status["leader"]
        };
        (0..self.urls.len()).find(is_leader).expect("a leader")
    }
}

/// An authority, and a certificate of this host with its key, as files.
pub struct TestAuthority {
    pub ca_file: PathBuf,
    certificate: String,
    key: String,
    _directory: TempDir,
}

impl TestAuthority {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = || KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        let key = key();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let write = |name: &str, content: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).expect("written");
            path
        };
        let ca_file = write("ca.pem", authority.pem());
        let text = |path: PathBuf| path.display().to_string();
        let certificate = text(write("certificate.pem", certificate.pem()));
        let key = text(write("key.pem", key.serialize_pem()));
        Self { ca_file, certificate, key, _directory: directory }
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // A stopped process ends as well.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// A client of these members.
pub async fn client_of(urls: &[String]) -> Arc<EtcdClient> {
    let settings = EtcdSettings { endpoints: urls.to_vec(), ca_file: None, login: None };
    Arc::new(EtcdClient::new(settings).await.expect("a client"))
}

/// A client with a user.
pub async fn login(cluster: &EtcdCluster, user: &str, password: &str) -> EtcdClient {
    let login = Some((user.to_owned(), SecretString::from(password)));
    EtcdClient::new(EtcdSettings { endpoints: cluster.urls.clone(), ca_file: None, login }).await.expect("a client")
}

/// haproxy before all members, which ends when it is dropped.
pub struct HaProxy {
    process: Child,
    pub url: String,
    _directory: TempDir,
}

impl HaProxy {
    /// Starts haproxy, which closes connections that are idle for this time.
    pub async fn start(urls: &[String], idle: Duration) -> Self {
        let servers: String = urls
            .iter()
            .enumerate()
            .map(|(n, url)| format!("  server m{n} {}\n", url.trim_start_matches("http://")))
            .collect();
        let idle = idle.as_millis();
        Self::start_with(|port| {
            format!(
                "defaults\n  mode http\n  timeout connect 2s\n  timeout client {idle}ms\n  timeout server 10s\n  timeout http-keep-alive {idle}ms\n\
                 listen etcd\n  bind 127.0.0.1:{port}\n{servers}"
            )
        })
        .await
    }

    /// Starts haproxy with this configuration, which listens on the port.
    pub async fn start_with(configuration: impl FnOnce(u16) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_ports(1)[0];
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration(port)).expect("written");
        let process = Command::new("/usr/sbin/haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy runs (Debian package haproxy)");
        let deadline = Instant::now() + START_TIMEOUT;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "haproxy does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { process, url: format!("http://127.0.0.1:{port}"), _directory: directory }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
