//! The conflict matrix: every rule in every situation on every SQL database, by table content and by the
//! outcome of every row, against a model. `docs/databases.md` has the differences between databases.

use std::collections::BTreeSet;
use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, OutcomeKind, PipelineConfig, Schema, Value};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Sqlite};
use batchsql_suite::database::{Database, TableSpec};
use batchsql_suite::digest::Canonical;

use super::setup::{open, triggers, with_setup};

/// A row: every column is a number, so that all databases compare keys in the same way.
type Cells = Vec<Option<i64>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    None,
    Ignore,
    Replace,
    Update,
    UpdateSome,
}

const RULES: [Rule; 5] = [Rule::None, Rule::Ignore, Rule::Replace, Rule::Update, Rule::UpdateSome];

/// A table, its content, and the rows to write.
#[derive(Debug, Clone)]
struct Situation {
    name: &'static str,
    columns: &'static [&'static str],
    nullable: &'static [&'static str],
    primary_key: &'static [&'static str],
    unique: &'static [&'static [&'static str]],
    /// The declared key of the rule.
    key: &'static [&'static str],
    before: Vec<Cells>,
    batch: Vec<Cells>,
}

fn row(cells: &[i64]) -> Cells {
    cells.iter().map(|cell| Some(*cell)).collect()
}

fn situations() -> Vec<Situation> {
    let base = Situation {
        name: "no conflict",
        columns: &["id", "v", "w"],
        nullable: &["v", "w"],
        primary_key: &["id"],
        unique: &[],
        key: &["id"],
        before: vec![row(&[1, 10, 100])],
        batch: vec![row(&[2, 20, 200]), row(&[3, 30, 300])],
    };
    vec![
        base.clone(),
        Situation {
            name: "conflict with the table",
            batch: vec![row(&[3, 30, 300]), row(&[1, 11, 101]), row(&[2, 20, 200])],
            ..base.clone()
        },
        Situation {
            name: "conflict inside the batch",
            batch: vec![row(&[2, 20, 200]), row(&[3, 30, 300]), row(&[2, 21, 201]), row(&[2, 22, 202])],
            ..base.clone()
        },
        Situation {
            name: "conflict with both",
            batch: vec![row(&[1, 11, 101]), row(&[2, 20, 200]), row(&[1, 12, 102]), row(&[2, 21, 201])],
            ..base.clone()
        },
        Situation {
            name: "composite key",
            columns: &["a", "b", "v", "w"],
            primary_key: &["a", "b"],
            key: &["b", "a"],
            before: vec![row(&[1, 1, 10, 100]), row(&[1, 2, 20, 200])],
            batch: vec![row(&[1, 1, 11, 101]), row(&[2, 1, 30, 300]), row(&[1, 3, 40, 400]), row(&[2, 1, 31, 301])],
            ..base.clone()
        },
        Situation {
            name: "all-key table",
            columns: &["a", "b"],
            nullable: &[],
            primary_key: &["a", "b"],
            key: &["a", "b"],
            before: vec![row(&[1, 1])],
            batch: vec![row(&[1, 1]), row(&[1, 2]), row(&[1, 2])],
            ..base.clone()
        },
        Situation {
            // Rows in the table whose key is NULL conflict with no row.
            name: "NULL in key",
            columns: &["id", "k", "v"],
            nullable: &["v"],
            unique: &[&["k"]],
            key: &["k"],
            before: vec![vec![Some(1), None, Some(10)], vec![Some(2), None, Some(20)], row(&[3, 30, 300])],
            batch: vec![row(&[4, 40, 400]), row(&[5, 50, 500])],
            ..base.clone()
        },
        Situation {
            name: "secondary unique index",
            columns: &["id", "u", "v"],
            nullable: &["v"],
            unique: &[&["u"]],
            before: vec![row(&[1, 10, 100]), row(&[2, 20, 200])],
            // A new row, one that conflicts with row 1 by its key, one that conflicts with row 2 by the other index.
            batch: vec![row(&[3, 30, 300]), row(&[1, 10, 101]), row(&[4, 20, 401])],
            ..base
        },
    ]
}

impl Situation {
    fn schema(&self, table: &str, rule: Option<Rule>) -> Schema {
        let mut schema = Schema::builder(table);
        for column in self.columns {
            // The table's own schema: the key may be NULL where it is not the primary key.
            let loose = rule.is_none() && !self.primary_key.contains(column);
            let nullable = self.nullable.contains(column) || loose;
            schema = match nullable {
                true => schema.nullable(*column, ColumnType::I64),
                false => schema.column(*column, ColumnType::I64),
            };
        }
        let key = || self.key.iter().copied();
        let conflict = match rule {
            None | Some(Rule::None) => Conflict::none(),
            Some(Rule::Ignore) => Conflict::ignore(key()),
            Some(Rule::Replace) => Conflict::replace(key()),
            Some(Rule::Update) => Conflict::update(key()),
            Some(Rule::UpdateSome) => Conflict::update_columns(key(), self.some()),
        };
        schema.on_conflict(conflict).build().unwrap()
    }

    /// The columns that the last rule updates: one that is not part of the key, if there is one.
    fn some(&self) -> Vec<&'static str> {
        let mut free = self.columns.iter().filter(|column| !self.key.contains(column));
        free.next_back().copied().into_iter().collect()
    }

    fn index(&self, column: &str) -> usize {
        self.columns.iter().position(|own| *own == column).unwrap()
    }

    fn same(&self, columns: &[&str], a: &Cells, b: &Cells) -> bool {
        columns.iter().all(|column| {
            let index = self.index(column);
            a[index].is_some() && a[index] == b[index]
        })
    }

    /// Applies a row to the table; returns its outcome.
    fn apply(&self, database: DatabaseName, rule: Rule, table: &mut Vec<Cells>, row: &Cells) -> OutcomeKind {
        let of_key = table.iter().position(|old| self.same(self.key, old, row));
        let indexes = || self.unique.iter().copied().chain([self.primary_key]);
        let of_any = table.iter().position(|old| indexes().any(|index| self.same(index, old, row)));
        // On MySQL a rule applies to every unique index; elsewhere only to the declared key.
        let found = if database == Mysql { of_any } else { of_key };
        let Some(found) = found.filter(|_| rule != Rule::None) else {
            if of_any.is_some() {
                return OutcomeKind::Rejected;
            }
            table.push(row.clone());
            return OutcomeKind::Written;
        };
        let overwritten: Vec<&str> = match rule {
            Rule::None | Rule::Ignore => return OutcomeKind::Ignored,
            Rule::Replace | Rule::Update => {
                self.columns.iter().filter(|column| !self.key.contains(column)).copied().collect()
            }
            Rule::UpdateSome => self.some(),
        };
        if overwritten.is_empty() {
            return OutcomeKind::Ignored;
        }
        for column in overwritten {
            let index = self.index(column);
            table[found][index] = row[index];
        }
        OutcomeKind::Written
    }

    /// The table afterwards, and the outcome of each row.
    fn expected(&self, database: DatabaseName, rule: Rule) -> (BTreeSet<Cells>, Vec<OutcomeKind>) {
        let mut table = self.before.clone();
        let has_update = self.columns.len() > self.key.len();
        let last_wins = matches!(rule, Rule::Replace | Rule::Update)
            || (rule == Rule::UpdateSome && self.some().len() + self.key.len() == self.columns.len());
        let outcomes = self.batch.iter().enumerate().map(|(place, row)| {
            let has_later = self.batch[place + 1..].iter().any(|later| self.same(self.key, row, later));
            if last_wins && has_update && has_later {
                return OutcomeKind::Superseded;
            }
            self.apply(database, rule, &mut table, row)
        });
        let outcomes = outcomes.collect();
        (table.into_iter().collect(), outcomes)
    }
}

async fn submit(db: &BatchSql, schema: &Schema, rows: &[Cells]) -> Vec<OutcomeKind> {
    let mut receipts = Vec::new();
    for cells in rows {
        let named = schema.columns().iter().zip(cells);
        let row = named.fold(schema.row(), |row, (column, cell)| row.set(column.name(), Value::from(*cell)).unwrap());
        receipts.push(db.submit_tracked(&row.finish().unwrap()).await.unwrap());
    }
    db.flush().await.unwrap();
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await.kind());
    }
    outcomes
}

async fn content(database: &dyn Database, schema: &Schema) -> BTreeSet<Cells> {
    let mut rows = BTreeSet::new();
    let mut add = |values: &[Canonical<'_>]| {
        let cell = |value: &Canonical<'_>| match value {
            Canonical::Null => None,
            Canonical::Int(number) => Some(i64::try_from(*number).unwrap()),
            other => panic!("not a number: {other:?}"),
        };
        assert!(rows.insert(values.iter().map(cell).collect()), "duplicate row: {values:?}");
    };
    database.read(schema, &mut add).await.unwrap();
    rows
}

async fn matrix(name: DatabaseName, parameters: &str) {
    with_setup(name, async |url, setup| {
        let database = open(name, url, parameters).await;
        // One lane, so that the rows are in one batch.
        let config = PipelineConfig::default()
            .max_concurrency(1)
            .flush_interval(Duration::from_secs(600))
            .retry_for(Duration::from_secs(5));
        let cells = situations().into_iter().flat_map(|situation| RULES.map(|rule| (situation.clone(), rule)));
        let cells = cells.flat_map(|(situation, rule)| [(situation.clone(), rule, false), (situation, rule, true)]);
        // With triggers, staging is refused, and unnest is the same as auto.
        let has_no_triggers = matches!(parameters, "strategy=staging" | "strategy=unnest");
        let cells = cells.filter(|(.., has_triggers)| !(*has_triggers && has_no_triggers));
        for (number, (situation, rule, has_triggers)) in cells.enumerate() {
            if rule == Rule::None && parameters == "strategy=staging" {
                // There is nothing to merge.
                continue;
            }
            let cell = format!("{name:?} {parameters}, {rule:?}, triggers: {has_triggers}, {}", situation.name);
            let table = format!("batchsql_suite_matrix_{number}");
            let loose = situation.schema(&table, None);
            let spec = TableSpec { unique: situation.unique, ..TableSpec::new(loose.clone(), situation.primary_key) };
            database.create(&spec).await.unwrap();
            if has_triggers {
                for sql in triggers(name) {
                    setup.execute(&sql, &table).await;
                }
            }
            let db = BatchSql::builder(database.sink()).config(config.clone()).start().unwrap();
            let before = submit(&db, &loose, &situation.before).await;
            assert!(before.iter().all(|kind| *kind == OutcomeKind::Written), "{cell}: {before:?}");
            let outcomes = submit(&db, &situation.schema(&table, Some(rule)), &situation.batch).await;
            let report = db.close(Duration::from_secs(10)).await;
            assert_eq!(report.balance.in_flight(), 0, "{cell}");
            let found = content(&*database, &loose).await;
            assert_eq!((found, outcomes), situation.expected(name, rule), "{cell}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_follows_every_rule() {
    matrix(Sqlite, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_follows_every_rule() {
    for strategy in ["auto", "multi-values", "unnest", "staging"] {
        matrix(Postgres, &format!("strategy={strategy}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_follows_every_rule() {
    matrix(Mysql, "").await;
}

#[test]
fn a_key_that_may_be_null_is_refused() {
    let schema = Schema::builder("t").nullable("k", ColumnType::I64).on_conflict(Conflict::ignore(["k"])).build();
    assert!(schema.unwrap_err().to_string().contains("nullable"));
}

/// The outcomes of the batch, one letter per row.
fn letters(outcomes: &[OutcomeKind]) -> String {
    let letter = |kind: &OutcomeKind| match kind {
        OutcomeKind::Written => "W",
        OutcomeKind::Ignored => "I",
        OutcomeKind::Superseded => "S",
        OutcomeKind::Rejected => "R",
        other => panic!("no cell of the matrix has {other:?}"),
    };
    outcomes.iter().map(letter).collect::<Vec<_>>().join(" ")
}

/// The guide shows the model against which the tests above compare the databases.
#[test]
fn the_guide_has_this_matrix() {
    let mut table =
        "| the batch has | no rule | ignore | replace, update | update of some columns |\n|---|---|---|---|---|\n"
            .to_owned();
    for situation in situations() {
        let cell = |rule| {
            let of = |database| situation.expected(database, rule);
            assert_eq!(of(Sqlite), of(Postgres));
            let (common, mysql) = (letters(&of(Sqlite).1), letters(&of(Mysql).1));
            if common == mysql { common } else { format!("{common} (MySQL: {mysql})") }
        };
        assert_eq!(cell(Rule::Replace), cell(Rule::Update));
        let cells = [Rule::None, Rule::Ignore, Rule::Update, Rule::UpdateSome].map(cell);
        table += &format!("| {} | {} |\n", situation.name, cells.join(" | "));
    }
    let guide = include_str!("../../../../../docs/databases.md");
    assert!(guide.contains(&table), "docs/databases.md should have\n{table}");
}
