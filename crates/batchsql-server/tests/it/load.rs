//! `batchsql load` with SQLite.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{LONG, Place};

/// Without a key: a row that is written twice shows.
const TABLE: &str = "CREATE TABLE orders (id INTEGER NOT NULL CHECK (id >= 0), note TEXT, total REAL);";

fn csv(ids: std::ops::Range<u64>) -> String {
    let lines = ids.map(|id| format!("{id},\"note, {id}\",{}.5\n", id % 100));
    std::iter::once("id,note,total\n".to_owned()).chain(lines).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn load<'a>(place: &Place, more: &[&'a str]) -> Vec<String> {
    let dsn = format!("sqlite:{}", place.path("a.db").display());
    let mut arguments: Vec<String> = ["load", "--database", &dsn, "--table", "orders"].map(str::to_owned).to_vec();
    arguments.extend(more.iter().map(|&argument: &&'a str| argument.to_owned()));
    arguments
}

fn run(place: &Place, more: &[&str]) -> crate::program::Ran {
    let arguments = load(place, more);
    place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn files_of_every_form_are_loaded_once() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", csv(0..1000));
    place.write("b.csv.gz", gzip(&csv(1000..2000)));
    let lines: String = (2000..3000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    place.write(
        "c.ndjson.zst",
        ruzstd::encoding::compress_to_vec(lines.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest),
    );
    place.write("d.txt", csv(3000..3001).replace(',', ";").replace("\"note; ", "\"note, "));
    let ran = run(&place, &["a.csv", "b.csv.gz", "c.ndjson.zst"]);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    assert!(ran.out().starts_with("a.csv: 1000 records, 1000 written, "), "{}", ran.all());
    let ran = run(&place, &["d.txt", "--format", "csv", "--delimiter", ";"]);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 3001);
    assert_eq!(place.number("SELECT sum(id) FROM orders"), (0..3001).sum::<i64>());
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE note = 'note, 7' AND total = 7.5"), 1);
    // A copy is the same file.
    std::fs::copy(place.path("a.csv"), place.path("copy.csv")).unwrap();
    let ran = run(&place, &["copy.csv"]);
    assert!(ran.code() == 0 && ran.out().contains("1000 records, already loaded"), "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 3001);
    let ran = run(&place, &["a.csv", "--again", "second"]);
    assert!(ran.code() == 0 && ran.out().contains("1000 written"), "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 4001);
}

#[test]
fn rejected_records_have_their_line_and_reason() {
    let place = Place::new();
    place.sql(TABLE);
    let mut text = csv(0..6000);
    text = text.replacen("\n100,", "\n-100,", 1).replacen("\n4000,", "\nfour,", 1).replacen(
        "\n5500,\"note, 5500\"",
        "\n5500",
        1,
    );
    text.push_str("6000,\"two\nlines\",x\n");
    place.write("a.csv", text);
    let ran = run(&place, &["a.csv"]);
    assert_eq!(ran.code(), 1, "{}", ran.all());
    assert!(ran.out().contains("6001 records, 5997 written, 4 rejected, see a.csv.rejects.ndjson"), "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 5997);
    let rejects = std::fs::read_to_string(place.path("a.csv.rejects.ndjson")).unwrap();
    let rejects: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut found: Vec<(u64, String, String)> = rejects
        .iter()
        .map(|reject| {
            (
                reject["line"].as_u64().unwrap(),
                reject["reason"].as_str().unwrap().to_owned(),
                reject["text"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    found.sort();
    let parts = [
        (102, "CHECK", "-100,"),
        (4002, "column \"id\"", "four,"),
        (5502, "2 fields", "5500,"),
        (6002, "column \"total\"", "6000,\"two\nlines\",x"),
    ];
    for ((line, reason, text), (expected, part, start)) in found.iter().zip(parts) {
        assert!(*line == expected && reason.contains(part) && text.starts_with(start), "{line} {reason} {text:?}");
    }
    assert_eq!(found.len(), 4);
    let ran = run(&place, &["a.csv"]);
    assert!(ran.code() == 1 && ran.out().contains("already loaded, 4 rejected"), "{}", ran.all());
}

/// A quote that is not closed makes one record of the rest of the file, which is no row.
#[test]
fn a_quote_that_is_not_closed_is_a_rejected_record() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", "id,note,total\n1,a,1.5\n2,\"b,2.5\n3,c,3.5\n");
    // Its only open field is a text, so it would fit.
    place.write("b.csv", "id,note\n4,d\n5,\"e\n6,f\n");
    for (name, line) in [("a.csv", 3), ("b.csv", 3)] {
        let ran = run(&place, &[name]);
        assert!(ran.code() == 1 && ran.out().contains("2 records, 1 written, 1 rejected"), "{name}: {}", ran.all());
        let rejects = std::fs::read_to_string(place.path(&format!("{name}.rejects.ndjson"))).unwrap();
        let reject: Value = serde_json::from_str(&rejects).unwrap();
        let reason = format!("the quote that was opened in line {line} is not closed");
        assert_eq!((&reject["reason"], &reject["record"]), (&Value::from(reason), &Value::from(2)));
    }
    assert_eq!(place.number("SELECT sum(id) FROM orders"), 5, "1 and 4");
    place.write("c.csv", "id,\"note\n1,a\n");
    let ran = run(&place, &["c.csv"]);
    assert!(ran.code() == 2 && ran.err().contains("the header: the quote that was opened in line 1"), "{}", ran.all());
}

/// The CSV reader would take it as a part of the field.
#[test]
fn text_behind_a_closing_quote_is_a_rejected_record() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", "id,note\n1,\"a\"b\n2,\"c\"\n3,\"x\"\"y\"z\"w\"\n\n4,d\"e\"\n\"5\" ,\"f\"\n");
    let ran = run(&place, &["a.csv"]);
    assert!(ran.code() == 1 && ran.out().contains("5 records, 2 written, 3 rejected"), "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE note IN ('c', 'd\"e\"')"), 2);
    let rejects = std::fs::read_to_string(place.path("a.csv.rejects.ndjson")).unwrap();
    let rejects: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = rejects.iter().map(|reject| reject["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["1,\"a\"b", "3,\"x\"\"y\"z\"w\"", "\"5\" ,\"f\""], "as they are in the file");
    let lines: Vec<u64> = rejects.iter().map(|reject| reject["line"].as_u64().unwrap()).collect();
    assert_eq!(lines[..2], [2, 4]);
    assert!(rejects.iter().all(|reject| reject["reason"].as_str().unwrap().contains("must be doubled")));
    place.write("b.csv", "id,\"no\"te\n1,a\n");
    let ran = run(&place, &["b.csv"]);
    assert!(ran.code() == 2 && ran.err().contains("the header: text follows the closing quote"), "{}", ran.all());
}

/// They have values of rows.
#[test]
#[cfg(unix)]
fn files_that_a_load_makes_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", "id\n1\n-1\n");
    let ran = run(&place, &["a.csv", "--at-least-once"]);
    assert_eq!(ran.code(), 1, "{}", ran.all());
    for name in ["a.csv.rejects.ndjson", "a.csv.batchsql-load"] {
        let mode = std::fs::metadata(place.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Also after the lines of this load were replaced.
    let other = run(&place, &["a.csv", "--at-least-once", "--again", "x"]);
    assert_eq!(other.code(), 1, "{}", other.all());
    std::fs::remove_file(place.path("a.csv.batchsql-load")).unwrap();
    run(&place, &["a.csv", "--at-least-once"]);
    let mode = std::fs::metadata(place.path("a.csv.rejects.ndjson")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A second load of a file would write its rows twice.
#[test]
fn a_file_is_loaded_at_least_once_by_one_process_at_a_time() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", csv(0..10));
    let mark = place.write("a.csv.batchsql-load", "");
    let lock = std::fs::File::open(&mark).unwrap();
    lock.lock().unwrap();
    let ran = run(&place, &["a.csv", "--at-least-once"]);
    assert!(
        ran.code() == 3 && ran.err().contains("another process loads this file now, or another source"),
        "{}",
        ran.all()
    );
    assert_eq!(place.number("SELECT count(*) FROM orders"), 0);
    drop(lock);
    let ran = run(&place, &["a.csv", "--at-least-once"]);
    assert!(ran.code() == 0 && ran.out().contains("10 written"), "{}", ran.all());
}

/// A row that is written twice would be added twice.
#[test]
fn what_adds_is_not_loaded_at_least_once() {
    let place = Place::new();
    place.sql("CREATE TABLE sums (id INTEGER PRIMARY KEY, n INTEGER);");
    let table = "[[tables]]\nname = \"sums\"\nrule = \"update\"\nset = { n = \"add\" }\n";
    place.write("b.toml", format!("{}{table}", place.database()));
    place.write("a.csv", "id,n\n1,5\n");
    let ran = place.run(&["load", "a.csv", "--config", "b.toml", "--at-least-once"]);
    assert!(ran.code() == 2 && ran.err().contains("table `sums` has a rule that adds (`set`)"), "{}", ran.all());
    let source = "[[sources]]\nid = \"a\"\ntable = \"sums\"\nfiles = \"*.csv\"\nat_least_once = true\n";
    place.write("c.toml", format!("{}{table}{source}", place.database()));
    let ran = place.run(&["check", "c.toml"]);
    assert!(ran.code() == 2 && ran.all().contains("table `sums` has a rule that adds (`set`)"), "{}", ran.all());
    let ran = place.run(&["load", "a.csv", "--config", "b.toml"]);
    assert!(ran.code() == 0 && ran.out().contains("1 written"), "{}", ran.all());
}

#[test]
fn a_table_may_have_any_name() {
    let place = Place::new();
    place.sql("CREATE TABLE \"Order Items\" (id INTEGER NOT NULL);");
    place.write("a.csv", "id\n1\n");
    let dsn = format!("sqlite:{}", place.path("a.db").display());
    let ran = place.run(&["load", "a.csv", "--database", &dsn, "--table", "Order Items"]);
    assert!(ran.code() == 0 && ran.out().contains("1 written"), "{}", ran.all());
}

#[test]
fn files_share_a_file_of_rejected_records() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", "id,note\n1,a\n-1,a\n");
    place.write("b.csv", "id,note\n2,b\n-2,b\n-3,b\n");
    let ran = run(&place, &["a.csv", "b.csv", "--rejects", "r.ndjson"]);
    assert!(ran.out().contains("1 rejected, see r.ndjson") && ran.out().contains("2 rejected"), "{}", ran.all());
    let ran = run(&place, &["a.csv", "--again", "second", "--rejects", "r.ndjson"]);
    assert!(ran.code() == 1 && ran.out().contains("1 rejected, see r.ndjson"), "{}", ran.all());
    let rejects = std::fs::read_to_string(place.path("r.ndjson")).unwrap();
    let texts: Vec<String> = rejects
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["-1,a", "-2,b", "-3,b", "-1,a"]);
}

/// Its lines would be added to the file, which would be another one then.
#[test]
#[cfg(unix)]
fn a_file_of_rejected_records_is_no_other_file() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", "id\n1\n-1\n");
    place.write("a.csv.rejects.ndjson", "{\"id\":2}\n");
    std::fs::hard_link(place.path("a.csv"), place.path("hard")).unwrap();
    std::os::unix::fs::symlink("a.csv", place.path("soft")).unwrap();
    std::os::unix::fs::symlink("/dev/full", place.path("full")).unwrap();
    place.write("b.csv", "id\n3\n");
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    for (more, part) in [
        (&["a.csv", "--rejects", "./a.csv"][..], "./a.csv is a.csv, which is read"),
        (&["a.csv", "--rejects", "hard"], "hard is a.csv"),
        (&["b.csv", "a.csv", "--rejects", "soft"], "soft is a.csv"),
        (&["a.csv", "a.csv.rejects.ndjson"], "name another one with --rejects"),
        (&["a.csv", "--rejects", "a.csv.batchsql-load"], "which is read"),
        (&["a.csv", "--rejects", "a.db"], "a.db is a file of the database"),
        (&["a.csv", "--rejects", "./a.db-journal"], "is a file of the database"),
        (&["a.csv", "--rejects", "full"], "no regular file"),
        (&["a.csv", "--rejects", "pipe"], "no regular file"),
        (&["a.csv", "--rejects", "."], "no regular file"),
    ] {
        let ran = run(&place, more);
        assert!(ran.code() == 2 && ran.err().contains(part), "{more:?}: {}", ran.all());
    }
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[dead_letters]\nfile = \"letters.csv\"\n[durable]\nfolder = \"intake\"\n[http]\n",
        place.database()
    );
    place.write("b.toml", config);
    place.write("letters.csv", "id\n3\n");
    for (more, part) in [
        (&["a.csv", "--rejects", "b.toml"][..], "is the configuration"),
        (&["a.csv", "--rejects", "intake/log/x"], "is a file of the log"),
        (&["a.csv", "--rejects", "./letters.csv"], "is the file of dead letters"),
        (&["a.csv", "letters.csv"], "letters.csv is the file of dead letters of the configuration"),
    ] {
        let ran = place.run(&[&["load", "--config", "b.toml"], more].concat());
        assert!(ran.code() == 2 && ran.err().contains(part), "{more:?}: {}", ran.all());
    }
    assert_eq!(place.number("SELECT count(*) FROM orders"), 0, "nothing was done");
    assert_eq!(std::fs::read_to_string(place.path("a.csv")).unwrap(), "id\n1\n-1\n");
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let place = Place::new();
    place.sql(TABLE);
    let check = |name: &str, content: &[u8], more: &[&str], code: i32, part: &str| {
        place.write(name, content);
        let ran = run(&place, &[&[name], more].concat());
        assert!(ran.code() == code && ran.all().contains(part), "{name}: {}", ran.all());
    };
    check(
        "a.csv",
        b"id,nite\n1,a\n",
        &[],
        2,
        "the header has the field `nite`, which is not a column of orders; did you mean `note`?",
    );
    check("a.csv", b"id,nite\n1,a\n", &["--ignore-unknown"], 0, "1 written");
    let formats = if cfg!(feature = "arrow") { "csv, ndjson, parquet or arrow" } else { "csv or ndjson" };
    check("a.txt", b"x", &[], 2, &format!("give the format: {formats}"));
    check("a.tsv", b"id\n1\n", &[], 2, "--format csv --delimiter $'\\t'");
    check("a.json", b"[]", &[], 2, "--format ndjson");
    if cfg!(not(feature = "arrow")) {
        check("a.parquet", b"PAR1", &[], 2, "build it with --features arrow");
    }
    for name in ["/dev/stdin", "-"] {
        let ran = run(&place, &[name, "--format", "csv"]);
        assert!(ran.code() == 2 && ran.err().contains("write it to a file first"), "{name}: {}", ran.all());
    }
    let ran = run(&place, &["."]);
    assert!(ran.code() == 2 && ran.err().contains("this is a folder"), "{}", ran.all());
    check("a.csv.gz", b"id\n1\n", &[], 2, "a.csv.gz: the file is not gzip");
    check("cut.ndjson.gz", &gzip(&"{\"id\":1}\n".repeat(50_000))[..200], &[], 1, "not complete gzip");
    check("b.csv", csv(0..5).replace("\n", "x\n").as_bytes(), &["--max-rejects", "2"], 2, "header");
    let bad: String = "id\n".to_owned() + &"x\n".repeat(10);
    check(
        "c.csv",
        bad.as_bytes(),
        &["--max-rejects", "2"],
        1,
        "more than 2 (`batchsql load` has --max-rejects); the last one: line",
    );
    check("d.csv", b"id\n1\n", &["--rule", "upsert"], 2, "`upsert` is not known");
    check("e.csv", b"id\n1\n", &["--rule", "ignore"], 1, "no unique index");
    let key = &["--rule", "ignore", "--key", "note"];
    check("e.csv", b"id,note\n1,a\n", key, 1, "error: table `orders`: rows cannot be written with conflict key");
    check("e.csv", b"id;note\n1;a\n", &[], 2, "load it with --delimiter ';'");
    let ran = run(&place, &["nowhere.csv"]);
    assert!(ran.code() == 3 && ran.err().contains("nowhere.csv: the file cannot be read"), "{}", ran.all());
    let ran = place.run(&["load", "a.csv"]);
    assert!(ran.code() == 2 && ran.err().contains("--config FILE, or --database DSN --table NAME"), "{}", ran.all());
}

/// Otherwise some files would be loaded and others not.
#[test]
fn all_files_are_checked_before_the_first_row() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("b.csv", "id\n1\n");
    place.write("c.csv", "ix\n2\n");
    place.write("d.csv.gz", &gzip(&csv(10..20))[..20]);
    place.write("e.csv", "id\n3\n");
    for (bad, code) in [("c.csv", 2), ("d.csv.gz", 2), ("nowhere.csv", 3), ("x.txt", 2)] {
        let ran = run(&place, &["b.csv", bad, "e.csv"]);
        assert!(ran.code() == code && ran.err().contains(bad), "{bad}: {}", ran.all());
        assert_eq!(place.number("SELECT count(*) FROM orders"), 0, "{bad}");
    }
    // What is found later names the others.
    let bad: String = "id\n".to_owned() + &"x\n".repeat(10);
    place.write("f.csv", bad);
    let ran = run(&place, &["b.csv", "f.csv", "e.csv", "b.csv", "--max-rejects", "2"]);
    assert!(ran.code() == 1 && ran.out().contains("b.csv: 1 records"), "{}", ran.all());
    assert!(ran.err().contains("; not loaded either: e.csv, b.csv"), "{}", ran.all());
}

/// Kills the load whenever it has written something, at most four times, and runs it again until it ends, with this code. Returns how
/// often it was killed.
pub(crate) fn kill_and_go_on(place: &Place, arguments: &[&str], code: i32, rows: &dyn Fn() -> i64) -> usize {
    let (mut kills, mut last) = (0, rows());
    loop {
        let begin = Instant::now();
        let mut child = place.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        loop {
            if child.try_wait().unwrap().is_some() {
                let ran = crate::program::Ran(child.wait_with_output().unwrap());
                assert_eq!(ran.code(), code, "{}", ran.all());
                return kills;
            }
            let now = rows();
            if now > last && kills < 4 {
                last = now;
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break;
            }
            assert!(begin.elapsed() < LONG, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_killed_load_goes_on_and_writes_each_row_once() {
    let place = Place::new();
    place.sql(TABLE);
    // All partitions have more than one block.
    const RECORDS: i64 = 190_000;
    let mut text = csv(0..RECORDS as u64);
    text = text.replacen("\n170000,", "\n-1,", 1);
    place.write("a.csv", text);
    // A record is rejected, so the last run ends with 1; the file says which.
    let arguments = load(&place, &["a.csv"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    place.sql("PRAGMA journal_mode = WAL");
    let rows = || place.number("SELECT count(*) FROM orders");
    let kills = kill_and_go_on(&place, &arguments, 1, &rows);
    assert!(kills >= 2, "it was killed {kills} times");
    assert_eq!(rows(), RECORDS - 1);
    assert_eq!(place.number("SELECT count(DISTINCT id) FROM orders"), RECORDS - 1);
    assert_eq!(place.number("SELECT sum(id) FROM orders"), (0..RECORDS).sum::<i64>() - 170_000);
    assert_eq!(place.number("SELECT count(*) FROM batchsql_positions WHERE partition_number > 0"), 4);
    let rejects = std::fs::read_to_string(place.path("a.csv.rejects.ndjson")).unwrap();
    assert_eq!(rejects.lines().count(), 1, "{rejects}");
    let again = place.run(&arguments);
    assert!(again.code() == 1 && again.out().contains("already loaded, 1 rejected"), "{}", again.all());
    assert_eq!(rows(), RECORDS - 1);
}

/// A person has changed them: records that were not written are not passed over.
#[test]
fn positions_that_were_moved_ahead_end_the_load() {
    let place = Place::new();
    place.sql(TABLE);
    place.write("a.csv", csv(0..1000));
    assert_eq!(run(&place, &["a.csv"]).code(), 0);
    for partitions in ["partition_number = 0", "true"] {
        place.sql("DELETE FROM orders; UPDATE batchsql_positions SET sequence = 0, moved_to = 0");
        place.sql(&format!("UPDATE batchsql_positions SET sequence = 400 WHERE {partitions}"));
        for _ in 0..2 {
            let ran = run(&place, &["a.csv"]);
            let advice = ["is 400, but it was moved only to 0", "changed from outside", "set it back to 0"];
            assert!(ran.code() == 1 && advice.iter().all(|text| ran.all().contains(text)), "{}", ran.all());
            assert_eq!(place.number("SELECT count(*) FROM orders"), 0);
        }
        place.sql("UPDATE batchsql_positions SET sequence = moved_to");
        let ran = run(&place, &["a.csv"]);
        assert_eq!((ran.code(), place.number("SELECT count(*) FROM orders")), (0, 1000), "{}", ran.all());
    }
}

/// What is kept in files beside the loaded one is of a database and a table too.
#[test]
fn a_file_is_loaded_into_several_databases_and_tables() {
    let place = Place::new();
    place.sql(&format!("{TABLE} CREATE TABLE more (id INTEGER NOT NULL);"));
    let second = rusqlite::Connection::open(place.path("b.db")).unwrap();
    second.execute_batch("CREATE TABLE orders (id INTEGER NOT NULL CHECK (id <> 2));").unwrap();
    place.write("x.csv", "id\n1\n2\n-3\n");
    let load = |name: &str, table: &str, more: &[&str]| {
        let dsn = format!("sqlite:{}", place.path(name).display());
        let ran = place.run(&[&["load", "x.csv", "--database", &dsn, "--table", table], more].concat());
        assert!(ran.code() <= 1, "{}", ran.all());
        ran.out()
    };
    let rejects = || {
        let text = std::fs::read_to_string(place.path("x.csv.rejects.ndjson")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    for more in [&["--at-least-once"][..], &[]] {
        let _ = std::fs::remove_file(place.path("x.csv.rejects.ndjson"));
        assert!(load("a.db", "orders", more).contains("2 written, 1 rejected"));
        assert!(load("b.db", "orders", more).contains("2 written, 1 rejected"));
        assert_eq!(rejects(), [3, 2], "that of the first database stays");
        assert!(load("a.db", "more", more).contains("3 written"));
        for (name, table) in [("a.db", "orders"), ("b.db", "orders"), ("a.db", "more")] {
            assert!(load(name, table, more).contains("already loaded"));
        }
        assert_eq!(rejects(), [3, 2]);
    }
    assert_eq!(place.number("SELECT count(*) FROM orders"), 4);
}

/// The mark of a load has the name of the catalogue, not the one that was typed.
#[test]
fn a_file_is_loaded_once_into_a_table_whatever_its_spelling_is() {
    let place = Place::new();
    place.sql("CREATE TABLE Orders (id INTEGER NOT NULL CHECK (id > 0));");
    place.write("x.csv", "id\n1\n-3\n2\n");
    let dsn = format!("sqlite:{}", place.path("a.db").display());
    for (more, rows) in [(&["--at-least-once"][..], 2), (&[], 4)] {
        for (number, table) in ["orders", "Orders", "ORDERS", "main.orders", "MAIN.Orders"].into_iter().enumerate() {
            let ran = place.run(&[&["load", "x.csv", "--database", &dsn, "--table", table], more].concat());
            let part = if number == 0 { "2 written, 1 rejected" } else { "already loaded, 1 rejected" };
            assert!(ran.code() == 1 && ran.out().contains(part), "{table}: {}", ran.all());
        }
        assert_eq!(place.number("SELECT count(*) FROM orders"), rows);
    }
}

/// Its position is in the database, so what was rejected is told there.
#[test]
#[cfg(unix)]
fn rejected_records_are_told_under_another_name_of_the_database() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER NOT NULL CHECK (id > 0));");
    place.write("x.csv", "id\n1\n-3\n");
    std::fs::hard_link(place.path("a.db"), place.path("same.db")).unwrap();
    for (name, part) in [("a.db", "1 written, 1 rejected"), ("same.db", "already loaded"), ("a.db", "already loaded")] {
        let dsn = format!("sqlite:{}", place.path(name).display());
        let ran = place.run(&["load", "x.csv", "--database", &dsn, "--table", "orders"]);
        assert!(ran.code() == 1 && ran.out().contains(part), "{name}: {}", ran.all());
    }
}

/// Nothing was done, so these are mistakes of the command line.
#[test]
fn files_that_are_not_what_their_name_says_are_mistakes() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER NOT NULL, twice INTEGER GENERATED ALWAYS AS (2 * id));");
    let utf16: Vec<u8> = "\u{feff}id\n1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let packed = gzip("id\n1\n");
    let files: [(&str, &[u8], &str); 4] = [
        ("utf16.csv", &utf16, "utf16.csv: "),
        ("packed.csv", &packed, "packed.csv: "),
        ("none.csv", b"note\n1\n", "`note`"),
        ("generated.csv", b"id,twice\n1,2\n", "rows cannot carry the column `twice`"),
    ];
    for (name, content, part) in files {
        place.write(name, content);
        let ran = run(&place, &[name]);
        assert!(ran.code() == 2 && ran.err().contains(part), "{name}: {}", ran.all());
        assert!(!place.path(&format!("{name}.rejects.ndjson")).exists());
    }
    place.sql("DROP TABLE orders; CREATE TABLE orders (id INTEGER NOT NULL, note TEXT);");
    let ran = run(&place, &["none.csv"]);
    assert!(ran.code() == 2 && ran.err().contains("the header has no field for `id`"), "{}", ran.all());
    #[cfg(feature = "arrow")]
    for content in ["", "text", "PAR1"] {
        place.write("a.parquet", content);
        let ran = run(&place, &["a.parquet"]);
        assert!(ran.code() == 2, "{content:?}: {}", ran.all());
    }
}
