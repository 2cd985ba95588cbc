//! Members of etcd on loopback.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::SecretString;
use targetwatch::etcd::{EtcdClient, EtcdSettings, KeyValueStore as _, RangeRequest};
use tempfile::TempDir;
use tokio::time::Instant;

/// How long members may take to elect a leader on a loaded host.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster, which ends when it is dropped.
pub struct EtcdCluster {
    members: Vec<Child>,
    commands: Vec<Vec<String>>,
    pub urls: Vec<String>,
    directory: TempDir,
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

impl EtcdCluster {
    /// Starts members and waits for their leader.
    pub async fn start(count: usize, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ports = free_ports(2 * count);
        let (clients, peers) = ports.split_at(count);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let initial: Vec<String> = peers.iter().enumerate().map(|(n, port)| format!("m{n}={}", url(port))).collect();
        let command = |n: usize| {
            let (client, peer) = (url(&clients[n]), url(&peers[n]));
            let data = directory.path().join(format!("m{n}")).display().to_string();
            let own = [
                ("--name", format!("m{n}")),
                ("--data-dir", data),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", initial.join(",")),
            ];
            let own = own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
            own.chain(options.iter().map(|option| (*option).to_owned())).collect()
        };
        let commands: Vec<Vec<String>> = (0..count).map(command).collect();
        let members = commands.iter().map(|command| spawn(command, &directory)).collect();
        let cluster = Self { members, commands, urls: clients.iter().map(url).collect(), directory };
        cluster.until_ready().await;
        cluster
    }

    /// Waits until every member answers a linearizable read.
    pub async fn until_ready(&self) {
        for url in &self.urls {
            let deadline = Instant::now() + START_TIMEOUT;
            loop {
                let client = client_of(std::slice::from_ref(url)).await;
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
        let pid = i32::try_from(self.members[member].id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }

    /// Kills a member if it runs, and starts it again.
    pub fn restart(&mut self, member: usize) {
        self.kill(member);
        self.members[member] = spawn(&self.commands[member], &self.directory);
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
            .args(arguments)
            .output()
            .expect("etcdctl runs (Debian package etcd-client)");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("text");
        assert!(output.status.success(), "etcdctl {arguments:?}: {text}");
        text
    }

    /// The member that is the leader.
    pub fn leader(&self) -> usize {
        let fields = |member: usize| {
            let status = self.etcdctl(member, &["endpoint", "status", "--write-out=json"]);
            let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
            let status = &status[0]["Status"];
            status["header"]["member_id"] == status["leader"]
        };
        (0..self.urls.len()).find(|member| fields(*member)).expect("a leader")
    }
}

fn spawn(command: &[String], directory: &TempDir) -> Child {
    let log = std::fs::File::options().append(true).create(true).open(directory.path().join("log")).expect("a log");
    Command::new("etcd")
        .args(command)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("etcd runs (Debian package etcd-server)")
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
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_ports(1)[0];
        let servers: String = urls
            .iter()
            .enumerate()
            .map(|(n, url)| format!("  server m{n} {}\n", url.trim_start_matches("http://")))
            .collect();
        let idle = idle.as_millis();
        let configuration = format!(
            "defaults\n  mode http\n  timeout connect 2s\n  timeout client {idle}ms\n  timeout server 10s\n  timeout http-keep-alive {idle}ms\n\
             listen etcd\n  bind 127.0.0.1:{port}\n{servers}"
        );
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).expect("written");
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
