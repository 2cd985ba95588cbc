//! The files that the configuration names: whether the agent can use them, and whether others can read their secrets.
//! No content is printed.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tokio::time::timeout;

use super::result::{HostCheck, HostCheckOutcome};
use crate::api::Auth;
use crate::config::{FileKind, NamedFile, Settings};
use crate::notify;
use crate::sys::secret_file::{
    FileError, exposure_warning, is_unit_credential, read_private_with_warning, read_public, read_with_exposure,
    verify_program,
};
use crate::tls::{ServerTls, read_authorities};

/// Deadline of the check of all contents. With the reading of the files before it, it is below the deadline of a check.
const CONTENT_DEADLINE: Duration = Duration::from_secs(3);

pub(super) async fn check(settings: &Settings) -> HostCheck {
    let files = settings.files();
    if files.is_empty() {
        return HostCheck::skipped("the configuration names no file");
    }
    let mut checked = HostCheck::passed(match files.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    });
    let mut unread = Vec::new();
    // All at once, because each of them may be on storage that does not answer.
    let warnings = join_all(files.iter().map(warning)).await;
    for (file, warning) in files.iter().zip(warnings) {
        match warning {
            Ok(warning) => {
                if let Some(warning) = warning {
                    checked.add(HostCheckOutcome::Warning, format!("{}: {warning}", file.key));
                }
            }
            Err(error) => {
                unread.push(file.path.display().to_string());
                let (severity, message) = unusable(&error);
                checked.add(severity, format!("{}: {message}", file.key));
            }
        }
    }
    // The problems of files that cannot be read are known.
    let is_new = |problem: &String| !unread.iter().any(|path| problem.contains(path));
    match timeout(CONTENT_DEADLINE, content_problems(settings)).await {
        Ok((problems, warning)) => {
            if let Some(warning) = warning {
                checked.add(HostCheckOutcome::Warning, warning);
            }
            for problem in problems.into_iter().filter(is_new) {
                checked.add(HostCheckOutcome::Failed, problem);
            }
        }
        Err(_) => {
            let late = format!("the content of the files was not verified within {} s", CONTENT_DEADLINE.as_secs());
            checked.add(HostCheckOutcome::Unknown, late);
        }
    }
    checked
}

/// Reads a file, and returns a warning about its mode.
async fn warning(file: &NamedFile) -> Result<Option<String>, FileError> {
    match file.kind {
        FileKind::Program => verify_program(&file.path).await.map(|()| None),
        FileKind::Public => read_public(&file.path).await.map(|_| None),
        FileKind::Secret => read_private_with_warning(&file.path).await.map(|(_, warning)| warning),
        FileKind::BucketSecret => {
            let (_, is_exposed) = read_with_exposure(&file.path).await?;
            Ok(is_exposed.then(|| exposure_warning(&file.path)))
        }
    }
}

fn unusable(error: &FileError) -> (HostCheckOutcome, String) {
    if error.is_absent && is_unit_credential(&error.path) {
        let message = format!(
            "{error}. systemd provides it only while the unit runs: check LoadCredential= of the unit, and start it"
        );
        return (HostCheckOutcome::Unknown, message);
    }
    if error.is_denied {
        return (HostCheckOutcome::Unknown, format!("{error}: run the command as root or as the agent's user"));
    }
    (HostCheckOutcome::Failed, error.to_string())
}

/// Loads the files as the agent does. Returns what is wrong with their content, and a warning about the agent's
/// certificate.
async fn content_problems(settings: &Settings) -> (Vec<String>, Option<String>) {
    let (mut problems, mut warning) = (Vec::new(), None);
    if let Err(error) = Auth::load(&settings.api).await {
        problems.push(error.to_string());
    }
    if let Some(tls) = &settings.api.tls {
        match ServerTls::load(tls.clone()).await {
            Ok(tls) => warning = tls.expiry_warning(Timestamp::now()).map(|warning| format!("[api.tls]: {warning}")),
            Err(error) => problems.push(format!("[api.tls]: {error}")),
        }
    }
    if let Err(error) = notify::verify(&settings.notify).await {
        problems.push(error.to_string());
    }
    for rule in &settings.agent.s3_access {
        if let Some(ca_bundle) = &rule.ca_bundle
            && let Err(error) = read_authorities(ca_bundle).await
        {
            let problem = format!("[[s3.credentials]] ca_bundle: {error}");
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    (problems, warning)
}
