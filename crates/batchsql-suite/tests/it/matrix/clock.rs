//! The matrix of `Expr::now`: which rows get the time of the server in every situation, with and without triggers. The time
//! itself is not compared.

use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, Expr, OutcomeKind, PipelineConfig, Schema};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Sqlite};
use batchsql_testserver::unique;

use super::rules::{content, submit};
use super::rules_model::{Cells, before, situations, sorted};
use super::setup::{open, triggers, with_setup};

/// The last column says whether the time was set.
const TABLE: &str =
    "CREATE TABLE {t} (a bigint NOT NULL, b bigint NOT NULL, v bigint, w bigint, changed timestamp NULL,
                     is_changed bigint GENERATED ALWAYS AS (CASE WHEN changed IS NULL THEN 0 ELSE 1 END) STORED,
                     PRIMARY KEY (a, b))";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Now,
    NewerAndNow,
    UpdateOnlyNow,
}

use Rule::{NewerAndNow, Now, UpdateOnlyNow};

impl Rule {
    fn conflict(self) -> Conflict {
        let rule = match self {
            Now => Conflict::update(["b", "a"]),
            NewerAndNow => Conflict::update(["b", "a"]).only_if_newer("w"),
            UpdateOnlyNow => Conflict::update_only(["b", "a"]),
        };
        rule.set("changed", Expr::now())
    }

    /// Rows of `(a, b, v, is_changed)`, and the outcome of each row of the batch.
    fn expected(self, batch: &[Cells]) -> (Vec<Cells>, Vec<OutcomeKind>) {
        let mut table: Vec<(Cells, i64)> = before().into_iter().map(|row| (row, 0)).collect();
        let stored = table.len();
        let apply = |row: &Cells| {
            let found = table.iter_mut().enumerate().find(|(_, (old, _))| old[..2] == row[..2]);
            match (found, self) {
                (None, UpdateOnlyNow) => return OutcomeKind::Ignored,
                (None, Now | NewerAndNow) => table.push((*row, 0)),
                (Some((_, (old, _))), NewerAndNow) if row[3] <= old[3] => return OutcomeKind::Ignored,
                (Some((place, found)), _) => {
                    // Rows of a new key are inserted as one row, except with a version.
                    let is_update = place < stored || self == NewerAndNow;
                    *found = (*row, i64::from(is_update));
                }
            }
            OutcomeKind::Written
        };
        let outcomes = batch.iter().map(apply).collect();
        (sorted(table.into_iter().map(|([a, b, v, _], changed)| [a, b, v, Some(changed)])), outcomes)
    }
}

fn schema(table: &str, columns: [&str; 4], conflict: Conflict) -> Schema {
    let [a, b, v, w] = columns;
    let schema = Schema::builder(table).column(a, ColumnType::I64).column(b, ColumnType::I64);
    schema.nullable(v, ColumnType::I64).nullable(w, ColumnType::I64).on_conflict(conflict).build().unwrap()
}

async fn matrix(name: DatabaseName) {
    with_setup(name, async |url, setup| {
        let database = open(name, url, "").await;
        let rules = [Now, NewerAndNow, UpdateOnlyNow].into_iter().flat_map(|rule| [(rule, false), (rule, true)]);
        for (situation, batch) in situations() {
            for (rule, has_triggers) in rules.clone() {
                let shown = format!("{name:?}, {rule:?}, triggers: {has_triggers}, {situation}");
                let table = unique("clock");
                setup.execute(TABLE, &table).await;
                if has_triggers {
                    for sql in triggers(name) {
                        setup.execute(&sql, &table).await;
                    }
                }
                // One lane, so that the rows are in one batch.
                let config = PipelineConfig::default().max_concurrency(1).flush_interval(Duration::from_secs(600));
                let db = BatchSql::builder(database.sink()).config(config).start().unwrap();
                let names = ["a", "b", "v", "w"];
                submit(&db, &schema(&table, names, Conflict::none()), &before()).await;
                let outcomes = submit(&db, &schema(&table, names, rule.conflict()), &batch).await;
                assert_eq!(db.close(Duration::from_secs(60)).await.balance.in_flight(), 0, "{shown}");
                let read = schema(&table, ["a", "b", "v", "is_changed"], Conflict::none());
                assert_eq!((content(&*database, &read).await, outcomes), rule.expected(&batch), "{shown}");
                setup.execute("DROP TABLE {t}", &table).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_sets_the_time_of_rows_that_are_updated() {
    matrix(Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_sets_the_time_of_rows_that_are_updated() {
    matrix(Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_sets_the_time_of_rows_that_are_updated() {
    matrix(Mysql).await;
}
