//! Owns the connection of one batch and the steps of a transaction on it: prepare, begin, commit, undo.
//! Must not know rows or plans.

use std::time::Duration;

use batchsql_core::{Attempt, ErrorClass, SinkError};
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Statement as _};

use crate::catalog::{Table, variables};
use crate::classify::{Failed, LOCK_TIMEOUT, NO_SAVEPOINT, Stage};
use crate::position::move_held;
use crate::session::SharedName;
use crate::settings::ValuesInText;
use crate::statements::Statement;

/// The connection that sends a batch, and the attempt.
pub(crate) struct Link<'a> {
    pub(crate) connection: &'a mut MySqlConnection,
    pub(crate) attempt: &'a Attempt,
    /// The table of the rows, for errors.
    pub(crate) table: &'a Table,
    /// Records the size of what is sent, once the pipeline has asked for the session.
    pub(crate) session: Option<&'a SharedName>,
    pub(crate) unusual: Unusual,
    pub(crate) guard: Guard,
}

/// Whether the end of the open transaction finds out that it is another one than was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    Savepoint,
    /// The server refuses the savepoint, or two statements in one request.
    Nothing,
}

/// How to send a row count that has no prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusual {
    /// In pieces whose sizes have prepared statements: the least work for the server, and the most round trips.
    Pieces,
    /// In a statement that is prepared for it and then closed: two round trips.
    Once,
    /// With the values in the text: one round trip. Only on connections that log no statements.
    Text,
    /// Every row count is sent as [`Text`](Self::Text).
    AlwaysText,
}

/// From this round trip on, the number of round trips matters more than the amount of data.
const FAR: Duration = Duration::from_micros(300);

impl Unusual {
    pub(crate) fn of(values_in_text: ValuesInText, round_trip: Duration, is_our_pool: bool) -> Self {
        match values_in_text {
            ValuesInText::Always => Self::AlwaysText,
            _ if round_trip < FAR => Self::Pieces,
            // A caller's pool may log statements with their values.
            ValuesInText::Auto if is_our_pool => Self::Text,
            ValuesInText::Auto | ValuesInText::Never => Self::Once,
        }
    }
}

impl Link<'_> {
    /// Marks that the next statement may become durable, unless the stage is [`Stage::Open`].
    pub(crate) fn enter(&self, stage: Stage) -> Result<(), Failed> {
        if stage == Stage::Open || self.attempt.begin() {
            return Ok(());
        }
        let mut failed = Failed::unsent(SinkError::new(ErrorClass::Transient, "abandoned before it was sent"));
        failed.usable = false;
        Err(failed)
    }

    /// Records the size of a statement, for the check whether the session is working.
    pub(crate) fn sends(&self, bytes: usize) {
        if let Some(session) = self.session {
            session.sends(bytes);
        }
    }

    /// If the answer shows that nothing became durable, the next step starts in the initial state.
    pub(crate) fn leave<T>(&self, stage: Stage, result: sqlx::Result<T>) -> Result<T, Failed> {
        let failed = |error| match Failed::sent(error, stage, self.table) {
            failed if stage == Stage::Commit => without_savepoint(failed),
            failed => failed,
        };
        let result = result.map_err(failed);
        if stage != Stage::Open && result.as_ref().is_err_and(|failed| failed.error.class() != ErrorClass::Unknown) {
            self.attempt.defer();
        }
        result
    }
}

/// Prepares a statement that stays prepared, so that a connection that is lost during the prepare is known to have
/// written nothing. A statement for one use is prepared and executed in one step.
pub(crate) async fn ready(connection: &mut MySqlConnection, statement: &Statement) -> Result<(), Failed> {
    if statement.keep {
        let prepared = connection.prepare(&statement.sql).await.map_err(Failed::asked)?;
        debug_assert_eq!(prepared.sql(), &*statement.sql);
    }
    Ok(())
}

/// Begins a transaction, and moves the position of the attempt in it, in the same round trip. The savepoint is there for as long
/// as this transaction: if the server or a proxy ends it without an error, later statements commit for themselves, without the
/// others or the position, and [`RELEASE_AND_COMMIT`] fails. It is set first, when no engine has to note it and nothing is in the binary log.
pub(crate) async fn begin(link: &mut Link<'_>) -> Result<(), Failed> {
    link.guard = Guard::Savepoint;
    let Some(step) = link.attempt.step() else { return begin_guarded(link).await };
    let sql = format!("START TRANSACTION; SAVEPOINT step_of_batchsql; {}", move_held(step));
    let result = link.connection.execute(&*sql).await;
    match link.leave(Stage::Open, result) {
        Ok(moved) if moved.rows_affected() == 1 => Ok(()),
        Ok(_) => Err(end(link, Failed::unsent(SinkError::fenced())).await),
        Err(failed) => {
            let failed = end(link, failed).await;
            Err(Failed { error: failed.error.of_position(), ..failed })
        }
    }
}

/// Begins a transaction without a position. A server that refuses the savepoint still writes the rows.
async fn begin_guarded(link: &mut Link<'_>) -> Result<(), Failed> {
    match run(link, "START TRANSACTION; SAVEPOINT step_of_batchsql", Stage::Open).await {
        Err(failed) if failed.usable => match end(link, failed).await {
            failed if failed.usable => {
                link.guard = Guard::Nothing;
                run(link, "START TRANSACTION", Stage::Open).await
            }
            failed => Err(failed),
        },
        begun => begun,
    }
}

/// Spells out the defaults: if `completion_type` is CHAIN, a bare COMMIT would open another transaction, and
/// the next batch would become part of it.
const COMMIT: &str = "COMMIT AND NO CHAIN";
const ROLLBACK: &str = "ROLLBACK AND NO CHAIN";

/// The ends of a transaction that must still be the one of [`begin`]. The server executes nothing behind an error.
const RELEASE_AND_COMMIT: &str = "RELEASE SAVEPOINT step_of_batchsql; COMMIT AND NO CHAIN";
const RELEASE_AND_ROLL_BACK: &str = "RELEASE SAVEPOINT step_of_batchsql; ROLLBACK AND NO CHAIN";

/// Commits. What was only a trial is rolled back.
pub(crate) async fn commit(link: &mut Link<'_>) -> Result<(), Failed> {
    if link.attempt.step().is_some_and(|step| !step.commits) {
        return roll_back(link).await;
    }
    let sql = if link.guard == Guard::Savepoint { RELEASE_AND_COMMIT } else { COMMIT };
    // The connection is not reused after a failed commit.
    run(link, sql, Stage::Commit).await.map_err(|failed| Failed { usable: false, ..failed })
}

/// Rolls back the open transaction of rows that are to be written otherwise, or not at all.
pub(crate) async fn roll_back(link: &mut Link<'_>) -> Result<(), Failed> {
    let sql = if link.guard == Guard::Savepoint { RELEASE_AND_ROLL_BACK } else { ROLLBACK };
    run(link, sql, Stage::Open).await.map_err(without_savepoint)
}

/// Rolls back the open transaction after an error. If that fails, the connection is closed, which also rolls it back.
pub(crate) async fn undo(link: &mut Link<'_>, failed: Failed) -> Failed {
    // The server rolls back the statement, not the transaction. After other errors, as a deadlock, it has ended rightly, and
    // nothing shows whether it was lost before.
    let is_timeout = failed.code == LOCK_TIMEOUT;
    let leaves_it_open =
        is_timeout || matches!(failed.error.class(), ErrorClass::Row | ErrorClass::Schema | ErrorClass::Permission);
    if link.guard == Guard::Nothing || !leaves_it_open || !failed.usable {
        return end(link, failed).await;
    }
    match roll_back(link).await {
        Ok(()) => failed,
        Err(lost) if is_timeout && lost.code == NO_SAVEPOINT && ends_with_a_timeout(link).await => {
            // Some servers begin another transaction then.
            end(link, failed).await
        }
        // Rows before the error may be committed.
        Err(lost) if lost.code == NO_SAVEPOINT => lost,
        Err(_) => Failed { usable: false, ..failed },
    }
}

/// Whether the server may roll back the whole transaction when a lock is not given in time. Then there is no savepoint either.
async fn ends_with_a_timeout(link: &mut Link<'_>) -> bool {
    let shown = variables(link.connection, &["innodb_rollback_on_timeout"]).await;
    shown.is_ok_and(|shown| shown.iter().any(|(_, value)| value == "ON"))
}

/// Rolls back whatever transaction is open.
async fn end(link: &mut Link<'_>, mut failed: Failed) -> Failed {
    if failed.usable {
        failed.usable = run(link, ROLLBACK, Stage::Open).await.is_ok();
    }
    failed
}

/// A savepoint is gone only with its transaction, which the server or a proxy has then ended without an error: what was sent
/// behind that may have been committed for itself.
pub(crate) fn without_savepoint(failed: Failed) -> Failed {
    if failed.code != NO_SAVEPOINT {
        return failed;
    }
    let text = "the transaction has ended before its COMMIT, so rows of it may be committed without the others, or without \
                their position";
    Failed { error: SinkError::with_code(ErrorClass::Unknown, NO_SAVEPOINT, text), usable: false, ..failed }
}

/// Runs a statement without parameters.
pub(crate) async fn run(link: &mut Link<'_>, sql: &'static str, stage: Stage) -> Result<(), Failed> {
    execute(link, sql, stage).await
}

/// Runs a statement whose values are in its text.
pub(crate) async fn execute(link: &mut Link<'_>, sql: &str, stage: Stage) -> Result<(), Failed> {
    link.enter(stage)?;
    link.sends(sql.len());
    let result = link.connection.execute(sql).await;
    link.leave(stage, result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_a_text_only_far_away_and_only_where_texts_are_not_logged() {
        let check = |when, ms, is_our_pool, expected| {
            assert_eq!(Unusual::of(when, Duration::from_millis(ms), is_our_pool), expected, "{when:?} {ms} ms");
        };
        check(ValuesInText::Auto, 0, true, Unusual::Pieces);
        check(ValuesInText::Auto, 1, true, Unusual::Text);
        check(ValuesInText::Auto, 1, false, Unusual::Once);
        check(ValuesInText::Never, 0, true, Unusual::Pieces);
        check(ValuesInText::Never, 50, true, Unusual::Once);
        check(ValuesInText::Always, 0, false, Unusual::AlwaysText);
    }
}
