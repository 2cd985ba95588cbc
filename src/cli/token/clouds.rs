//! `clouds.yaml` and `secure.yaml`, the login files of OpenStack clients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::TokenError;
use super::values::Values;
use crate::sys::secret_file::read_public;

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    clouds: BTreeMap<String, Cloud>,
}

#[derive(Debug, Default, Deserialize)]
struct Cloud {
    #[serde(default)]
    auth: BTreeMap<String, Option<String>>,
    cacert: Option<String>,
    verify: Option<bool>,
}

/// Returns the login values of a cloud.
pub(super) async fn values(cloud: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<Values, TokenError> {
    let candidates = candidates(variable);
    for path in &candidates {
        let Some(file) = read(path).await? else { continue };
        let from = format!("cloud {cloud:?} of {}", path.display());
        let Some(found) = file.clouds.get(cloud) else {
            let known: Vec<&str> = file.clouds.keys().map(String::as_str).collect();
            let problem = format!("the file does not contain this cloud. It contains {}", known.join(", "));
            return Err(TokenError::Incomplete { from, problem });
        };
        let mut by_name = found.by_name();
        for name in ["secure.yaml", "secure.yml"] {
            if let Some(mut secure) = read(&path.with_file_name(name)).await? {
                by_name.extend(secure.clouds.remove(cloud).unwrap_or_default().by_name());
            }
        }
        return Ok(Values { from, by_name }.with_current_names());
    }
    let searched: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    let problem = format!("there is no clouds.yaml. Searched {}", searched.join(", "));
    Err(TokenError::Incomplete { from: format!("OS_CLOUD={cloud}"), problem })
}

impl Cloud {
    fn by_name(&self) -> BTreeMap<String, String> {
        let mut values: BTreeMap<String, String> =
            self.auth.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
        if let Some(path) = &self.cacert {
            values.insert("cacert".to_owned(), path.clone());
        }
        if self.verify == Some(false) {
            values.insert("insecure".to_owned(), "true".to_owned());
        }
        values
    }
}

fn candidates(variable: &impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(file) = variable("OS_CLIENT_CONFIG_FILE") {
        return vec![file.into()];
    }
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(Path::new(&variable("HOME")?).join(".config")));
    let directories =
        [Some(PathBuf::from(".")), config.map(|path| path.join("openstack")), Some("/etc/openstack".into())];
    let directories = directories.into_iter().flatten();
    directories.flat_map(|directory| ["clouds.yaml", "clouds.yml"].map(|name| directory.join(name))).collect()
}

/// Reads a file. Returns `None` if it does not exist.
async fn read(path: &Path) -> Result<Option<File>, TokenError> {
    let bytes = match read_public(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_absent => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&bytes);
    serde_saphyr::from_str(&text).map(Some).map_err(|error| {
        // The message of the parser may quote a line that contains a password.
        let line = error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
        TokenError::Incomplete {
            from: path.display().to_string(),
            problem: format!("not a valid clouds file{line}, expected clouds with their auth values"),
        }
    })
}
