//! A process that feeds a file is killed again and again (SIGKILL) while the file grows: every line is in a table without a key
//! once, in SQLite and in PostgreSQL; and at least once without the option.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use batchsql_core::{BatchSql, BatchSqlBuilder, ColumnType, DynSink, PipelineConfig, Schema};
use batchsql_feed::file::{FileFeed, FileOptions};
use batchsql_postgres::PostgresSink;
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection, Row};
use batchsql_sqlite::{SqliteOptions, SqliteSink};
use batchsql_testserver::{Kills, Kind, Random, dsn, unique};

use batchsql_testserver::process::{self, Process, command};

/// Kills of a normal run; `BATCHSQL_KILLS` asks for more.
const KILLS: u64 = 12;
const LONG: Duration = Duration::from_secs(60);
/// Every so many lines one is no row, and one is refused by the database.
const NO_ROW: i64 = 97;
const REFUSED: i64 = 89;

fn schema(table: &str) -> Schema {
    Schema::builder(table).column("id", ColumnType::I64).column("note", ColumnType::Text).build().unwrap()
}

async fn sink(database: &str) -> DynSink {
    match database.strip_prefix("sqlite:") {
        Some(path) => DynSink::new(SqliteSink::with_options(&SqliteOptions::file(path)).unwrap()),
        None => DynSink::new(PostgresSink::connect(database).await.unwrap()),
    }
}

async fn start(arguments: &[String]) -> FileFeed {
    let [path, database, table, guarantee] = arguments else { panic!("path, database, table, guarantee") };
    let config = PipelineConfig::default().flush_size(40).flush_interval(Duration::from_millis(2));
    let builder: BatchSqlBuilder<DynSink> = BatchSql::builder(sink(database).await).config(config.max_batch_rows(100));
    let options = FileOptions::new(path, &schema(table)).window_bytes(16 << 10).look_every(Duration::from_millis(1));
    let options = if guarantee == "exactly" { options.exactly_once("killed") } else { options };
    FileFeed::start(builder, options).await.unwrap()
}

/// Feeds the file without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a program, started by other tests"]
async fn feeder() {
    let Some(arguments) = process::arguments() else { return };
    let feed = start(&arguments).await;
    process::tell("ready");
    loop {
        let lines = feed.flush().await.unwrap();
        process::tell(lines);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes the rest, and prints the number of the last line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a program, started by other tests"]
async fn drain() {
    let Some(arguments) = process::arguments() else { return };
    let feed = start(&arguments).await;
    let lines = feed.flush().await.unwrap();
    assert_eq!(feed.close(LONG).await.lines, lines);
    process::tell(lines);
}

fn line(id: i64) -> String {
    match id {
        id if id % NO_ROW == 0 => format!("{{\"id\":{id}\n"),
        id if id % REFUSED == 0 => format!("{{\"id\":-{id},\"note\":\"refused\"}}\n"),
        id => format!("{{\"id\":{id},\"note\":\"{}\"}}\n", "n".repeat(id as usize % 60)),
    }
}

/// Appends lines in two parts, so that the last one has no end for a while.
fn append(file: &mut File, next: &mut i64, count: u64, random: &mut Random) {
    let text: String = (0..count)
        .map(|_| {
            *next += 1;
            line(*next)
        })
        .collect();
    let cut = random.below(text.len() as u64 + 1) as usize;
    file.write_all(&text.as_bytes()[..cut]).unwrap();
    file.flush().unwrap();
    file.write_all(&text.as_bytes()[cut..]).unwrap();
}

/// Kills feeders, and lets the last one write the rest: how many lines the file has.
fn run(path: &Path, database: &str, table: &str, guarantee: &str) -> i64 {
    let (mut kills, mut next) = (Kills::of_run(KILLS), 0);
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let arguments = [path.to_str().unwrap(), database, table, guarantee];
    append(&mut file, &mut next, 1, &mut kills.random);
    for _ in 0..kills.count {
        append(&mut file, &mut next, 500, &mut kills.random);
        let mut feeder = command("file_kill::feeder", &arguments);
        // Some are killed before they have begun.
        kills.kill(&mut feeder, &[0, 1, 2, 3], Duration::from_millis(30), |random| {
            let count = random.below(400);
            append(&mut file, &mut next, count, random);
        });
    }
    let seed = kills.seed;
    let told = Process::start(&mut command("file_kill::drain", &arguments)).unwrap().finish();
    assert_eq!(told.last().map(String::as_str), Some(&*next.to_string()), "seed {seed}: the whole file has ended");
    next
}

/// The ids of rows that are in the table, of a file of so many lines.
fn good(lines: i64) -> Vec<i64> {
    (1..=lines).filter(|id| id % NO_ROW != 0 && id % REFUSED != 0).collect()
}

/// The lines that are not in the table are in their files.
fn check_files(path: &Path, lines: i64) {
    let read = |ending: &str| {
        let name = format!("{}{ending}", path.to_str().unwrap());
        let text = std::fs::read_to_string(name).unwrap();
        let line = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["id"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
        };
        text.lines().map(line).collect::<BTreeSet<i64>>()
    };
    let bad: BTreeSet<i64> = (1..=lines).filter(|id| id % NO_ROW == 0).collect();
    let refused: BTreeSet<i64> = (1..=lines).filter(|id| id % NO_ROW != 0 && id % REFUSED == 0).collect();
    assert_eq!((read(".bad-lines.ndjson"), read(".dead-letters.ndjson")), (bad, refused));
}

/// The ids in the order in which they were written.
async fn of_sqlite(path: &Path) -> Vec<i64> {
    let sink = SqliteSink::with_options(&SqliteOptions::file(path)).unwrap();
    let read = |conn: &mut batchsql_sqlite::rusqlite::Connection| {
        let mut statement = conn.prepare("SELECT id FROM t ORDER BY rowid")?;
        statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()
    };
    sink.call(read).await.unwrap()
}

async fn sqlite(guarantee: &str) -> (tempfile::TempDir, i64, Vec<i64>) {
    let folder = tempfile::tempdir().unwrap();
    let (path, database) = (folder.path().join("rows.ndjson"), folder.path().join("db"));
    let sink = SqliteSink::with_options(&SqliteOptions::file(&database)).unwrap();
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER CHECK (id >= 0), note TEXT)";
    sink.call(move |conn| conn.execute_batch(sql)).await.unwrap();
    drop(sink);
    let (of_run, guarantee) = (path.clone(), guarantee.to_owned());
    let url = format!("sqlite:{}", database.display());
    let lines = tokio::task::spawn_blocking(move || run(&of_run, &url, "t", &guarantee)).await.unwrap();
    check_files(&path, lines);
    let written = of_sqlite(&database).await;
    (folder, lines, written)
}

#[tokio::test]
async fn every_line_is_in_sqlite_once() {
    let (_folder, lines, written) = sqlite("exactly").await;
    assert_eq!(written, good(lines), "each once, in the order of the file");
}

#[tokio::test]
async fn every_line_is_in_sqlite_at_least_once() {
    let (_folder, lines, written) = sqlite("at least").await;
    let found: BTreeSet<i64> = written.iter().copied().collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), good(lines));
    println!("{} of {lines} lines were written again", written.len() - good(lines).len());
}

#[tokio::test]
async fn every_line_is_in_postgres_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.ndjson");
    let (dsn, table) = (dsn(Kind::Postgres), unique("file"));
    let mut conn = PgConnection::connect(&dsn).await.unwrap();
    let create = format!("CREATE TABLE {table} (id bigint CHECK (id >= 0), note text, number serial)");
    conn.execute(&*create).await.unwrap();
    let (of_run, of_table) = (path.clone(), table.clone());
    let lines = tokio::task::spawn_blocking(move || run(&of_run, &dsn, &of_table, "exactly")).await.unwrap();
    check_files(&path, lines);
    let read = format!("SELECT id FROM {table} ORDER BY number");
    let rows = conn.fetch_all(&*read).await.unwrap();
    let written: Vec<i64> = rows.iter().map(|row| row.try_get(0).unwrap()).collect();
    conn.execute(&*format!("DROP TABLE {table}")).await.unwrap();
    assert_eq!(written, good(lines), "each once, in the order of the file");
}
