//! A place for one agent: a temporary directory with everything that belongs to it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::process::Command;
use toml::{Table, Value};

use crate::daemon::in_time;
use crate::storage::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

/// The binary that is tested.
pub const BINARY: &str = env!("CARGO_BIN_EXE_targetwatch");

/// A directory with the configuration, registry, socket and credentials of one agent.
pub struct Place {
    directory: Arc<TempDir>,
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
    /// A configuration in which nothing happens unless it is asked for, and no warning is due.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("tw").tempdir().expect("a directory");
        let place = Self { directory: Arc::new(directory), environment: Vec::new() };
        std::fs::write(place.path("id"), ACCESS_KEY_ID).expect("written");
        std::fs::write(place.path("secret"), SECRET_ACCESS_KEY).expect("written");
        set_mode(&place.path("secret"), 0o600);
        let directory = place.directory.path().display();
        let base = format!(
            r#"
            [api]
            listen = ["127.0.0.1:0", "unix:{directory}/api.sock"]
            [registry]
            url = "sqlite://{directory}/registry.db"
            [mounts]
            root = "{directory}/mounts"
            mode = "none"
            [probe]
            nfs_interval = "1h"
            s3_interval = "1h"
            deadline = "10s"
            slow_after = "60s"
            nearly_full_percent = 100.0
            [s3.canary]
            retention = "7s"
            [[s3.credentials]]
            location = "*"
            access_key_id_file = "{directory}/id"
            secret_access_key_file = "{directory}/secret"
            "#
        );
        place.write_config(&base);
        place
    }

    /// A place whose NFS clients look for both programs at this port.
    pub fn with_nfs(port: u16) -> Self {
        let place = Self::new();
        place.configure(&format!("[mounts]\nnfs_options = \"nfsvers=3,port={port},mountport={port}\""));
        place
    }

    /// The directory, which lives as long as whoever has this.
    pub fn directory(&self) -> Arc<TempDir> {
        self.directory.clone()
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// The registry's file.
    pub fn registry(&self) -> PathBuf {
        self.path("registry.db")
    }

    /// The agent's socket, as `--api` wants it.
    pub fn socket(&self) -> String {
        format!("unix:{}", self.path("api.sock").display())
    }

    /// Has the binary run with a variable of the environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Changes keys of the configuration; the others stay.
    pub fn configure(&self, changes: &str) {
        let mut config: Table = self.config_text().parse().expect("TOML");
        merge(&mut config, changes.parse().expect("TOML"));
        self.write_config(&toml::to_string(&config).expect("TOML"));
    }

    /// Replaces the configuration by this text.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.config(), text).expect("written");
    }

    /// The configuration as it is.
    pub fn config_text(&self) -> String {
        std::fs::read_to_string(self.config()).expect("read")
    }

    /// The binary, with an environment that has nothing of the tester's own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("TARGETWATCH_API", self.socket())
            .envs(self.environment.iter().cloned())
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
}

/// Changes who may read a file.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("changed");
}

/// Every file in a directory, by name, with its content.
pub fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect();
    files.sort();
    files
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
