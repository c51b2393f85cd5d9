//! Owns the mixed load: the schemas, and the rows as a function of producer and sequence.
//! Must not know databases, except that Redis has commands in place of rules.

use anyhow::Result;
use batchsql::{ColumnType, Conflict, DynRow, Expr, RowError, Schema};

use super::job::{Job, Mode};
use super::table::Table;
use crate::chaos::load::RowId;
use crate::chaos::writer::schemas_of;
use crate::database::DatabaseName;

/// Bytes of the text of most rows.
const SMALL: usize = 80;
/// Every row with this remainder of its sequence has some KiB.
const LARGE: (u64, u64) = (41, 7);
/// Counters, which all producers share.
const COUNTERS: u64 = 16;

/// The name of the key that is no counter on Redis, so that a row for it is refused.
pub(super) fn no_counter(counter: &str) -> String {
    format!("{counter}:bad")
}

/// Whether the database refuses the row. Redis has no constraints; there a counter is bad whose key has another type. Elsewhere
/// a counter cannot be bad, because counters of one key are added up first.
pub(super) fn is_bad(database: DatabaseName, table: Table, row: RowId) -> bool {
    let can_be_bad = match database {
        DatabaseName::Redis => table == Table::Counter,
        _ => table != Table::Counter,
    };
    can_be_bad && row.is_bad()
}

/// The schemas, in the order of [`Table::ALL`].
pub(super) fn schemas(job: &Job) -> Result<[Schema; 4]> {
    let [plain, keyed, once] = schemas_of(&job.tables)?;
    let counter = match job.database {
        DatabaseName::Redis => Schema::builder(job.counter.as_str()).column("id", ColumnType::Text),
        _ => {
            let add = Conflict::update(["id"]).set("n", Expr::add());
            let add = if job.mode == Mode::Durable { add.may_add_twice() } else { add };
            Schema::builder(job.counter.as_str()).column("id", ColumnType::I64).on_conflict(add)
        }
    };
    Ok([plain, keyed, once, counter.column("n", ColumnType::I64).build()?])
}

/// A row of a table.
pub(super) fn row(job: &Job, schema: &Schema, table: Table, row: RowId) -> Result<DynRow, RowError> {
    let bad = is_bad(job.database, table, row);
    let counter = row.sequence % COUNTERS;
    let Some(of_load) = table.of_load() else {
        let empty = schema.row();
        let named = match job.database {
            DatabaseName::Redis if bad => empty.set("id", no_counter(&job.counter))?,
            DatabaseName::Redis => empty.set("id", format!("{}:{counter}", job.counter))?,
            _ => empty.set("id", counter as i64)?,
        };
        return named.set("n", 1_i64)?.finish();
    };
    schema
        .row()
        .set("id", row.key(of_load))?
        .set("producer", i64::from(row.producer))?
        .set("seq", row.sequence as i64)?
        .set("quality", if bad { -1_i32 } else { 1 })?
        .set("pad", "x".repeat(pad(row)))?
        .finish()
}

/// Bytes of the text of a row: now and then 2, 4 or 8 KiB.
fn pad(row: RowId) -> usize {
    let is_large = row.sequence % LARGE.0 == LARGE.1;
    if is_large { 2_048 << (row.sequence / LARGE.0 % 3) } else { SMALL }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use batchsql::Action;

    use super::*;
    use crate::chaos::job::{Names, Pool};

    fn job(database: DatabaseName, mode: Mode) -> Job {
        Job {
            database,
            dsn: String::new(),
            tables: Names::new("t"),
            counter: "t_counter".to_owned(),
            pool: Pool::Own,
            mode,
            producers: 1,
            rows_per_second: 1,
            folder: PathBuf::new(),
            leak: 0,
        }
    }

    #[test]
    fn the_load_is_mixed() {
        for database in DatabaseName::ALL {
            let job = job(database, Mode::Memory);
            let schemas = schemas(&job).unwrap();
            let (mut bad, mut large) = (0, 0);
            for sequence in 0..1_000 {
                let id = RowId { producer: 3, sequence };
                large += u32::from(pad(id) > 1_000);
                for (table, schema) in Table::ALL.into_iter().zip(&schemas) {
                    row(&job, schema, table, id).unwrap();
                    bad += u32::from(is_bad(database, table, id));
                }
            }
            assert!(large > 20 && bad >= 10, "{database:?}: {large} {bad}");
            let actions = schemas.each_ref().map(Schema::action);
            let counter = if database == DatabaseName::Redis { Action::Insert } else { Action::Update };
            assert_eq!(actions, [Action::Insert, Action::Update, Action::Ignore, counter]);
        }
    }

    #[test]
    fn counters_count_once_where_that_is_promised() {
        for (mode, twice) in [(Mode::Memory, false), (Mode::Durable, true), (Mode::ExactlyOnce, false)] {
            let [.., counter] = schemas(&job(DatabaseName::Postgres, mode)).unwrap();
            assert_eq!(counter.conflict().adds_twice(), twice, "{mode:?}");
        }
    }
}
