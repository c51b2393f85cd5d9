//! Errors of rows and errors of tables, on real servers: a row that an input function, a trigger or an expression
//! rejects fails no other row, for any error code; rows of a broken table wait until it is repaired.

use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, DynRow, OutcomeKind, PipelineConfig, Schema};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Sqlite};
use batchsql_testserver::unique;

use super::setup::with_setup;

/// The text that a trigger rejects.
const BAD: &str = "a..b";
const GOOD: &str = "a.b";

/// A table that accepts one text and rejects another.
#[derive(Debug)]
struct Poison {
    /// `{t}` is the table.
    statements: Vec<String>,
    good: &'static str,
    bad: &'static str,
}

/// Tables that reject the row of a text.
fn poisons(name: DatabaseName) -> Vec<Poison> {
    let typed = |ty: &str, good, bad| {
        let table = format!("CREATE TABLE {{t}} (id bigint PRIMARY KEY, path {ty})");
        Poison { statements: vec!["CREATE EXTENSION IF NOT EXISTS ltree".to_owned(), table], good, bad }
    };
    let usual = |statements| Poison { statements, good: GOOD, bad: BAD };
    let trigger = |body: &str| {
        usual(vec![
            "CREATE TABLE {t} (id bigint PRIMARY KEY, path text)".to_owned(),
            format!(
                "CREATE FUNCTION {{t}}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.path = '{BAD}' THEN {body} END IF; RETURN NEW; END $$"
            ),
            "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_f()".to_owned(),
        ])
    };
    let raise = |code: &str| trigger(&format!("RAISE EXCEPTION 'no' USING ERRCODE = '{code}';"));
    let signal = |body: &str| {
        usual(vec![
            "CREATE TABLE {t} (id bigint PRIMARY KEY, path varchar(99)) ENGINE=InnoDB".to_owned(),
            format!(
                "CREATE TRIGGER {{t}}_g BEFORE INSERT ON {{t}} FOR EACH ROW BEGIN
                 IF NEW.path = '{BAD}' THEN {body} END IF; END"
            ),
        ])
    };
    match name {
        Postgres => vec![
            // Their input functions answer 42601 (syntax error).
            typed("ltree", GOOD, BAD),
            typed("tsquery", "a & b", "a &"),
            typed("jsonpath", "$.a", "$.a["),
            // 42P01, for a table that the value names.
            typed("regclass", "pg_class", "no_such_table"),
            raise("PT400"),
            raise("42501"),
            raise("55000"),
            raise("0A000"),
            trigger("EXECUTE 'INSERT INTO no_such_table VALUES (1)';"),
            trigger("PERFORM no_such_function();"),
        ],
        Mysql => vec![
            signal("SET NEW.id = (SELECT 1 UNION SELECT 2);"),
            signal("SIGNAL SQLSTATE '42S02' SET MYSQL_ERRNO = 1146;"),
            signal("SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 31999;"),
            signal("SIGNAL SQLSTATE '42000' SET MYSQL_ERRNO = 1142;"),
            signal("INSERT INTO no_such_table VALUES (1);"),
        ],
        _ => vec![usual(vec![
            "CREATE TABLE {t} (id INTEGER PRIMARY KEY, path TEXT)".to_owned(),
            format!(
                "CREATE TRIGGER {{t}}_g BEFORE INSERT ON {{t}} WHEN NEW.path = '{BAD}' BEGIN SELECT json(NEW.path); END"
            ),
        ])],
    }
}

/// A table with a trigger that writes to a missing table, and the statement that creates that table.
fn broken(name: DatabaseName) -> (Vec<&'static str>, &'static str) {
    match name {
        Postgres => (
            vec![
                "CREATE TABLE {t} (id bigint PRIMARY KEY, path text)",
                "CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO {t}_log VALUES (NEW.id); RETURN NEW; END $$",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_f()",
            ],
            "CREATE TABLE {t}_log (id bigint)",
        ),
        Mysql => (
            vec![
                "CREATE TABLE {t} (id bigint PRIMARY KEY, path varchar(99)) ENGINE=InnoDB",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW INSERT INTO {t}_log VALUES (NEW.id)",
            ],
            "CREATE TABLE {t}_log (id bigint) ENGINE=InnoDB",
        ),
        _ => (
            vec![
                "CREATE TABLE {t} (id INTEGER PRIMARY KEY, path TEXT)",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} BEGIN INSERT INTO {t}_log VALUES (NEW.id); END",
            ],
            "CREATE TABLE {t}_log (id INTEGER)",
        ),
    }
}

fn row(schema: &Schema, id: i64, path: &str) -> DynRow {
    schema.row().set("id", id).unwrap().set("path", path).unwrap().finish().unwrap()
}

/// 300 rows with two bad ones: small and large batches, with a key and without.
async fn a_bad_row_takes_no_other(name: DatabaseName) {
    with_setup(name, async |url, setup| {
        for poison in poisons(name) {
            for (flush_size, conflict) in [
                (1, Conflict::none()),
                (500, Conflict::none()),
                (1, Conflict::ignore(["id"])),
                (500, Conflict::update(["id"])),
            ] {
                let table = unique("guilt");
                for sql in &poison.statements {
                    setup.execute(sql, &table).await;
                }
                let schema = Schema::builder(&*table).column("id", ColumnType::I64).column("path", ColumnType::Text);
                let schema = schema.on_conflict(conflict.clone()).build().unwrap();
                let config = PipelineConfig::default().flush_size(flush_size);
                let db = BatchSql::builder(batchsql::connect(url).await.unwrap()).config(config).start().unwrap();
                let mut receipts = Vec::new();
                for id in 0..300 {
                    let path = if matches!(id, 0 | 177) { poison.bad } else { poison.good };
                    receipts.push(db.submit_tracked(&row(&schema, id, path)).await.unwrap());
                }
                db.flush().await.unwrap();
                let mut rejected = Vec::new();
                for (id, receipt) in receipts.into_iter().enumerate() {
                    let outcome = receipt.await;
                    if let Some(error) = outcome.failure().and_then(|failed| failed.error()) {
                        // The table is there, and the text of the row is not for the log.
                        let text = error.to_string();
                        assert!(!text.contains("table does not exist") && !text.contains(poison.bad), "{text}");
                    }
                    match outcome.kind() {
                        OutcomeKind::Rejected => rejected.push(id),
                        kind => assert_eq!(kind, OutcomeKind::Written, "{poison:?} {flush_size} {id}: {outcome}"),
                    }
                }
                assert_eq!(rejected, [0, 177], "{poison:?} {flush_size} {conflict:?}");
                db.close(Duration::from_secs(60)).await;
            }
        }
    })
    .await;
}

async fn a_broken_table_keeps_its_rows(name: DatabaseName) {
    with_setup(name, async |url, setup| {
        let (statements, repair) = broken(name);
        for (flush_size, conflict) in [(1, Conflict::none()), (500, Conflict::update(["id"]))] {
            let table = unique("guilt");
            for sql in &statements {
                setup.execute(sql, &table).await;
            }
            let schema = Schema::builder(&*table).column("id", ColumnType::I64).column("path", ColumnType::Text);
            let schema = schema.on_conflict(conflict).build().unwrap();
            // Far longer than the test takes, so that no row is rejected by a timeout.
            let park_for = Duration::from_secs(3_600);
            let config = PipelineConfig::default().flush_size(flush_size).park_for(park_for);
            let db = BatchSql::builder(batchsql::connect(url).await.unwrap()).config(config).start().unwrap();
            for id in 0..100 {
                db.submit(&row(&schema, id, GOOD)).await.unwrap();
            }
            while db.health().parked.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(db.balance().failed(), 0, "{:?}", db.health());
            setup.execute(repair, &table).await;
            let balance = db.flush().await.unwrap();
            assert_eq!((balance.written(), balance.failed()), (100, 0));
            db.close(Duration::from_secs(60)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_takes_no_other_on_postgres() {
    a_bad_row_takes_no_other(Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_takes_no_other_on_mysql() {
    a_bad_row_takes_no_other(Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_takes_no_other_on_sqlite() {
    a_bad_row_takes_no_other(Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_table_keeps_its_rows_on_postgres() {
    a_broken_table_keeps_its_rows(Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_table_keeps_its_rows_on_mysql() {
    a_broken_table_keeps_its_rows(Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_table_keeps_its_rows_on_sqlite() {
    a_broken_table_keeps_its_rows(Sqlite).await;
}
