//! Owns the positions of an intake in the database, as a person lists them, and the removal of those of old logs.
//! Must not know how positions move.

use batchsql_core::{ErrorClass, Removed, SinkError, StoredPosition};

use crate::handle::DurableBatchSql;

impl DurableBatchSql {
    /// The random id of the log in the folder. Its positions in the database have it as their incarnation, and the ids of its
    /// dead letters begin with it. An empty folder gets a new one.
    pub fn incarnation(&self) -> String {
        self.shared().log.incarnation().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// All positions in the database under the name of this intake
    /// ([`DurableOptions::exactly_once`](crate::DurableOptions::exactly_once)), also those of other logs: of folders that were
    /// deleted, and of intakes with this name on other machines. None if rows are written at least once.
    ///
    /// # Errors
    /// The database cannot be asked.
    ///
    /// # Cancel safety
    /// Nothing has changed.
    pub async fn positions(&self) -> Result<Vec<StoredPosition>, SinkError> {
        match &self.shared().source {
            Some(source) => self.shared().pipeline.positions(source).await,
            None => Ok(Vec::new()),
        }
    }

    /// Removes the positions of another log of this name that will never be opened again: its folder was deleted. Name the
    /// owners of its positions ([`positions`](Self::positions)) that are known to have ended; without all of them none is removed,
    /// see [`BatchSql::remove_positions`](batchsql_core::BatchSql::remove_positions). A log whose positions were removed stops
    /// when it is opened again.
    ///
    /// # Errors
    /// It is the log of this intake, or the database cannot be asked. Nothing was removed then, unless a reply was lost.
    ///
    /// # Cancel safety
    /// They are removed or not.
    pub async fn remove_positions(&self, incarnation: &str, ended_owners: &[String]) -> Result<Removed, SinkError> {
        let Some(source) = &self.shared().source else { return Ok(Removed::Positions(0)) };
        if incarnation == self.incarnation() {
            let text = "these are the positions of the log of this intake, which are in use; name another incarnation";
            return Err(SinkError::new(ErrorClass::Schema, text));
        }
        self.shared().pipeline.remove_positions(source, incarnation, ended_owners).await
    }
}
