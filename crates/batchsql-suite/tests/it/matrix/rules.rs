//! The matrix of the rules that depend on the stored row: every rule in every situation on every SQL database, with and
//! without triggers, by table content and by the outcome of every row, against the model of the testkit.

use std::collections::BTreeSet;
use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, Expr, OutcomeKind, PipelineConfig, Schema, Value};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Sqlite};
use batchsql_suite::database::{Database, MySql, Postgres as PostgresDatabase, Sqlite as SqliteDatabase};
use batchsql_suite::digest::Canonical;
use batchsql_testkit::{Effect, Model};
use batchsql_testserver::unique;

use super::setup::with_setup;

/// A row: a key of two columns, a value and a version.
type Cells = [Option<i64>; 4];

const COLUMNS: [&str; 4] = ["a", "b", "v", "w"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Newer,
    NewerPartly,
    Add,
    AddAndKeep,
    Bounds,
    UnlessNull,
    Raw,
    UpdateOnly,
    UpdateOnlyNewer,
    UpdateOnlyAdd,
    Delete,
}

use Rule::{
    Add, AddAndKeep, Bounds, Delete, Newer, NewerPartly, Raw, UnlessNull, UpdateOnly, UpdateOnlyAdd, UpdateOnlyNewer,
};

const RULES: [Rule; 11] =
    [Newer, NewerPartly, Add, AddAndKeep, Bounds, UnlessNull, Raw, UpdateOnly, UpdateOnlyNewer, UpdateOnlyAdd, Delete];

impl Rule {
    fn conflict(self) -> Conflict {
        let update = || Conflict::update(["b", "a"]);
        let only = || Conflict::update_only(["b", "a"]);
        match self {
            Newer => update().only_if_newer("w"),
            // Column v is that of the row that was inserted: every version is sent.
            NewerPartly => Conflict::update_columns(["b", "a"], ["w"]).only_if_newer("w"),
            Add => Conflict::update_columns(["b", "a"], ["w"]).set("v", Expr::add()),
            AddAndKeep => update().set("v", Expr::add()).set("w", Expr::keep()),
            Bounds => update().set("v", Expr::least()).set("w", Expr::greatest()),
            UnlessNull => update().set("v", Expr::unless_null()).set("w", Expr::unless_null()),
            Raw => update().set("v", Expr::raw("COALESCE({old}, 0) * 2 + COALESCE({new}, 0)")),
            UpdateOnly => only(),
            UpdateOnlyNewer => only().only_if_newer("w"),
            UpdateOnlyAdd => only().set("v", Expr::add()),
            Delete => Conflict::delete(["b", "a"]),
        }
    }

    fn schema(self, table: &str) -> Schema {
        let key = Schema::builder(table).column("a", ColumnType::I64).column("b", ColumnType::I64);
        let schema = match self {
            Delete => key,
            _ => key.nullable("v", ColumnType::I64).nullable("w", ColumnType::I64),
        };
        schema.on_conflict(self.conflict()).build().unwrap()
    }

    /// Applies a row to the table: whether it changed something.
    fn apply(self, table: &mut Vec<Cells>, row: &Cells) -> bool {
        let found = table.iter().position(|old| old[..2] == row[..2]);
        let Some(found) = found else {
            let inserts = !matches!(self, UpdateOnly | UpdateOnlyNewer | UpdateOnlyAdd | Delete);
            if inserts {
                table.push(*row);
            }
            return inserts;
        };
        let [.., v, w] = &mut table[found];
        let [.., new_v, new_w] = *row;
        let sum = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (None, other) | (other, None) => other,
            (Some(a), Some(b)) => Some(a + b),
        };
        match self {
            // None is below every number.
            Newer | NewerPartly | UpdateOnlyNewer if new_w <= *w => return false,
            Newer | UpdateOnlyNewer | UpdateOnly => (*v, *w) = (new_v, new_w),
            NewerPartly => *w = new_w,
            Add | UpdateOnlyAdd => (*v, *w) = (sum(*v, new_v), new_w),
            AddAndKeep => (*v, *w) = (sum(*v, new_v), w.or(new_w)),
            Bounds => (*v, *w) = ((*v).into_iter().chain(new_v).min(), (*w).max(new_w)),
            UnlessNull => (*v, *w) = (new_v.or(*v), new_w.or(*w)),
            Raw => (*v, *w) = (Some(v.unwrap_or(0) * 2 + new_v.unwrap_or(0)), new_w),
            Delete => {
                table.remove(found);
            }
        }
        true
    }

    /// The table afterwards, and the outcome of each row.
    fn expected(self, before: &[Cells], batch: &[Cells]) -> (BTreeSet<Cells>, Vec<OutcomeKind>) {
        let mut table = before.to_vec();
        let kind = |is_changed| if is_changed { OutcomeKind::Written } else { OutcomeKind::Ignored };
        let same = |row: usize| (0..batch.len()).filter(move |other| batch[*other][..2] == batch[row][..2]);
        let mut outcomes = vec![None; batch.len()];
        for row in 0..batch.len() {
            if outcomes[row].is_some() {
                continue;
            }
            match self {
                // The content is that of all rows one after the other.
                NewerPartly | Raw | Add | AddAndKeep | Bounds | UnlessNull | UpdateOnlyAdd => {
                    outcomes[row] = Some(kind(self.apply(&mut table, &batch[row])));
                }
                // One row of each key is sent.
                Newer | UpdateOnlyNewer | UpdateOnly | Delete => {
                    let is_versioned = matches!(self, Newer | UpdateOnlyNewer);
                    let version = |other: &usize| if is_versioned { batch[*other][3] } else { None };
                    let newest = same(row).map(|other| version(&other)).max().unwrap();
                    let mut newest_rows = same(row).filter(|other| version(other) == newest);
                    let winner = if is_versioned { newest_rows.next() } else { newest_rows.next_back() }.unwrap();
                    let of_winner = kind(self.apply(&mut table, &batch[winner]));
                    for other in same(row) {
                        outcomes[other] = Some(match of_winner {
                            OutcomeKind::Written if other < winner => OutcomeKind::Superseded,
                            OutcomeKind::Written if other > winner => OutcomeKind::Ignored,
                            of_winner => of_winner,
                        });
                    }
                }
            }
        }
        (table.into_iter().collect(), outcomes.into_iter().flatten().collect())
    }
}

fn situations() -> Vec<(&'static str, Vec<Cells>)> {
    let row = |a, b, v, w| [Some(a), Some(b), Some(v), Some(w)];
    let no_v = |a, b, w| [Some(a), Some(b), None, Some(w)];
    let no_w = |a, b, v| [Some(a), Some(b), Some(v), None];
    vec![
        ("no conflict", vec![row(2, 1, 20, 5), row(3, 1, 30, 5)]),
        ("conflict with the table", vec![row(3, 1, 30, 5), row(1, 1, 11, 6), row(1, 2, 21, 4), row(1, 3, 31, 5)]),
        ("conflict inside the batch", vec![row(2, 1, 20, 5), row(3, 1, 30, 5), row(2, 1, 21, 7), row(2, 1, 22, 6)]),
        ("equal versions", vec![row(2, 1, 20, 5), row(2, 1, 21, 5), row(1, 1, 11, 5), row(1, 1, 12, 5)]),
        ("conflict with both", vec![row(1, 1, 11, 7), row(2, 1, 20, 5), row(1, 1, 12, 6), row(2, 1, 21, 6)]),
        ("older rows after newer ones", vec![row(1, 1, 1, 9), row(1, 1, 2, 8), row(1, 1, 3, 4), row(2, 1, 1, 1)]),
        ("NULL submitted", vec![no_v(1, 1, 6), no_w(1, 2, 21), no_w(2, 1, 20), no_v(2, 1, 5), no_w(2, 1, 22)]),
        ("NULL stored", vec![row(4, 1, 41, 1), no_w(4, 2, 42), row(4, 3, 43, 5), row(4, 1, 42, 2)]),
    ]
}

/// The rows in the table.
fn before() -> Vec<Cells> {
    let row = |a, b, v, w| [Some(a), Some(b), v, w];
    vec![
        row(1, 1, Some(10), Some(5)),
        row(1, 2, Some(20), Some(5)),
        row(1, 3, Some(30), Some(5)),
        row(4, 1, Some(40), None),
        row(4, 2, Some(40), None),
        row(4, 3, None, Some(5)),
    ]
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
        let cells: Vec<Option<i64>> = values.iter().map(cell).collect();
        assert!(rows.insert(cells.try_into().unwrap()), "duplicate row: {values:?}");
    };
    database.read(schema, &mut add).await.unwrap();
    rows
}

/// Triggers that change nothing; `{t}` is the table.
fn triggers(name: DatabaseName) -> Vec<String> {
    match name {
        Postgres => {
            let mut sql = vec![
                "CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$"
                    .to_owned(),
            ];
            let trigger = "CREATE TRIGGER {t}_g BEFORE INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW";
            sql.push(format!("{trigger} EXECUTE FUNCTION {{t}}_f()"));
            sql
        }
        Mysql => ["INSERT", "UPDATE", "DELETE"]
            .map(|event| format!("CREATE TRIGGER {{t}}_{event} BEFORE {event} ON {{t}} FOR EACH ROW SET @batchsql = 1"))
            .to_vec(),
        _ => ["INSERT", "UPDATE", "DELETE"]
            .map(|event| format!("CREATE TRIGGER {{t}}_{event} BEFORE {event} ON {{t}} BEGIN SELECT 1; END"))
            .to_vec(),
    }
}

async fn open(name: DatabaseName, url: &str) -> Box<dyn Database> {
    match name {
        Postgres => Box::new(PostgresDatabase::open(url).await.unwrap()),
        Mysql => Box::new(MySql::open(url).await.unwrap()),
        _ => Box::new(SqliteDatabase::open(Some(url)).unwrap()),
    }
}

async fn matrix(name: DatabaseName, parameters: &str) {
    with_setup(name, async |url, setup| {
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = if parameters.is_empty() { url.to_owned() } else { format!("{url}{separator}{parameters}") };
        let database = open(name, &url).await;
        let config = || {
            // One lane, so that the rows are in one batch.
            let mut config = PipelineConfig::default();
            config.max_concurrency = 1;
            config.flush_interval = Duration::from_secs(600);
            config.retry_for = Duration::from_secs(5);
            config
        };
        for (situation, batch) in situations() {
            for (rule, has_triggers) in RULES.into_iter().flat_map(|rule| [(rule, false), (rule, true)]) {
                let cell = format!("{name:?} {parameters}, {rule:?}, triggers: {has_triggers}, {situation}");
                let table = unique("rules");
                let create =
                    "CREATE TABLE {t} (a bigint NOT NULL, b bigint NOT NULL, v bigint, w bigint, PRIMARY KEY (a, b))";
                setup.execute(create, &table).await;
                if has_triggers {
                    for sql in triggers(name) {
                        setup.execute(&sql, &table).await;
                    }
                }
                let loose = Raw.schema(&table);
                let db = BatchSql::builder(database.sink()).config(config()).start().unwrap();
                let stored = submit(&db, &loose, &before()).await;
                assert!(stored.iter().all(|kind| *kind == OutcomeKind::Written), "{cell}: {stored:?}");
                let outcomes = submit(&db, &rule.schema(&table), &batch).await;
                let report = db.close(Duration::from_secs(10)).await;
                assert_eq!(report.balance.in_flight(), 0, "{cell}");
                let found = content(&*database, &loose).await;
                assert_eq!((found, outcomes), rule.expected(&before(), &batch), "{cell}");
                setup.execute("DROP TABLE {t}", &table).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_follows_rules_that_depend_on_the_stored_row() {
    matrix(Sqlite, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_follows_rules_that_depend_on_the_stored_row() {
    for strategy in ["auto", "multi-values"] {
        matrix(Postgres, &format!("strategy={strategy}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_follows_rules_that_depend_on_the_stored_row() {
    matrix(Mysql, "").await;
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
            let found: BTreeSet<Cells> =
                model.rows("t").iter().map(|row| COLUMNS.map(|name| cell(row, name))).collect();
            assert_eq!(found, rule.expected(&before(), &batch).0, "{rule:?}, {situation}");
        }
    }
}

/// The guide shows the model against which the tests above compare the databases.
#[test]
fn the_guide_has_this_matrix() {
    let mut table = "| the batch has | only if newer | add | update only | update only, if newer | delete |\n\
                     |---|---|---|---|---|---|\n"
        .to_owned();
    for (situation, batch) in situations() {
        let letters = |rule: Rule| {
            let letter = |kind: &OutcomeKind| match kind {
                OutcomeKind::Written => "W",
                OutcomeKind::Ignored => "I",
                OutcomeKind::Superseded => "S",
                other => panic!("no cell of the matrix has {other:?}"),
            };
            rule.expected(&before(), &batch).1.iter().map(letter).collect::<Vec<_>>().join(" ")
        };
        let cells = [Newer, Add, UpdateOnly, UpdateOnlyNewer, Delete].map(letters);
        table += &format!("| {situation} | {} |\n", cells.join(" | "));
    }
    let guide = include_str!("../../../../../docs/databases.md");
    assert!(guide.contains(&table), "docs/databases.md should have\n{table}");
}
