//! Rows of transitions: the history of each target.
//!
//! A history is ordered by insertion and not by time: the clock may have been set back between two
//! transitions.

use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::columns::{parsed, read, unreadable};
use crate::model::{PastFinding, Status, TargetId, Transition};
use crate::registry::limits::TRANSITIONS_MAX;

/// Adds transitions in one transaction, as documented at `Store::add_transitions`.
///
/// # Errors
/// When one of them cannot be written; none is added then.
pub(super) fn add(connection: &mut Connection, transitions: &[Transition]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for transition in transitions {
        insert(&transaction, transition)?;
    }
    transaction.commit()
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

/// Returns the history of a target, newest first.
///
/// # Errors
/// When the file cannot be read or a row is not a valid transition.
pub(super) fn of_target(connection: &Connection, id: TargetId) -> rusqlite::Result<Vec<Transition>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM target_transition WHERE target_id = ?1 ORDER BY position DESC")?;
    statement.query_map([id.to_string()], transition)?.collect()
}

fn transition(row: &Row<'_>) -> rusqlite::Result<Transition> {
    let status = |text: &str| Status::parse(text).ok_or("not a status");
    let from: Option<String> = row.get("from_status")?;
    let from = from.map(|text| status(&text)).transpose().map_err(|error| unreadable("from_status", error))?;
    let finding = match row.get::<_, Option<String>>("message")? {
        Some(message) => {
            // Not parsed: a newer agent may have written a code that this one does not know.
            let code: String = row.get("reason")?;
            Some(PastFinding { code: code.into(), message })
        }
        None => None,
    };
    let to = read(row, "to_status", status)?;
    Ok(Transition { target_id: parsed(row, "target_id")?, at: parsed(row, "at")?, from, to, finding })
}
