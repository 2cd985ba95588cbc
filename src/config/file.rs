//! Reading a small regular file, such as the configuration.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Largest accepted configuration file, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Reads a file.
///
/// # Errors
/// When it cannot be read, is not a regular file, or is larger than [`FILE_MAX_BYTES`].
pub(super) fn read(file: &Path) -> std::io::Result<String> {
    // With O_NONBLOCK, opening a FIFO does not block, so it cannot delay a reload.
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    opened.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(std::io::Error::other(format!("larger than {FILE_MAX_BYTES} bytes")));
    }
    Ok(text)
}
