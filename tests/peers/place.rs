//! A place for one agent: a temporary directory with everything that belongs to it.

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;
use toml::{Table, Value};

use crate::daemon::in_time;
use crate::gateway::Keys;

/// The binary that is tested.
pub const BINARY: &str = env!("CARGO_BIN_EXE_targetwatch");

/// A directory with the configuration, registry, socket and credentials of one agent.
pub struct Place {
    directory: TempDir,
    /// Files of the host that are others for the agent and the commands of this place: of each the name
    /// in the directory, and what it stands for.
    own_files: Vec<(&'static str, &'static str)>,
    environment: Vec<(String, String)>,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Told {
    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("JSON was expected ({error}): {self:?}"))
    }
}

impl Place {
    /// A configuration in which nothing happens unless it is asked for, and only a bucket that is
    /// nearly full is a warning.
    pub fn new(keys: &Keys) -> Self {
        Self::with_access(keys, "")
    }

    /// The same, with further lines in the entry of the credentials.
    pub fn with_access(keys: &Keys, access: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("tw").tempdir().expect("a directory");
        let place = Self { directory, own_files: Vec::new(), environment: Vec::new() };
        std::fs::write(place.path("id"), &keys.access_key_id).expect("written");
        std::fs::write(place.path("secret"), &keys.secret_access_key).expect("written");
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(place.path("secret"), owner_only).expect("changed");
        let directory = place.directory.path().display();
        let base = format!(
            r#"
            [api]
            listen = ["unix:{directory}/api.sock"]
            [registry]
            url = "sqlite://{directory}/registry.db"
            [mounts]
            root = "{directory}/mounts"
            [probe]
            s3_interval = "1h"
            deadline = "10s"
            slow_after = "60s"
            [s3.canary]
            retention = "5s"
            [[s3.credentials]]
            location = "*"
            access_key_id_file = "{directory}/id"
            secret_access_key_file = "{directory}/secret"
            region = "us-east-1"
            {access}
            "#
        );
        place.write_config(&base);
        place
    }

    /// Makes a name an address of this host, for the agent and the commands of this place alone.
    pub fn add_host(&mut self, name: &str) {
        let own = std::fs::read_to_string("/etc/hosts").expect("read");
        std::fs::write(self.path("hosts"), format!("{own}\n127.0.0.1 {name}\n")).expect("written");
        self.own_files.push(("hosts", "/etc/hosts"));
    }

    /// Has names looked up in `/etc/hosts` alone, by the agent and the commands of this place: who tests
    /// may have no name server, and then nobody knows whether a name exists.
    pub fn know_hosts_alone(&mut self) {
        std::fs::write(self.path("nsswitch.conf"), "hosts: files\n").expect("written");
        self.own_files.push(("nsswitch.conf", "/etc/nsswitch.conf"));
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.path("api.sock")
    }

    /// Has the binary run with a variable of the environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Changes keys of the configuration; the others stay.
    pub fn configure(&self, changes: &str) {
        let text = std::fs::read_to_string(self.path("config.toml")).expect("read");
        let mut config: Table = text.parse().expect("TOML");
        merge(&mut config, changes.parse().expect("TOML"));
        self.write_config(&toml::to_string(&config).expect("TOML"));
    }

    fn write_config(&self, text: &str) {
        std::fs::write(self.path("config.toml"), text).expect("written");
    }

    /// The binary, with an environment that has nothing of the tester's own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.own_files.is_empty() {
            Command::new(BINARY)
        } else {
            // The name service has no other way to be told a name than the files that the host uses.
            let mut command = Command::new("unshare");
            let binds: String = self
                .own_files
                .iter()
                .map(|(own, of_host)| format!("mount --bind \"$0/{own}\" {of_host} && "))
                .collect();
            command.args(["--map-root-user", "--mount", "sh", "-c", &format!("{binds}exec \"$@\"")]);
            command.arg(self.directory.path()).arg(BINARY);
            command
        };
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .env("TARGETWATCH_API", format!("unix:{}", self.socket().display()))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the command line, which must end by itself.
    pub async fn run(&self, arguments: &[&str]) -> Told {
        let output =
            in_time(&format!("the end of {arguments:?}"), self.command(arguments).output()).await.expect("run");
        Told {
            code: output.status.code().expect("not ended by a signal"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// `targetwatch check s3` of a bucket, with this configuration.
    pub async fn check_s3(&self, endpoint: &str, bucket: &str, more: &[&str]) -> Told {
        let location = format!("{endpoint}/{bucket}");
        let config = self.path("config.toml");
        let mut arguments = vec!["check", "s3", &location, "--config", config.to_str().expect("text")];
        arguments.extend(more);
        self.run(&arguments).await
    }
}

fn merge(into: &mut Table, changes: Table) {
    for (key, value) in changes {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(changes)) => merge(into, changes),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The words that a sentence lacks.
pub fn mistakes<'a>(what: &str, sentence: &str, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let missing = words.into_iter().filter(|word| !sentence.contains(word));
    missing.map(|word| format!("{what}: {word:?} is missing in: {sentence}")).collect()
}
