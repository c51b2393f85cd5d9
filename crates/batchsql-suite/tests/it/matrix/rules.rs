//! The matrix of the rules that depend on the stored row: every rule in every situation on every SQL database, with and
//! without triggers, by table content and by the outcome of every row, against the model of the testkit.

use std::time::Duration;

use batchsql::{BatchSql, OutcomeKind, PipelineConfig, Schema, Value};
use batchsql_suite::database::Database;
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Sqlite};
use batchsql_suite::digest::Canonical;
use batchsql_testkit::{Effect, Model};
use batchsql_testserver::unique;

use super::rules_model::{
    Add, AddAndKeep, BASIC_RULES, Bounds, COLUMNS, Cells, Constraint, Delete, Greatest, Identity, Keep, Least, Newer,
    NewerAndGreatest, NewerAndKeep, NewerAndLeast, NewerPartly, NullableKey, Partial, Plain, RULES, Raw, Rule,
    SecondIndex, Start, Table, UnlessNull, UpdateOnly, UpdateOnlyAdd, UpdateOnlyNewer, before, outside_of_index,
    second_index, second_index_in_batch, second_index_null, situations, sorted, stored_null_keys,
};
use super::setup::{open, triggers, with_setup};

pub(super) async fn submit(db: &BatchSql, schema: &Schema, rows: &[Cells]) -> Vec<OutcomeKind> {
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

/// The rows of the table in the order of [`sorted`].
pub(super) async fn content(database: &dyn Database, schema: &Schema) -> Vec<Cells> {
    let mut rows = Vec::new();
    let mut add = |values: &[Canonical<'_>]| {
        let cell = |value: &Canonical<'_>| match value {
            Canonical::Null => None,
            Canonical::Int(number) => Some(i64::try_from(*number).unwrap()),
            other => panic!("not a number: {other:?}"),
        };
        let cells: Vec<Option<i64>> = values.iter().map(cell).collect();
        rows.push(cells.try_into().unwrap());
    };
    database.read(schema, &mut add).await.unwrap();
    sorted(rows)
}

/// A cell of the matrix.
struct Cell {
    rule: Rule,
    table: Table,
    has_triggers: bool,
    situation: &'static str,
    before: Vec<Cells>,
    batch: Vec<Cells>,
}

impl Cell {
    fn expected(&self, name: DatabaseName) -> (Vec<Cells>, Vec<OutcomeKind>) {
        match self.table {
            SecondIndex => self.rule.expected_unique(name, &self.before, &self.batch),
            // Only the database knows which rows are outside of the index: every row is sent.
            Partial => self.rule.expected_partial(&self.before, &self.batch),
            _ => self.rule.expected(&self.before, &self.batch),
        }
    }
}

fn with_and_without_triggers(rule: Rule) -> [(Rule, bool); 2] {
    [(rule, false), (rule, true)]
}

/// Every rule in every situation.
fn plain() -> Vec<Cell> {
    let cells = |(situation, batch): (&'static str, Vec<Cells>)| {
        RULES.into_iter().flat_map(with_and_without_triggers).map(move |(rule, has_triggers)| Cell {
            rule,
            table: Plain,
            has_triggers,
            situation,
            before: before(),
            batch: batch.clone(),
        })
    };
    situations().into_iter().flat_map(cells).collect()
}

/// Every rule in a table with a second unique index.
fn with_second_index() -> Vec<Cell> {
    let starts = [
        ("secondary unique index", second_index()),
        ("NULL in a secondary unique index", second_index_null()),
        ("one value of a secondary unique index for two rows", second_index_in_batch()),
    ];
    let cells = |(situation, (before, batch)): (&'static str, Start)| {
        RULES.into_iter().flat_map(with_and_without_triggers).map(move |(rule, has_triggers)| Cell {
            rule,
            table: SecondIndex,
            has_triggers,
            situation,
            before: before.clone(),
            batch: batch.clone(),
        })
    };
    starts.into_iter().flat_map(cells).collect()
}

/// Every rule in every situation in another table, each second cell with triggers.
fn in_table(
    table: Table,
    rules: impl Iterator<Item = Rule> + Clone,
    stored: &[Cells],
    situations: Vec<(&'static str, Vec<Cells>)>,
) -> Vec<Cell> {
    let cells = |(number, (situation, batch)): (usize, (&'static str, Vec<Cells>))| {
        rules.clone().enumerate().map(move |(of_rule, rule)| Cell {
            rule,
            table,
            has_triggers: (number + of_rule).is_multiple_of(2),
            situation,
            before: before().iter().chain(stored).copied().collect(),
            batch: batch.clone(),
        })
    };
    situations.into_iter().enumerate().flat_map(cells).collect()
}

/// Rules that name their index, or write an identity column.
fn with_target(table: Table) -> Vec<Cell> {
    let rules = BASIC_RULES.into_iter().chain(RULES).filter(|rule| rule.has_target());
    let (stored, further) = if table == Partial { outside_of_index() } else { Default::default() };
    in_table(table, rules, &stored, situations().into_iter().chain(further).collect())
}

/// Every rule in a table that has rows without a key.
fn with_null_keys() -> Vec<Cell> {
    in_table(NullableKey, BASIC_RULES.into_iter().chain(RULES), &stored_null_keys(), situations())
}

async fn matrix(name: DatabaseName, parameters: &str, cells: &[Cell]) {
    with_setup(name, async |url, setup| {
        let database = open(name, url, parameters).await;
        let config = || {
            // One lane, so that the rows are in one batch.
            let mut config = PipelineConfig::default();
            config.max_concurrency = 1;
            config.flush_interval = Duration::from_secs(600);
            config.retry_for = Duration::from_secs(5);
            config
        };
        // Tables are made once; other cells empty them.
        let mut tables: Vec<((Table, bool), String)> = Vec::new();
        for cell in cells {
            let Cell { rule, table: kind, has_triggers, situation, .. } = cell;
            let shown = format!("{name:?} {parameters}, {rule:?}, {kind:?}, triggers: {has_triggers}, {situation}");
            let known = tables.iter().find(|(known, ..)| *known == (*kind, *has_triggers));
            let table = match known {
                Some((_, table)) => {
                    setup.execute("DELETE FROM {t}", table).await;
                    table.clone()
                }
                None => {
                    let table = unique("rules");
                    let sql =
                        kind.create().into_iter().chain(has_triggers.then(|| triggers(name)).into_iter().flatten());
                    for sql in sql {
                        setup.execute(&sql, &table).await;
                    }
                    tables.push(((*kind, *has_triggers), table.clone()));
                    table
                }
            };
            let loose = kind.loose(&table);
            let db = BatchSql::builder(database.sink()).config(config()).start().unwrap();
            let stored = submit(&db, &loose, &cell.before).await;
            assert!(stored.iter().all(|kind| *kind == OutcomeKind::Written), "{shown}: {stored:?}");
            let outcomes = submit(&db, &rule.schema_of(*kind, &table), &cell.batch).await;
            let report = db.close(Duration::from_secs(10)).await;
            assert_eq!(report.balance.in_flight(), 0, "{shown}");
            let found = content(&*database, &loose).await;
            assert_eq!((found, outcomes), cell.expected(name), "{shown}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_follows_rules_that_depend_on_the_stored_row() {
    for cells in [plain(), with_second_index(), with_null_keys(), with_target(Partial)] {
        matrix(Sqlite, "", &cells).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_follows_rules_that_depend_on_the_stored_row() {
    matrix(Postgres, "", &with_null_keys()).await;
    for strategy in ["auto", "multi-values"] {
        for cells in [plain(), with_second_index()] {
            matrix(Postgres, &format!("strategy={strategy}"), &cells).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_follows_rules_that_name_their_index_and_writes_identity_columns() {
    for table in [Constraint, Partial, Identity] {
        matrix(Postgres, "", &with_target(table)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_follows_rules_that_depend_on_the_stored_row() {
    for cells in [plain(), with_second_index(), with_null_keys()] {
        matrix(Mysql, "", &cells).await;
    }
}

/// The model of the testkit has the same rules, for tests of applications.
#[test]
fn the_testkit_follows_rules_that_depend_on_the_stored_row() {
    for (situation, batch) in situations() {
        for rule in RULES.into_iter().filter(|rule| *rule != Raw) {
            let (schema, mut model) = (rule.schema("t"), Model::default());
            let row = |schema: &Schema, cells: &Cells| {
                let named = schema.columns().iter().zip(cells);
                let row = named.fold(schema.row(), |row, (c, cell)| row.set(c.name(), Value::from(*cell)).unwrap());
                row.finish().unwrap()
            };
            let plain = Raw.schema("t");
            before().iter().for_each(|cells| assert_eq!(model.apply(&row(&plain, cells)), Effect::Inserted));
            batch.iter().for_each(|cells| _ = model.apply(&row(&schema, cells)));
            let cell = |row: &std::collections::BTreeMap<String, Value>, name: &str| match &row[name] {
                Value::I64(value) => Some(*value),
                _ => None,
            };
            let found = sorted(model.rows("t").iter().map(|row| COLUMNS.map(|name| cell(row, name))));
            assert_eq!(found, rule.expected(&before(), &batch).0, "{rule:?}, {situation}");
        }
    }
}

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

/// Rules with the same outcomes, in every situation of the first table.
const EXPRESSIONS: [Rule; 8] = [Add, AddAndKeep, Bounds, Keep, Greatest, Least, UnlessNull, Raw];

/// The guide shows the model against which the tests above compare the databases.
#[test]
fn the_guide_has_this_matrix() {
    let mut table = "| the batch has | only if newer | the same, some columns | expressions | update only | update only, if newer | \
                     update only, add | delete |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (situation, batch) in situations() {
        let of = |rule: Rule| letters(&rule.expected(&before(), &batch).1);
        assert!(EXPRESSIONS.into_iter().all(|rule| of(rule) == of(Add)), "{situation}");
        let newer = [NewerAndKeep, NewerAndGreatest, NewerAndLeast];
        assert!(newer.into_iter().all(|rule| of(rule) == of(NewerPartly)), "{situation}");
        let cells = [Newer, NewerPartly, Add, UpdateOnly, UpdateOnlyNewer, UpdateOnlyAdd, Delete].map(of);
        table += &format!("| {situation} | {} |\n", cells.join(" | "));
    }
    let mut second = "| rule | outcomes | on MySQL |\n|---|---|---|\n".to_owned();
    let names = [
        (Newer, "only if newer"),
        (NewerPartly, "the same, the unique column is not written"),
        (Add, "add"),
        (Bounds, "least"),
        (UnlessNull, "unless null"),
        (UpdateOnly, "update only"),
        (UpdateOnlyNewer, "update only, if newer"),
        (UpdateOnlyAdd, "update only, add"),
        (Delete, "delete"),
    ];
    let (before, batch) = second_index();
    for (rule, name) in names {
        let of = |database| letters(&rule.expected_unique(database, &before, &batch).1);
        assert_eq!(of(Postgres), of(Sqlite), "{name}");
        let on_mysql = Some(of(Mysql)).filter(|outcomes| *outcomes != of(Postgres)).unwrap_or_default();
        second += &format!(
            "| {name} | {} |{}|\n",
            of(Postgres),
            if on_mysql.is_empty() { " ".to_owned() } else { format!(" {on_mysql} ") }
        );
    }
    let guide = include_str!("../../../../../docs/databases.md");
    for table in [table, second] {
        assert!(guide.contains(&table), "docs/databases.md should have\n{table}");
    }
}
