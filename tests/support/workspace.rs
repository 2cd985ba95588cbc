//! A temporary directory with everything that belongs to one agent.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::process::Command;
use toml::{Table, Value};

use crate::daemon::with_timeout;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_targetwatch");

/// The access key id of the S3 server in this process.
pub const ACCESS_KEY_ID: &str = "AKIAINTEGRATIONTESTS";
/// Its secret access key, which must appear in no output.
pub const SECRET_ACCESS_KEY: &str = "integrationTestsSecretWithAnUnmistakableText";

/// The directory of one agent: configuration, registry, socket, and credentials.
pub struct Workspace {
    directory: Arc<TempDir>,
    /// Files that are bind-mounted over files of the host, only for the binary: name in the directory, path on the
    /// host.
    bind_mounts: Vec<(&'static str, &'static str)>,
    environment: Vec<(String, String)>,
}

/// The result of a command of the command line.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// Runs a command, which must end by itself.
    pub async fn of(command: &mut Command) -> Self {
        let output = with_timeout(&format!("the end of {:?}", command.as_std().get_args()), command.output())
            .await
            .expect("run");
        Self {
            code: output.status.code().expect("not ended by a signal"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Parses standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("expected JSON ({error}): {self:?}"))
    }
}

impl Workspace {
    /// A workspace without periodic probes, with limits that no healthy target exceeds.
    pub fn new() -> Self {
        Self::with_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY, "")
    }

    /// The same with these S3 credentials, and more keys for their entry in the configuration.
    pub fn with_credentials(access_key_id: &str, secret_access_key: &str, more_keys: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("tw").tempdir().expect("a directory");
        let workspace = Self { directory: Arc::new(directory), bind_mounts: Vec::new(), environment: Vec::new() };
        workspace.write("id", access_key_id);
        set_mode(&workspace.write("secret", secret_access_key), 0o600);
        let directory = workspace.directory.path().display();
        workspace.write_config(&format!(
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
            {more_keys}
            "#
        ));
        workspace
    }

    /// The directory itself, which exists until the last reference is dropped.
    pub fn directory(&self) -> Arc<TempDir> {
        self.directory.clone()
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in the directory, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// The registry's database file.
    pub fn registry(&self) -> PathBuf {
        self.path("registry.db")
    }

    /// The agent's socket as a value of `--api`.
    pub fn socket(&self) -> String {
        format!("unix:{}", self.path("api.sock").display())
    }

    /// Sets an environment variable for the binary.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Resolves a name to this host, only for the binary.
    pub fn add_host(&mut self, name: &str) {
        let hosts = std::fs::read_to_string("/etc/hosts").expect("read");
        self.write("hosts", format!("{hosts}\n127.0.0.1 {name}\n"));
        self.bind_mounts.push(("hosts", "/etc/hosts"));
    }

    /// Resolves names only by `/etc/hosts`, and only for the binary. Without a name server on the test machine, a
    /// lookup would time out instead of reporting that the name does not exist.
    pub fn resolve_by_hosts_file_only(&mut self) {
        self.write("nsswitch.conf", "hosts: files\n");
        self.bind_mounts.push(("nsswitch.conf", "/etc/nsswitch.conf"));
    }

    /// Hides `mount.nfs`, only for the binary.
    pub fn hide_mount_helper(&mut self) {
        std::fs::create_dir(self.path("empty")).expect("created");
        self.bind_mounts.push(("empty", "/sbin"));
    }

    /// Changes keys of the configuration and keeps the others.
    pub fn configure(&self, changes: &str) {
        let mut config: Table = self.config_text().parse().expect("TOML");
        merge(&mut config, changes.parse().expect("TOML"));
        self.write_config(&toml::to_string(&config).expect("TOML"));
    }

    /// Replaces the configuration.
    pub fn write_config(&self, text: &str) {
        self.write("config.toml", text);
    }

    /// The text of the configuration.
    pub fn config_text(&self) -> String {
        std::fs::read_to_string(self.config()).expect("read")
    }

    /// A command of the binary that inherits nothing from the environment of the tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.bind_mounts.is_empty() {
            Command::new(BINARY)
        } else {
            // The C library's resolver reads only these fixed paths.
            let binds: String = self
                .bind_mounts
                .iter()
                .map(|(name, host_path)| format!("mount --bind \"$0/{name}\" {host_path} && "))
                .collect();
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c", &format!("{binds}exec \"$@\"")]);
            command.arg(self.directory.path()).arg(BINARY);
            command
        };
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
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
    pub async fn run(&self, arguments: &[&str]) -> CommandOutput {
        CommandOutput::of(&mut self.command(arguments)).await
    }

    /// Runs `targetwatch check s3` for a bucket with this configuration.
    pub async fn check_s3(&self, endpoint: &str, bucket: &str, more_arguments: &[&str]) -> CommandOutput {
        let location = format!("{endpoint}/{bucket}");
        let config = self.config();
        let mut arguments = vec!["check", "s3", &location, "--config", config.to_str().expect("text")];
        arguments.extend(more_arguments);
        self.run(&arguments).await
    }
}

/// Changes the permissions of a file.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("changed");
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
