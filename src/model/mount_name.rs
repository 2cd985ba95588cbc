//! Mount name: the directory of a target below the mount root.
//!
//! The name is the standard base64 (RFC 4648 §4, with padding) of a key that is derived from the export. It must be
//! exact to the byte, because backup images store the resulting path in their backing-file names. Standard base64 may
//! contain `/`. Such a name is a nested directory.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::target_spec::{PathKey, TargetSpec};

/// Longest directory name of a Linux file system, in bytes (`NAME_MAX`, limits.h).
pub const NAME_MAX_BYTES: usize = 255;

/// Reason why a mount name cannot be derived, or a directory is not a mount name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountNameError {
    /// The encoded key is longer than a directory name may be.
    #[error(
        "{key:?} is too long: its mount directory would have a name of {length} bytes, and the limit is {NAME_MAX_BYTES}. An exported path, or host and bucket together, may have at most 189 bytes"
    )]
    TooLong {
        /// The key.
        key: String,
        /// Length of the encoded name, in bytes.
        length: usize,
    },
    /// A directory whose name is not base64 of UTF-8 text.
    #[error("{0:?} is not a mount directory: its name below the mount root is not the base64 of an export")]
    NotEncoded(String),
}

/// Name of a target's directory below the mount root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MountName(String);

impl MountName {
    /// Derives the name of a target's directory.
    ///
    /// # Errors
    /// [`MountNameError::TooLong`] for a key of 190 bytes or more.
    pub fn derive(spec: &TargetSpec, path_key: PathKey) -> Result<Self, MountNameError> {
        let key = spec.mount_key(path_key);
        let name = STANDARD.encode(&key);
        if name.len() > NAME_MAX_BYTES {
            return Err(MountNameError::TooLong { key, length: name.len() });
        }
        Ok(Self(name))
    }

    /// Restores a name from the registry.
    ///
    /// # Errors
    /// [`MountNameError::NotEncoded`] when it is not a mount name.
    pub fn from_stored(name: &str) -> Result<Self, MountNameError> {
        decode(name).map(|_| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The mount path: the name below `root`.
    #[must_use]
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }

    /// Restores a name from a directory below `root`. Returns it with the key from which it was derived.
    ///
    /// # Errors
    /// [`MountNameError::NotEncoded`] when the directory is not the base64 of UTF-8 text.
    pub fn of_directory(directory: &Path, root: &Path) -> Result<(Self, String), MountNameError> {
        let key = decode_directory(directory, root)?;
        Ok((Self(STANDARD.encode(&key)), key))
    }

    /// Returns whether targets with these names cannot both be mounted: the directories are the same, or one is inside
    /// the other, where a mount would hide it.
    #[must_use]
    pub fn collides_with(&self, other: &Self) -> bool {
        // Most names have one component. A creation compares with every target, so this comes first.
        if self.0.split('/').next() != other.0.split('/').next() {
            return false;
        }
        let (mine, theirs) = (Path::new(&self.0), Path::new(&other.0));
        mine.starts_with(theirs) || theirs.starts_with(mine)
    }
}

impl fmt::Display for MountName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Returns the key from which a mount directory was derived. `directory` may be absolute below `root`, or only the
/// name.
///
/// # Errors
/// [`MountNameError::NotEncoded`] when it is not the base64 of UTF-8 text.
pub fn decode_directory(directory: &Path, root: &Path) -> Result<String, MountNameError> {
    let shown = || MountNameError::NotEncoded(directory.display().to_string());
    let relative = match directory.strip_prefix(root) {
        Ok(relative) => relative,
        // A path below another root: only its last component can be the name.
        Err(_) if directory.is_absolute() => Path::new(directory.file_name().ok_or_else(shown)?),
        Err(_) => directory,
    };
    let mut name = String::new();
    for component in relative.components() {
        let Component::Normal(part) = component else {
            return Err(shown());
        };
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part.to_str().ok_or_else(shown)?);
    }
    // A name that ends in `/` is the directory of the name without it.
    if name.len() % 4 == 3 && !name.ends_with('=') {
        name.push('/');
    }
    decode(&name).map_err(|_| shown())
}

fn decode(name: &str) -> Result<String, MountNameError> {
    let shown = || MountNameError::NotEncoded(name.to_owned());
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(shown());
    }
    let bytes = STANDARD.decode(name).map_err(|_| shown())?;
    String::from_utf8(bytes).map_err(|_| shown())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::export::{NfsExport, S3Endpoint, S3Location};
    use crate::model::{NfsTarget, S3Target};
    use proptest::prelude::*;

    fn nfs(text: &str) -> TargetSpec {
        TargetSpec::Nfs(NfsTarget { export: NfsExport::parse(text).expect(text), options: None, mode: None })
    }

    fn s3(endpoint: Option<&str>, bucket: &str) -> TargetSpec {
        let endpoint = endpoint.map(|url| S3Endpoint::parse(url).expect(url));
        TargetSpec::S3(S3Target {
            location: S3Location::new(endpoint, bucket).expect(bucket),
            immutable: false,
            secret_ref: None,
        })
    }

    #[test]
    fn known_exports_have_known_mount_names() {
        let ceph = Some("https://cephs3.triliodata.demo");
        for (spec, key, name) in [
            (nfs("192.168.1.34:/mnt/tvault/162"), PathKey::Path, "L21udC90dmF1bHQvMTYy"),
            (nfs("192.168.1.34:/mnt/tvault/tvm"), PathKey::Path, "L21udC90dmF1bHQvdHZt"),
            (nfs("x:/Trilio_Backup"), PathKey::Path, "L1RyaWxpb19CYWNrdXA="),
            (nfs("x:/home/kolla/"), PathKey::Path, "L2hvbWUva29sbGEv"),
            (nfs("[fd00::1]:/x"), PathKey::Path, "L3g="),
            (nfs("x:/b?"), PathKey::Path, "L2I/"),
            (s3(ceph, "trilio-qamanual"), PathKey::Path, "Y2VwaHMzLnRyaWxpb2RhdGEuZGVtby90cmlsaW8tcWFtYW51YWw="),
            (
                s3(ceph, "object-locked-cephs3-2"),
                PathKey::Path,
                "Y2VwaHMzLnRyaWxpb2RhdGEuZGVtby9vYmplY3QtbG9ja2VkLWNlcGhzMy0y",
            ),
            (s3(None, "backups"), PathKey::Path, "YmFja3Vwcw=="),
            (nfs("10.10.2.20:/upstream"), PathKey::Export, "MTAuMTAuMi4yMDovdXBzdHJlYW0="),
        ] {
            assert_eq!(MountName::derive(&spec, key).expect(name).as_str(), name);
        }
    }

    #[test]
    fn longest_key_has_189_bytes() {
        let longest = format!("x:/{}", "a".repeat(188));
        assert_eq!(MountName::derive(&nfs(&longest), PathKey::Path).expect("fits").as_str().len(), 252);
        let error = MountName::derive(&nfs(&format!("{longest}a")), PathKey::Path).expect_err("190 bytes");
        assert!(error.to_string().contains("at most 189 bytes"), "{error}");
    }

    #[test]
    fn same_and_nested_directories_collide() {
        let name = |path: &str| MountName::derive(&nfs(&format!("x:{path}")), PathKey::Path).expect(path);
        assert!(name("/b").collides_with(&name("/b")));
        assert!(name("/b?").collides_with(&name("/b?abc")), "L2I/ holds L2I/YWJj");
        assert!(!name("/b").collides_with(&name("/b/c")));
    }

    #[test]
    fn directory_is_decoded_with_and_without_root() {
        let root = Path::new("/var/trilio/triliovault-mounts");
        for (directory, key) in [
            ("/var/trilio/triliovault-mounts/L21udC90dmF1bHQvMTYy", "/mnt/tvault/162"),
            ("/var/triliovault-mounts/L21udC90dmF1bHQvMTYy", "/mnt/tvault/162"),
            ("L1RyaWxpb19CYWNrdXA=", "/Trilio_Backup"),
            ("/var/trilio/triliovault-mounts/L2I/", "/b?"),
            ("L2I", "/b?"),
        ] {
            assert_eq!(decode_directory(Path::new(directory), root).expect(directory), key);
        }
        for directory in ["", "/", "not base64!", "../L3g=", "/var/trilio/triliovault-mounts"] {
            assert!(decode_directory(Path::new(directory), root).is_err(), "{directory}");
        }
    }

    proptest! {
        #[test]
        fn name_decodes_to_its_key_and_stays_below_root(path in "/[ -~]{0,188}") {
            prop_assume!(!path.split('/').any(|component| component == ".."));
            let spec = nfs(&format!("nas:{path}"));
            let name = MountName::derive(&spec, PathKey::Path).expect("short enough");
            let root = Path::new("/var/trilio/triliovault-mounts");
            let below = name.below(root);
            prop_assert!(below.starts_with(root) && below != root);
            prop_assert!(below.components().all(|part| part != Component::ParentDir));
            if !name.as_str().contains("//") {
                prop_assert_eq!(decode_directory(&below, root).expect("decodes"), path);
            }
            prop_assert_eq!(MountName::from_stored(name.as_str()).expect("stored"), name);
        }
    }
}
