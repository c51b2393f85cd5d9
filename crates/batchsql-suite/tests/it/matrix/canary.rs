//! No value of a row is in an error, a log line, a metric or a report, for any error of the database: rows of many
//! failed writes contain a canary text, which must not occur in any output.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use batchsql::prometheus::PrometheusMetrics;
use batchsql::redis::{Command, Key, RedisOptions, RedisSink};
use batchsql::sqlite::rusqlite::Connection;
use batchsql::{BatchSql, ColumnType, Conflict, DeadLetters, DynSink, Outcome, PipelineConfig, Schema, Value};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Redis, Sqlite};
use batchsql_suite::database::{MySql, Postgres as PostgresDatabase};
use batchsql_testserver::unique;

use super::servers::{on, with};

/// Texts that must not occur in any output: the digits of numbers and times, and [`word`].
const CANARIES: [&str; 2] = ["918273645", "1987-06-05"];

/// A text for each database, because its tests share the log.
fn word(name: DatabaseName) -> String {
    format!("zx-canary-{}-zx", name.name())
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A table that rejects a row, and the row.
struct Fault {
    /// Statements that run before; `{t}` is the table, `{c}` the canary.
    setup: &'static [&'static str],
    columns: &'static [(&'static str, ColumnType)],
    conflict: Conflict,
    values: Vec<Value>,
}

fn fault(setup: &'static [&'static str], columns: &'static [(&'static str, ColumnType)], values: Vec<Value>) -> Fault {
    Fault { setup, columns, conflict: Conflict::none(), values }
}

fn text(name: DatabaseName) -> Value {
    Value::Text(word(name))
}

fn number() -> Value {
    Value::I64(918_273_645)
}

const ID_TEXT: &[(&str, ColumnType)] = &[("id", ColumnType::I64), ("v", ColumnType::Text)];
const ID_NUMBER: &[(&str, ColumnType)] = &[("id", ColumnType::I64), ("v", ColumnType::I64)];

fn date() -> Value {
    Value::Text(format!("{}x", CANARIES[1]))
}

fn faults(name: DatabaseName) -> Vec<Fault> {
    let id_text = |setup| fault(setup, ID_TEXT, vec![Value::I64(1), text(name)]);
    let id_number = |setup| fault(setup, ID_NUMBER, vec![Value::I64(1), number()]);
    let taken = |setup| fault(setup, ID_NUMBER, vec![number(), Value::I64(1)]);
    match name {
        Postgres => vec![
            id_text(&["CREATE TABLE {t} (id bigint, v varchar(3))"]),
            id_text(&["CREATE TABLE {t} (id bigint, v text CHECK (length(v) < 3))"]),
            id_text(&["CREATE TABLE {t} (id bigint, v text UNIQUE)", "INSERT INTO {t} VALUES (0, '{c}')"]),
            id_text(&["CREATE TABLE {t} (id bigint, v inet)"]),
            id_text(&["CREATE TABLE {t} (id bigint, v ltree)"]),
            id_text(&["CREATE TYPE {t}_kind AS ENUM ('a')", "CREATE TABLE {t} (id bigint, v {t}_kind)"]),
            fault(&["CREATE TABLE {t} (id bigint, v interval)"], ID_TEXT, vec![Value::I64(1), date()]),
            id_number(&["CREATE TABLE {t} (id bigint, v bigint REFERENCES {t}_parent)"]),
            taken(&["CREATE TABLE {t} (id bigint PRIMARY KEY, v bigint)", "INSERT INTO {t} VALUES (918273645, 1)"]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v text)",
                "CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'bad value %', NEW.v USING DETAIL = NEW.v, HINT = NEW.v, ERRCODE = '23514'; END $$",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_f()",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v text)",
                "CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'bad value %', NEW.v USING ERRCODE = 'PT400'; END $$",
                "CREATE TRIGGER {t}_g AFTER INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_f()",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v text)",
                "CREATE FUNCTION {t}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 EXECUTE format('INSERT INTO %I VALUES (1)', NEW.v); RETURN NEW; END $$",
                "CREATE TRIGGER {t}_g AFTER INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_f()",
            ]),
        ],
        Mysql => vec![
            id_text(&["CREATE TABLE {t} (id bigint, v varchar(3))"]),
            id_text(&["CREATE TABLE {t} (id bigint, v varchar(99) CHECK (length(v) < 3))"]),
            id_text(&["CREATE TABLE {t} (id bigint, v varchar(99) UNIQUE)", "INSERT INTO {t} VALUES (0, '{c}')"]),
            id_text(&["CREATE TABLE {t} (id bigint, v enum('a'))"]),
            id_number(&[
                "CREATE TABLE {t} (id bigint, v bigint, FOREIGN KEY (v) REFERENCES {t}_parent (id)) ENGINE=InnoDB",
            ]),
            taken(&["CREATE TABLE {t} (id bigint PRIMARY KEY, v bigint)", "INSERT INTO {t} VALUES (918273645, 1)"]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v varchar(99))",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = NEW.v",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v varchar(99))",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW
                 SIGNAL SQLSTATE '23000' SET MESSAGE_TEXT = NEW.v, MYSQL_ERRNO = 1452",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v varchar(99))",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW
                 SIGNAL SQLSTATE '42S02' SET MESSAGE_TEXT = NEW.v, MYSQL_ERRNO = 1146",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v varchar(99))",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW
                 SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = NEW.v, MYSQL_ERRNO = 31999",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id bigint, v varchar(99))",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} FOR EACH ROW SET NEW.id = CAST(NEW.v AS DATE) + (SELECT 1 UNION SELECT 2)",
            ]),
        ],
        Sqlite => vec![
            id_text(&["CREATE TABLE {t} (id INTEGER, v TEXT CHECK (length(v) < 3))"]),
            id_text(&["CREATE TABLE {t} (id INTEGER, v TEXT UNIQUE)", "INSERT INTO {t} VALUES (0, '{c}')"]),
            id_number(&["CREATE TABLE {t} (id INTEGER, v INTEGER REFERENCES {t}_parent (id))"]),
            taken(&["CREATE TABLE {t} (id INTEGER PRIMARY KEY, v INTEGER)", "INSERT INTO {t} VALUES (918273645, 1)"]),
            id_text(&[
                "CREATE TABLE {t} (id INTEGER, v TEXT)",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} BEGIN SELECT json(NEW.v); END",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id INTEGER, v TEXT)",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} BEGIN SELECT json_extract('{}', NEW.v); END",
            ]),
            id_text(&[
                "CREATE TABLE {t} (id INTEGER, v TEXT)",
                "CREATE TRIGGER {t}_g BEFORE INSERT ON {t} BEGIN SELECT RAISE(ABORT, 'the row is bad'); END",
            ]),
        ],
        Redis => vec![],
    }
}

/// A parent table without the row that the foreign keys of faults require.
fn parent(name: DatabaseName) -> &'static str {
    match name {
        Mysql => "CREATE TABLE {t}_parent (id bigint PRIMARY KEY) ENGINE=InnoDB",
        Postgres | Sqlite | Redis => "CREATE TABLE {t}_parent (id bigint PRIMARY KEY)",
    }
}

/// Appends every text of an error and of its sources.
fn say(out: &mut String, error: &(dyn Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        write!(out, "{error}\n{error:?}\n").unwrap();
        next = error.source();
    }
}

/// Writes the rows of every fault, and returns all output.
async fn run(sink: DynSink, folder: &Path, rows: &[(Schema, Vec<Value>)]) -> (usize, String) {
    let mut out = String::new();
    let metrics = PrometheusMetrics::new().unwrap();
    let letters = folder.join("failed.ndjson");
    let config = PipelineConfig::default().park_for(Duration::ZERO);
    let db = BatchSql::builder(sink)
        .config(config)
        .metrics_reporter(metrics.reporter("canary"))
        .dead_letters(DeadLetters::file(&letters).unwrap())
        .start()
        .unwrap();
    let mut failed = 0;
    for (schema, values) in rows {
        let row = schema.row().set_all(values.clone()).unwrap().finish().unwrap();
        let receipt = match db.submit_tracked(&row).await {
            Ok(receipt) => receipt,
            Err(error) => {
                say(&mut out, &error);
                failed += 1;
                continue;
            }
        };
        let balance = db.flush().await.unwrap();
        let outcome: Outcome = receipt.await;
        write!(out, "{outcome}\n{outcome:?}\n{balance:?}\n{:?}\n", db.health()).unwrap();
        let row = outcome.failure().unwrap_or_else(|| panic!("{schema:?} accepted the row"));
        failed += 1;
        write!(out, "{row}\n{row:?}\n").unwrap();
        say(&mut out, row.error().unwrap());
    }
    let report = db.close(Duration::from_secs(60)).await;
    write!(out, "{report:?}\n{db:?}\n{}", metrics.render()).unwrap();
    // The file contains the rows on purpose.
    for line in std::fs::read_to_string(&letters).unwrap().lines() {
        let mut letter: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(letter.as_object_mut().unwrap().remove("row").is_some(), "{line}");
        writeln!(out, "{letter}").unwrap();
    }
    (failed, out)
}

/// Checks that no line holds a canary.
fn found(name: DatabaseName, out: &str) {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(log.contains("rows were not written"), "nothing was logged");
    let word = word(name);
    let has_canary = |line: &str| line.contains(&word) || CANARIES.iter().any(|canary| line.contains(canary));
    let lines = out.lines().chain(log.lines());
    let found: Vec<&str> = lines.filter(|line| has_canary(line)).collect();
    assert!(found.is_empty(), "{name:?}: {found:#?}");
}

fn keep_the_log() {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::TRACE);
    // The tests of this file share the subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber.with_writer(|| Log).finish());
}

async fn no_value_comes_out(name: DatabaseName, parameters: &str) {
    keep_the_log();
    with(name, parameters, async |own| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("canary.db");
        let url = own.dsn.clone().unwrap_or_else(|| format!("sqlite://{}", file.display()));
        let mut statements = Vec::new();
        let mut rows = Vec::new();
        if name == Postgres {
            statements.push("CREATE EXTENSION IF NOT EXISTS ltree".to_owned());
        }
        for Fault { setup, columns, conflict, values } in faults(name) {
            let table = unique("canary");
            statements.push(parent(name).replace("{t}", &table));
            statements.extend(setup.iter().map(|sql| sql.replace("{t}", &table).replace("{c}", &word(name))));
            let schema = columns.iter().fold(Schema::builder(&*table), |schema, (name, ty)| schema.column(*name, *ty));
            rows.push((schema.on_conflict(conflict).build().unwrap(), values));
        }
        match name {
            Postgres => {
                let database = PostgresDatabase::open(&url).await.unwrap();
                for sql in &statements {
                    database.execute(sql).await.unwrap();
                }
            }
            Mysql => {
                let database = MySql::open(&url).await.unwrap();
                for sql in &statements {
                    database.execute(sql).await.unwrap();
                }
            }
            Sqlite => {
                let conn = Connection::open(&file).unwrap();
                statements.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
            }
            Redis => {}
        }
        let (failed, out) = run(batchsql::connect(&url).await.unwrap(), folder.path(), &rows).await;
        assert_eq!(failed, rows.len());
        found(name, &out);
    })
    .await;
}

#[tokio::test]
async fn no_value_comes_out_of_postgres() {
    no_value_comes_out(Postgres, "").await;
}

#[tokio::test]
async fn no_value_comes_out_of_mysql() {
    no_value_comes_out(Mysql, "").await;
}

/// The values are in the text of the statements.
#[tokio::test]
async fn no_value_comes_out_of_mysql_with_values_in_text() {
    no_value_comes_out(Mysql, "values_in_text=always").await;
}

#[tokio::test]
async fn no_value_comes_out_of_sqlite() {
    no_value_comes_out(Sqlite, "").await;
}

/// A score that is not a number, an unknown command, and scripts that return their arguments as errors.
#[tokio::test]
async fn no_value_comes_out_of_redis() {
    keep_the_log();
    on(Redis, async |own| {
        let folder = tempfile::tempdir().unwrap();
        let table = |name: &str| format!("{}{name}", unique("canary"));
        let words = |words: &[&str]| {
            words.iter().map(|word| Value::Text((*word).into())).chain([text(Redis)]).collect::<Vec<_>>()
        };
        let writes: [(Command, Vec<Value>); 4] = [
            (Command::zadd(Key::constant(table("score")), "v0", "v0").into(), words(&[])),
            (Command::raw("NOSUCH").into(), words(&["key"])),
            (Command::raw("EVAL").into(), words(&["return redis.error_reply(ARGV[1])", "0"])),
            (Command::raw("EVAL").into(), words(&["return redis.error_reply('WRONGTYPE ' .. ARGV[1])", "0"])),
        ];
        let mut options = own.dsn.as_deref().unwrap().parse::<RedisOptions>().unwrap();
        let mut rows = Vec::new();
        for (command, values) in writes {
            let table = table("command");
            options = options.command(&table, command);
            let columns = (0..values.len()).map(|column| format!("v{column}"));
            let schema = columns.fold(Schema::builder(&*table), |schema, name| schema.column(name, ColumnType::Text));
            rows.push((schema.build().unwrap(), values));
        }
        let sink = DynSink::new(RedisSink::with_options(&options).await.unwrap());
        let (failed, out) = run(sink, folder.path(), &rows).await;
        assert_eq!(failed, rows.len());
        found(Redis, &out);
    })
    .await;
}
