//! Files with one secret each. They are read completely, within limits of size and time.
//!
//! A file that other users may read is used with a warning, because refusing it would leave a host without its agent. A
//! file that other users may change is refused, because they control its content. Anything but a regular file is
//! refused too, because reading a pipe would wait for its writer.

use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::file_read::{READ_TIMEOUT, read_files};

/// Maximum size of a file, in bytes. A chain of certificates has about 10,000.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Mode bits that let a user other than the owner read the file.
const OTHERS_MAY_READ: u32 = 0o044;

/// Mode bits that let users outside the file's group read it.
const EVERYBODY_MAY_READ: u32 = 0o004;

/// Mode bits that let anybody execute the file.
const MAY_EXECUTE: u32 = 0o111;

/// Mode bits that let a user other than the owner change the file.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// Directory in which systemd keeps the credentials of units (`LoadCredential=`).
const UNIT_CREDENTIALS: &str = "/run/credentials";

/// Why a file cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{path} {problem}", path = path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The problem, as the end of a sentence that begins with the path.
    pub problem: String,
    /// Whether the file does not exist.
    pub is_absent: bool,
    /// Whether this process may not read the file.
    pub is_denied: bool,
}

/// Reads a secret: the file's text without surrounding white space.
///
/// # Errors
/// [`FileError`] when the file cannot be read or is empty.
pub async fn read_secret(path: &Path) -> Result<SecretString, FileError> {
    let bytes = read_private(path).await?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(path, "is not valid UTF-8, expected a secret"))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(wrong(path, "is empty, expected a secret"));
    }
    Ok(SecretString::from(secret))
}

/// Reads a private file, and logs a warning when others may read it.
///
/// # Errors
/// [`FileError`] when the file cannot be read, or others may change it.
pub async fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    let (bytes, warning) = read_private_with_warning(path).await?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(bytes)
}

/// Reads a private file. Also returns a warning if others may read it.
///
/// # Errors
/// As [`read_private`].
pub async fn read_private_with_warning(path: &Path) -> Result<(Vec<u8>, Option<String>), FileError> {
    let (bytes, mode) = read(path).await?;
    if mode & OTHERS_MAY_WRITE != 0 {
        let problem = format!("is not used, because others may change it: chmod 0600 {}", path.display());
        return Err(wrong(path, &problem));
    }
    let warning = || format!("others may read {path}: chmod 0600 {path}", path = path.display());
    Ok((bytes, others_may_read(path, mode).then(warning)))
}

/// Returns the warning about a file for which [`read_with_exposure`] returns true.
#[must_use]
pub fn exposure_warning(path: &Path) -> String {
    let path = path.display();
    format!(
        "{path} contains the secret of the credentials, and other users of this host can read or change it: chmod 0600 {path}"
    )
}

/// Whether a file is a credential that systemd passes to a unit. It exists only while the unit runs.
#[must_use]
pub fn is_unit_credential(path: &Path) -> bool {
    let here = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
    path.starts_with(UNIT_CREDENTIALS) || here.is_some_and(|directory| path.starts_with(directory))
}

/// Reads a file, and returns whether users other than its owner may read or change it.
///
/// # Errors
/// [`FileError`] when the file cannot be read.
pub async fn read_with_exposure(path: &Path) -> Result<(Vec<u8>, bool), FileError> {
    let (bytes, mode) = read(path).await?;
    Ok((bytes, is_exposed(path, mode)))
}

fn is_exposed(path: &Path, mode: u32) -> bool {
    others_may_read(path, mode) || mode & OTHERS_MAY_WRITE != 0
}

/// A secret with its id, each from a file.
pub struct SecretWithId {
    /// The id.
    pub id: Vec<u8>,
    /// The secret.
    pub secret: Vec<u8>,
    /// Whether users other than its owner may read or change the file with the secret.
    pub is_exposed: bool,
}

/// Reads the file of a secret and that of its id. If they are in the same directory, one thread reads both within the
/// limit of one, because each call of a thread costs more than the read.
///
/// # Errors
/// [`FileError`] when one of them cannot be read, or is not read in time.
pub async fn read_secret_with_id(secret: &Path, id: &Path) -> Result<SecretWithId, FileError> {
    // One that does not answer must not occupy a thread for each of the others.
    if secret.parent() != id.parent() {
        let id = read_public(id).await?;
        let (secret, is_exposed) = read_with_exposure(secret).await?;
        return Ok(SecretWithId { id, secret, is_exposed });
    }
    let paths = (id.to_owned(), secret.to_owned());
    let reading = read_files(secret, READ_TIMEOUT, move || (read_whole(&paths.0), read_whole(&paths.1)));
    let Some((read_id, read_secret)) = reading.await else {
        let problem = format!("or {} was not read within {} s", id.display(), READ_TIMEOUT.as_secs());
        return Err(wrong(secret, &problem));
    };
    let (id, _) = read_id.map_err(|error| unreadable(id, &error))?;
    let (content, mode) = read_secret.map_err(|error| unreadable(secret, &error))?;
    Ok(SecretWithId { id, secret: content, is_exposed: is_exposed(secret, mode) })
}

/// Whether the mode of a file lets others read it. systemd grants the unit's user access to a credential by an
/// access control list, whose mask replaces the group bits of the mode (acl(5)).
fn others_may_read(path: &Path, mode: u32) -> bool {
    mode & if is_unit_credential(path) { EVERYBODY_MAY_READ } else { OTHERS_MAY_READ } != 0
}

/// Reads a file without a secret, such as a certificate.
///
/// # Errors
/// [`FileError`] when the file cannot be read.
pub async fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path).await.map(|(bytes, _)| bytes)
}

/// Verifies that a file is a program that only its owner may change. The agent runs it with its own rights.
///
/// # Errors
/// [`FileError`] when the file does not exist, is not executable, or others may change it.
pub async fn verify_program(path: &Path) -> Result<(), FileError> {
    #[allow(clippy::disallowed_methods, reason = "called on a thread that may hang")]
    let metadata = within_limit(path, |path| std::fs::metadata(path)).await?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() || mode & MAY_EXECUTE == 0 {
        return Err(wrong(path, "is not an executable file"));
    }
    if mode & OTHERS_MAY_WRITE != 0 {
        let problem = format!("is not run, because others may change it: chmod go-w {}", path.display());
        return Err(wrong(path, &problem));
    }
    Ok(())
}

async fn read(path: &Path) -> Result<(Vec<u8>, u32), FileError> {
    within_limit(path, read_whole).await
}

async fn within_limit<T: Send + 'static>(
    path: &Path,
    reading: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, FileError> {
    let read = path.to_owned();
    match read_files(path, READ_TIMEOUT, move || reading(&read)).await {
        Some(outcome) => outcome.map_err(|error| unreadable(path, &error)),
        None => Err(wrong(path, &format!("was not read within {} s", READ_TIMEOUT.as_secs()))),
    }
}

fn read_whole(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    // Otherwise opening a pipe would wait for its writer. A pipe is refused below.
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mode = metadata.permissions().mode();
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {FILE_MAX_BYTES} bytes")));
    }
    Ok((bytes, mode))
}

fn unreadable(path: &Path, error: &io::Error) -> FileError {
    FileError {
        is_absent: error.kind() == io::ErrorKind::NotFound,
        is_denied: error.kind() == io::ErrorKind::PermissionDenied,
        ..wrong(path, &format!("cannot be read: {error}"))
    }
}

fn wrong(path: &Path, problem: &str) -> FileError {
    FileError { path: path.to_owned(), problem: problem.to_owned(), is_absent: false, is_denied: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[tokio::test]
    async fn secret_is_read_with_its_id_and_an_error_names_the_file() {
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let secret = directories[0].path().join("secret");
        for id in [directories[0].path().join("id"), directories[1].path().join("id")] {
            std::fs::write(&secret, "one").expect("written");
            let error = read_secret_with_id(&secret, &id).await.err().expect("no id");
            assert!(error.is_absent && error.path == id, "{error}");
            std::fs::write(&id, "two").expect("written");
            for (mode, is_exposed) in [(0o600, false), (0o644, true)] {
                std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).expect("set");
                let read = read_secret_with_id(&secret, &id).await.expect("both");
                assert_eq!((&*read.secret, &*read.id, read.is_exposed), (&b"one"[..], &b"two"[..], is_exposed));
            }
            std::fs::remove_file(&secret).expect("removed");
            let error = read_secret_with_id(&secret, &id).await.err().expect("no secret");
            assert!(error.is_absent && error.path == secret, "{error}");
        }
    }

    #[tokio::test]
    async fn secret_is_trimmed_and_must_not_be_empty() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        let write = |text: &[u8]| std::fs::write(&path, text).expect("written");
        write(b"  s3cret value\n");
        let secret = read_secret(&path).await.expect("a secret");
        assert_eq!(secret.expose_secret(), "s3cret value");
        assert!(!format!("{secret:?}").contains("s3cret"), "shown by Debug");
        for (content, expected) in [(&b" \n"[..], "is empty"), (b"\xff", "is not valid UTF-8")] {
            write(content);
            let error = read_secret(&path).await.expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains("secret"), "{error}");
        }
        write(&vec![b'x'; FILE_MAX_BYTES as usize + 1]);
        let error = read_secret(&path).await.expect_err("too large").to_string();
        assert!(error.contains("larger than 1048576 bytes"), "{error}");
    }

    #[tokio::test]
    async fn program_must_be_executable_and_only_its_owner_may_change_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("program");
        assert!(verify_program(&path).await.expect_err("absent").is_absent);
        std::fs::write(&path, "").expect("written");
        for (mode, problem) in [
            (0o755, None),
            (0o700, None),
            (0o644, Some("is not an executable file")),
            (0o775, Some("others may change it: chmod go-w")),
            (0o757, Some("others may change it: chmod go-w")),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            let found = verify_program(&path).await.err().map(|error| error.to_string());
            assert_eq!(found.is_some(), problem.is_some(), "{mode:o}: {found:?}");
            assert!(found.unwrap_or_default().contains(problem.unwrap_or_default()), "{mode:o}");
        }
        assert!(verify_program(directory.path()).await.is_err(), "a directory");
    }

    #[tokio::test]
    async fn secret_is_refused_when_others_may_change_it_or_it_is_not_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        std::fs::write(&path, "s3cret").expect("written");
        for (mode, is_used) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false), (0o666, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            let outcome = read_secret(&path).await;
            assert_eq!(outcome.is_ok(), is_used, "{mode:o}");
            if let Err(error) = outcome {
                assert!(error.to_string().contains("others may change it: chmod 0600"), "{error}");
            }
        }
        std::fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let since = std::time::Instant::now();
        for path in [path.as_path(), directory.path()] {
            let error = read_secret(path).await.expect_err("no file").to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
        assert!(since.elapsed() < READ_TIMEOUT, "{:?}", since.elapsed());
    }
}
