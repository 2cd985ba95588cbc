//! Histories: the latest transitions of each target.
//!
//! Their order is that in which they were added, and not that of their times: a clock may have been
//! set back between two of them.

use rusqlite::{Connection, Row, params};

use super::rows::{parsed, read, unreadable};
use super::{RegistryError, rules, storage};
use crate::model::{PastFinding, Status, TargetId, Transition};
use crate::registry::TRANSITIONS_MAX;

/// Adds transitions; see `Registry::add_transitions`.
pub(super) fn add(connection: &mut Connection, transitions: &[Transition]) -> Result<(), RegistryError> {
    let transaction = rules::begin(connection)?;
    for transition in transitions {
        insert(&transaction, transition).map_err(storage)?;
    }
    transaction.commit().map_err(storage)
}

fn insert(connection: &Connection, transition: &Transition) -> rusqlite::Result<()> {
    let Transition { target_id, at, from, to, finding } = transition;
    let id = target_id.to_string();
    connection
        .prepare_cached(
            "INSERT INTO target_transition (target_id, at, from_status, to_status, reason, message)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM target WHERE id = ?1)",
        )?
        .execute(params![
            id,
            at.to_string(),
            from.map(Status::as_str),
            to.as_str(),
            finding.as_ref().map(|finding| &*finding.code),
            finding.as_ref().map(|finding| finding.message.as_str()),
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM target_transition WHERE target_id = ?1 AND position <=
             (SELECT position FROM target_transition WHERE target_id = ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![id, i64::try_from(TRANSITIONS_MAX).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// The history of a target, newest first.
///
/// # Errors
/// When the file cannot be read or a row is not a sound transition.
pub(super) fn of_target(connection: &Connection, id: TargetId) -> rusqlite::Result<Vec<Transition>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM target_transition WHERE target_id = ?1 ORDER BY position DESC")?;
    statement.query_map([id.to_string()], transition)?.collect()
}

fn transition(row: &Row<'_>) -> rusqlite::Result<Transition> {
    let status = |text: &str| Status::parse(text).ok_or("no status");
    let from: Option<String> = row.get("from_status")?;
    let from = from.map(|text| status(&text)).transpose().map_err(|error| unreadable("from_status", error))?;
    let finding = match row.get::<_, Option<String>>("message")? {
        Some(message) => {
            // As it is: a newer agent may have written a code that this one does not know.
            let code: String = row.get("reason")?;
            Some(PastFinding { code: code.into(), message })
        }
        None => None,
    };
    let to = read(row, "to_status", status)?;
    Ok(Transition { target_id: parsed(row, "target_id")?, at: parsed(row, "at")?, from, to, finding })
}
