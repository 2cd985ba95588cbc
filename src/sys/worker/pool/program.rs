//! Choice of the worker program.
//!
//! A worker starts at each probe of storage that hangs. Most of the work of a start is page faults, and most of those
//! are relocations of the program (ld.so(8)). So the separate program [`NAME`], which is 3 % of the size of this one,
//! starts with a third of the page faults. It is used if it is installed and speaks the same protocol. Otherwise, this
//! program is its own worker.
//!
//! Either program is started by a link in /proc to its open file. An upgrade replaces the files on disk, but the
//! workers of a running agent stay those of its build.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::process::Worker;
use super::settings::WorkerPoolSettings;
use crate::sys::children::ChildCensus;

/// File name of the separate worker program.
const NAME: &str = "targetwatch-probe-worker";

/// Directories of the separate worker program, relative to the directory of the main program: that of packages, and
/// that of a build.
const DIRECTORIES: [&str; 2] = ["../libexec/targetwatch", "."];

/// Maximum time for the first start of the separate worker program.
const FIRST_START: Duration = Duration::from_secs(2);

impl WorkerPoolSettings {
    /// Settings with the fastest worker program for `main_program`, which can be its own worker. Starts the separate
    /// program once to try it. Call it in a tokio runtime.
    pub async fn choose(main_program: PathBuf, census: &ChildCensus) -> Self {
        let own = Self::new(main_program);
        let Some(path) = find(&own.program) else {
            tracing::debug!("{NAME} is not installed. Probe workers start slower");
            return own;
        };
        match open(&path, &own, census).await {
            Ok(separate) => separate,
            Err(error) => {
                tracing::warn!(
                    "{} cannot be used: {error}. Install the {NAME} of the same build as targetwatch. Until then, probe workers start slower",
                    path.display()
                );
                own
            }
        }
    }
}

/// Path of the separate program that is installed beside `main_program`.
#[allow(clippy::disallowed_methods, reason = "a program file is on a local disk")]
fn find(main_program: &Path) -> Option<PathBuf> {
    let main_program = fs::canonicalize(main_program).ok()?;
    let beside = main_program.parent()?;
    DIRECTORIES.map(|directory| beside.join(directory).join(NAME)).into_iter().find(|path| path.is_file())
}

/// Opens the separate program at `path` and starts it once.
///
/// # Errors
/// When it cannot be started, or speaks another protocol.
#[allow(clippy::disallowed_methods, reason = "a program file is on a local disk")]
async fn open(path: &Path, own: &WorkerPoolSettings, census: &ChildCensus) -> io::Result<WorkerPoolSettings> {
    let file = File::open(path)?;
    let program = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    let settings = WorkerPoolSettings { program, held: Some(Arc::new(file)), ..own.clone() };
    let trying = async {
        let mut worker = Worker::start(&settings, census).await?;
        worker.ready().await?;
        worker.end();
        Ok(())
    };
    timeout(FIRST_START, trying).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?;
    Ok(settings)
}
