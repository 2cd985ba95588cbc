//! Commands: a program is run for each notification, with the facts in its environment and the JSON on its standard
//! input. It is never run by a shell, and never twice for one notification.

use uuid::Uuid;

use super::attempt::AttemptError;
use super::notification::Notification;
use crate::model::settings::CommandSettings;
use crate::sys::secret_file::{FileError, verify_program};
use crate::sys::{ChildCensus, CommandInput, run_bounded_with};

/// Largest part of the output of a failed command that is logged, in characters.
const OUTPUT_MAX_CHARS: usize = 512;

#[derive(Debug)]
pub(super) struct NotifyCommand {
    settings: CommandSettings,
    census: ChildCensus,
    /// Id under which the census knows its child, which works for no target. So it runs once at a time.
    id: Uuid,
}

impl NotifyCommand {
    /// Verifies the program. Runs nothing.
    pub(super) async fn load(settings: &CommandSettings, census: &ChildCensus) -> Result<Self, FileError> {
        verify_program(&settings.program).await?;
        Ok(Self { settings: settings.clone(), census: census.clone(), id: Uuid::new_v4() })
    }

    /// Runs the program once. At its timeout it is killed with its process group.
    pub(super) async fn run(&self, notification: &Notification) -> Result<(), AttemptError> {
        let CommandSettings { program, arguments, timeout, .. } = &self.settings;
        // It may have been replaced since the configuration was loaded.
        verify_program(program).await.map_err(|error| AttemptError::Final(error.to_string()))?;
        let input = CommandInput { variables: notification.variables.clone(), stdin: notification.body.clone() };
        let finished = run_bounded_with(&self.census, self.id, program, arguments, &input, *timeout).await;
        let finished = finished.map_err(|error| AttemptError::Final(error.to_string()))?;
        if finished.is_success() {
            return Ok(());
        }
        let end = match (finished.code, finished.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        let output = if finished.stderr.trim().is_empty() { &finished.stdout } else { &finished.stderr };
        Err(AttemptError::Final(format!("{end}: {}", last_chars(output.trim()))))
    }
}

/// Returns the end of an output.
fn last_chars(output: &str) -> &str {
    let start = output.char_indices().rev().nth(OUTPUT_MAX_CHARS - 1).map_or(0, |(at, _)| at);
    &output[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_an_output_is_logged() {
        assert_eq!(last_chars("why"), "why");
        let long = format!("{}ü", "x".repeat(9999));
        assert_eq!(last_chars(&long).chars().count(), OUTPUT_MAX_CHARS);
        assert!(last_chars(&long).ends_with('ü'));
    }
}
