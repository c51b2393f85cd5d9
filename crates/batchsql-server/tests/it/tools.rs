//! `dead-letters`, `log`, `completions` and `--help`.

use std::time::{Duration, Instant};

use batchsql::durable::{DurableExt, DurableOptions};
use batchsql::{BatchSql, ColumnType, ErrorClass, PipelineConfig, Schema, ValueRef};
use batchsql_testkit::ScriptedSink;

use crate::client::{NDJSON, post};
use crate::program::{Place, Running, until};

#[test]
fn dead_letters_are_counted_shown_and_written_again() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT CHECK (length(note) < 3));");
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\nrule = \"update\"\n[dead_letters]\nfile = \"letters.ndjson\"\n[http]\nlisten = \
         \"127.0.0.1:0\"\n",
        place.database()
    );
    let program = place.start(&config);
    let body = "{\"id\":1,\"note\":\"s3cret\"}\n{\"id\":2,\"note\":\"b\"}\n{\"id\":3,\"note\":\"s3cret\"}\n";
    post(program.address(), "orders/rows?wait=written", &[NDJSON], body);
    assert_eq!(program.stop().0, 1);
    let list = place.run(&["dead-letters", "list", "letters.ndjson"]);
    assert!(list.code() == 0 && list.out().contains("2  orders                   rejected"), "{}", list.all());
    let show = place.run(&["dead-letters", "show", "letters.ndjson", "--limit", "1"]);
    assert!(show.out().lines().count() == 1 && show.out().contains("CHECK"), "{}", show.all());
    assert!(show.out().starts_with("byte 0: "), "{}", show.all());
    assert!(!list.out().contains("replayed"), "{}", list.all());
    assert!(!show.out().contains("s3cret"), "values only if they are asked for: {}", show.all());
    let values = place.run(&["dead-letters", "show", "letters.ndjson", "--values"]);
    assert!(values.out().contains("{\"id\":1,\"note\":\"s3cret\"}"), "{}", values.all());

    let replay = |more: &[&str]| {
        place.run(&[&["dead-letters", "replay", "letters.1.ndjson", "--config", "b.toml"], more].concat())
    };
    let refused = place.run(&["dead-letters", "replay", "letters.ndjson", "--config", "b.toml"]);
    assert!(refused.code() == 2 && refused.err().contains("rename it first"), "{}", refused.all());
    std::fs::rename(place.path("letters.ndjson"), place.path("letters.1.ndjson")).unwrap();
    let again = replay(&[]);
    assert!(
        again.code() == 1 && again.out().contains("0 written") && again.out().contains("2 left"),
        "{}",
        again.all()
    );
    // One of them is written by a replay.
    place.sql("DROP TABLE orders; CREATE TABLE orders (id INTEGER PRIMARY KEY CHECK (id < 3), note TEXT)");
    let again = replay(&[]);
    assert!(
        again.code() == 1 && again.out().contains("1 written") && again.out().contains("1 left"),
        "{}",
        again.all()
    );
    let list = place.run(&["dead-letters", "list", "letters.1.ndjson"]);
    assert!(list.out().contains("2  in letters.1.ndjson\n       1  of them were replayed"), "{}", list.all());
    // The table is corrected.
    place.sql("DROP TABLE orders; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)");
    let again = replay(&["--delete"]);
    assert!(again.code() == 0 && again.out().contains("1 written"), "{}", again.all());
    assert_eq!(
        place.number("SELECT count(*) FROM orders WHERE note = 's3cret'"),
        1,
        "the other table had the other one"
    );
    assert!(!place.path("letters.1.ndjson").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn rows_that_are_not_in_the_file_of_dead_letters_are_said() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY CHECK (id < 9));");
    // Its disk is full.
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[dead_letters]\nfile = \"/dev/full\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        place.database()
    );
    let program = place.start(&config);
    let body: String = (10..30).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    post(program.address(), "orders/rows?wait=written", &[NDJSON], body);
    let (code, log) = program.stop();
    assert_eq!(code, 1, "{log}");
    let more = log.lines().find(|line| line.contains("more rows were not written")).unwrap_or_default();
    assert!(
        more.contains("rows=19") && more.contains("but 20 of all rows that were not written are not in it"),
        "{log}"
    );
}

/// Rules of the configuration, not functions of the library.
#[test]
fn letters_that_do_not_fit_the_rule_say_which_one_does() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    for (action, rule, says) in [
        ("delete", "insert", "give it a `key` and the rule `delete` for this replay"),
        ("update_only", "update", "give its table the rule `update_only`"),
        ("insert", "delete", "give its table the rule that it was submitted with"),
    ] {
        let letters = letter(1).replace("\"insert\"", &format!("\"{action}\""));
        place.write(&format!("{action}.ndjson"), format!("{letters}\n"));
        place.write("a.toml", format!("{}[[tables]]\nname = \"orders\"\nrule = \"{rule}\"\n", place.database()));
        let left = place.run(&["dead-letters", "replay", &format!("{action}.ndjson"), "--config", "a.toml"]);
        assert!(left.code() == 1 && left.out().contains(says), "{action}: {}", left.all());
        assert!(!left.all().contains("Conflict::") && !left.all().contains("schema"), "{action}: {}", left.all());
    }
}

fn letter(id: u32) -> String {
    format!(
        "{{\"version\":1,\"time\":\"2026-11-30T14:12:00.000000Z\",\"outcome\":\"rejected\",\"table\":\"orders\",\"action\":\
         \"insert\",\"attempts\":1,\"row\":{{\"id\":{id}}},\"types\":{{\"id\":\"i64\"}}}}"
    )
}

/// As an editor leaves them.
#[test]
fn empty_lines_between_letters_are_none() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    place.write("a.toml", format!("{}[[tables]]\nname = \"orders\"\n", place.database()));
    place.write("a.ndjson", format!("\n{}\r\n  \r\n\n{}\n\n \n", letter(101), letter(102)));
    let list = place.run(&["dead-letters", "list", "a.ndjson"]);
    assert!(list.code() == 0 && list.out().contains("2  in a.ndjson\n"), "{}", list.all());
    assert!(!list.out().contains("cannot be read"), "{}", list.all());
    let show = place.run(&["dead-letters", "show", "a.ndjson", "--limit", "2", "--values"]);
    let shown = show.out();
    let bytes: Vec<_> = shown.lines().filter_map(|line| line.strip_prefix("byte ")?.split_once(':')).collect();
    let second = (1 + letter(101).len() + 2 + 4 + 1).to_string();
    assert_eq!(bytes.iter().map(|(byte, _)| *byte).collect::<Vec<_>>(), ["1", &*second], "{}", show.all());
    assert!(show.out().contains("{\"id\":101}") && show.out().contains("{\"id\":102}"), "{}", show.all());
    let replayed = place.run(&["dead-letters", "replay", "a.ndjson", "--config", "a.toml", "--delete"]);
    assert!(replayed.code() == 0 && replayed.out().contains("2 written"), "{}", replayed.all());
    assert!(replayed.out().contains("0 left") && !place.path("a.ndjson").exists(), "{}", replayed.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 2);
}

#[test]
fn letters_that_were_not_written_again_are_not_deleted() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    place.write("a.toml", format!("{}[[tables]]\nname = \"orders\"\n", place.database()));
    let replay =
        |more: &[&str]| place.run(&[&["dead-letters", "replay", "a.ndjson", "--config", "a.toml"], more].concat());
    let list = || place.run(&["dead-letters", "list", "a.ndjson"]);
    let rows = || place.number("SELECT count(*) FROM orders");

    // The service was killed within the last line, or before its line feed.
    place.write("a.ndjson", format!("{}\n{}", letter(101), &letter(102)[..100]));
    let cut = format!("byte {}: the last line is not complete", letter(101).len() + 1);
    let listed = list();
    assert!(listed.out().contains("1  in a.ndjson") && listed.out().contains(&cut), "{}", listed.all());
    let shown = place.run(&["dead-letters", "show", "a.ndjson"]);
    assert!(shown.out().contains(&cut), "{}", shown.all());
    let left = replay(&["--delete"]);
    assert!(left.code() == 1 && left.out().contains("1 written") && left.out().contains(&cut), "{}", left.all());
    place.write("a.ndjson", format!("{}\n{}", letter(101), letter(102)));
    assert!(list().out().contains("2  in a.ndjson\n       1  of them were replayed"), "{}", list().all());
    let all = replay(&[]);
    assert!(all.code() == 0 && all.out().contains("1 written") && rows() == 2, "{}", all.all());

    place.write("b.ndjson", format!("{}\n1\n\n{{}}\n", letter(101)));
    let broken = place.run(&["dead-letters", "list", "b.ndjson"]);
    let says = format!("2  lines cannot be read; the first is at byte {}: ", letter(101).len() + 1);
    assert!(broken.code() == 1 && broken.out().contains(&says), "{}", broken.all());

    let missing = place.run(&["dead-letters", "replay", "none.ndjson", "--config", "a.toml"]);
    assert!(missing.code() == 3 && missing.err().contains("none.ndjson"), "{}", missing.all());

    // Another file has this name on the next day.
    place.write("a.ndjson", format!("{}\n{}\n", letter(201), letter(202)));
    let other = replay(&["--delete"]);
    assert!(other.code() == 3 && other.err().contains("a.ndjson.mark is the mark"), "{}", other.all());
    assert!(list().out().contains("2  in a.ndjson\na.ndjson.mark is the mark"), "{}", list().all());
    std::fs::remove_file(place.path("a.ndjson.mark")).unwrap();

    #[cfg(unix)]
    {
        let file = std::fs::File::open(place.path("a.ndjson")).unwrap();
        file.lock().unwrap();
        let used = replay(&[]);
        assert!(used.code() == 3 && used.err().contains("another process replays this file"), "{}", used.all());
    }
    let all = replay(&["--delete"]);
    assert!(all.code() == 0 && all.out().contains("2 written") && rows() == 4, "{}", all.all());
    assert!(!place.path("a.ndjson").exists() && !place.path("a.ndjson.mark").exists());
}

/// One row keeps its batch from being written; those behind it are written.
#[test]
fn rows_that_were_written_behind_one_that_waits_do_not_wait() {
    let place = Place::new();
    let folder = place.path("intake");
    let left_in_log = async {
        let sink = ScriptedSink::new();
        sink.poison_as(ErrorClass::Transient, |row| row.get("id") == Some(ValueRef::I64(3)));
        let orders = Schema::builder("orders").column("id", ColumnType::I64).build().unwrap();
        let config = PipelineConfig::default().flush_size(1).max_batch_rows(1);
        let options = DurableOptions::new(&folder).partitions(1).min_free_bytes(0);
        let db = BatchSql::builder(sink).config(config).durable(options).start().await.unwrap();
        let row = |id: i64| orders.row().set("id", id).unwrap().finish().unwrap();
        db.submit_all((0..10).map(row)).await.unwrap();
        let begun = Instant::now();
        while db.stats().balance.written() < 9 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", db.stats());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        db.close(Duration::ZERO).await.left_in_log
    };
    assert_eq!(tokio::runtime::Runtime::new().unwrap().block_on(left_in_log), 1);
    let inspected = place.run(&["log", "inspect", "intake"]);
    assert!(inspected.out().contains("partition 0: 1 rows wait, 9 are done"), "{}", inspected.all());
    assert!(inspected.out().contains(" blocks, 1 rows wait"), "{}", inspected.all());
    let exported = place.run(&["log", "export", "intake", "--output", "rows.ndjson"]);
    assert!(exported.code() == 0 && exported.err().contains("1 rows were written"), "{}", exported.all());
    place.sql("CREATE TABLE orders (id INTEGER);");
    let durable =
        "[[tables]]\nname = \"orders\"\nrule = \"insert\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n";
    place.write("b.toml", format!("{}{durable}", place.database()));
    let check = place.run(&["check", "b.toml"]).out();
    assert!(check.contains("the log is whole; 1 rows wait"), "{check}");
}

#[test]
fn a_log_is_inspected_and_verified() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\nrule = \"ignore\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[http]\nlisten = \
         \"127.0.0.1:0\"\n[run]\ndrain_for = \"0s\"\n",
        place.database()
    );
    let program = place.start(&config);
    let db = place.sql("BEGIN IMMEDIATE");
    let lines: String = (0..100).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    assert_eq!(post(program.address(), "orders/rows", &[NDJSON], lines).number("accepted"), 100);
    let used = place.run(&["log", "verify", "intake"]);
    assert!(used.code() == 3 && used.err().contains("is used by a program"), "{}", used.all());
    let (code, log) = program.stop();
    assert_eq!(code, 4, "rows wait: {log}");
    drop(db);
    let verified = place.run(&["log", "verify", "intake"]);
    assert!(verified.code() == 0 && verified.out().contains("the log is whole"), "{}", verified.all());
    assert!(verified.out().contains("100 rows wait"), "{}", verified.all());
    let inspected = place.run(&["log", "inspect", "intake"]);
    assert!(inspected.out().contains("partition"), "{}", inspected.all());
    #[cfg(unix)]
    for entry in std::fs::read_dir(place.path("intake/log")).unwrap().map(Result::unwrap) {
        use std::os::unix::fs::PermissionsExt;
        let is_segment = entry.metadata().unwrap().len() > 0;
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert!(!is_segment || mode == 0o600, "{entry:?} has values of rows: {mode:o}");
    }
    // A newest segment without a header: a crash leaves it, or something has cut or emptied it.
    let check = || place.run(&["check", "b.toml"]).out();
    assert!(check().contains("the log is whole; 100 rows wait"), "{}", check());
    let last = std::fs::read_dir(place.path("intake/log")).unwrap().map(|entry| entry.unwrap().file_name());
    let last = last.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".seg")).max().unwrap();
    let unfinished = format!("{:020}.seg", last.trim_end_matches(".seg").parse::<u64>().unwrap() + 1);
    for (content, said) in [
        ("", "0 bytes and no header; a start removes it"),
        ("BSQLLOG", "7 bytes and no header; a start moves it to the folder quarantine"),
    ] {
        place.write(&format!("intake/log/{unfinished}"), content);
        for verb in ["verify", "inspect"] {
            let found = place.run(&["log", verb, "intake"]);
            assert!(found.code() == 1 && found.out().contains("rows may be missing: "), "{}", found.all());
            assert!(found.out().contains(&format!("unfinished: {unfinished}, {said}")), "{}", found.all());
            assert!(
                found.out().contains("restore the folder") && found.out().contains("100 rows wait"),
                "{}",
                found.all()
            );
        }
        assert!(check().contains("rows may be missing; see `batchsql log verify`"), "{}", check());
        let exported = place.run(&["log", "export", "intake", "--output", "rows.ndjson"]);
        assert!(exported.code() == 1 && exported.err().contains("100 rows were written"), "{}", exported.all());
        std::fs::remove_file(place.path("rows.ndjson")).unwrap();
    }
    std::fs::remove_file(place.path(&format!("intake/log/{unfinished}"))).unwrap();
    // Damage in the middle.
    let segment = std::fs::read_dir(place.path("intake/log")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.iter().position(|byte| *byte != 0).unwrap() + 100;
    bytes[middle] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = place.run(&["log", "verify", "intake"]);
    assert!(damaged.code() == 1 && damaged.out().contains("damaged"), "{}", damaged.all());
    let nothing = place.run(&["log", "verify", "nowhere"]);
    assert_eq!(nothing.code(), 3, "{}", nothing.all());
    // The start says what it has done with an unfinished segment.
    for (number, content, done) in
        [(1000, "", "was removed"), (2000, "BSQLLOG", "is in the folder quarantine of the log")]
    {
        place.write(&format!("intake/log/{number:020}.seg"), content);
        let (_, log) = place.start(&config).stop();
        assert!(log.contains("a segment of the log has no header") && log.contains(done), "{log}");
    }
}

/// A table that is locked, and a log without time to drain.
fn stranded(place: &Place, drain_for: &str) -> String {
    format!(
        "{}[[tables]]\nname = \"orders\"\nrule = \"ignore\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\npartitions = 1\n[http]\n\
         listen = \"127.0.0.1:0\"\n[run]\ndrain_for = \"{drain_for}\"\n",
        place.database()
    )
}

#[test]
fn rows_of_a_log_are_exported_and_written_elsewhere() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT);");
    let program = place.start(&stranded(&place, "0s"));
    let lock = place.sql("BEGIN IMMEDIATE");
    let lines: String = (0..100).map(|id| format!("{{\"id\":{id},\"note\":\"s3cret {id}\"}}\n")).collect();
    assert_eq!(post(program.address(), "orders/rows", &[NDJSON], lines).number("accepted"), 100);
    let export = |more: &[&str]| place.run(&[&["log", "export", "intake"], more].concat());
    let used = export(&["--output", "used.ndjson"]);
    assert!(used.code() == 3 && used.err().contains("is used by a program"), "{}", used.all());
    assert!(!place.path("used.ndjson").exists());
    let seen = export(&["--in-use"]);
    assert_eq!(seen.out().lines().count(), 100, "{}", seen.all());
    let (code, log) = program.stop();
    assert_eq!(code, 4, "rows wait: {log}");
    drop(lock);

    let exported = export(&["--output", "rows.ndjson"]);
    assert!(exported.code() == 0 && exported.out().is_empty(), "{}", exported.all());
    assert!(
        exported.err().contains("100 rows were written") && exported.err().contains("is whole"),
        "{}",
        exported.all()
    );
    assert!(!exported.all().contains("s3cret"), "values are in the file only");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(place.path("rows.ndjson")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has values of rows");
    }
    let printed = export(&[]);
    assert_eq!(printed.out(), std::fs::read_to_string(place.path("rows.ndjson")).unwrap());
    // Whoever closes the pipe has read enough.
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = place.command(&["log", "export", "intake"]);
    let cut = crate::program::Ran(command.stdout(closed).output().unwrap());
    assert!(cut.code() == 0 && cut.err().is_empty(), "{}", cut.all());
    let again = export(&["--output", "rows.ndjson"]);
    assert!(again.code() == 2 && again.err().contains("choose a new name"), "{}", again.all());
    let nothing = place.run(&["log", "export", "nowhere"]);
    assert!(nothing.code() == 3 && nothing.out().is_empty(), "{}", nothing.all());

    let replayed = place.run(&["dead-letters", "replay", "rows.ndjson", "--config", "b.toml"]);
    assert!(replayed.code() == 0 && replayed.out().contains("100 written"), "{}", replayed.all());
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE note = 's3cret ' || id"), 100);
}

/// Names in the folder that begin with this.
fn names(place: &Place, begin: &str) -> Vec<String> {
    let names =
        std::fs::read_dir(place.folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(begin)).collect()
}

#[test]
fn an_export_that_has_not_all_rows_leaves_no_file() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, some_remark TEXT);");
    let program = place.start(&stranded(&place, "0s"));
    let lock = place.sql("BEGIN IMMEDIATE");
    let lines: String = (0..1_000).map(|id| format!("{{\"id\":{id},\"some_remark\":\"s3cret {id}\"}}\n")).collect();
    assert_eq!(post(program.address(), "orders/rows", &[NDJSON], lines).number("accepted"), 1_000);
    let (code, log) = program.stop();
    assert_eq!(code, 4, "rows wait: {log}");
    drop(lock);
    let export = |more: &[&str]| place.run(&[&["log", "export", "intake", "--output", "rows.ndjson"], more].concat());

    // A disk that is full after a part: the limit of a file, without the signal that would end the program.
    #[cfg(target_os = "linux")]
    {
        let program = env!("CARGO_BIN_EXE_batchsql");
        let line = format!("trap '' XFSZ; ulimit -f 16; exec {program} log export intake --output rows.ndjson");
        let full = std::process::Command::new("sh").args(["-c", &line]).current_dir(place.folder()).output().unwrap();
        let full = crate::program::Ran(full);
        assert!(full.code() == 3 && full.err().contains("rows.ndjson was not made: "), "{}", full.all());
        assert!(full.err().contains("File too large") && !full.all().contains("s3cret"), "{}", full.all());
        assert_eq!(names(&place, "rows"), Vec::<String>::new());
    }

    // The schema of the rows is damaged, in each copy of it: their block is whole, and cannot be read.
    let mut copies = 0;
    for file in std::fs::read_dir(place.path("intake/log")).unwrap().map(|file| file.unwrap().path()) {
        let mut bytes = std::fs::read(&file).unwrap_or_default();
        let found = bytes.windows(11).enumerate().filter(|(_, window)| *window == b"some_remark").map(|(at, _)| at);
        let found: Vec<usize> = found.collect();
        copies += found.len();
        found.iter().for_each(|at| bytes[*at] ^= 1);
        if !found.is_empty() {
            std::fs::write(&file, bytes).unwrap();
        }
    }
    assert!(copies > 0);
    let damaged = export(&[]);
    assert!(damaged.code() == 1 && damaged.out().is_empty(), "{}", damaged.all());
    assert!(damaged.err().contains("not readable: rows 1 to "), "{}", damaged.all());
    assert!(
        damaged.err().contains("rows.ndjson was not made") && damaged.err().contains("--partial"),
        "{}",
        damaged.all()
    );
    assert_eq!(names(&place, "rows"), Vec::<String>::new());
    // A file that is there is named before anything is read, and stays.
    place.write("rows.ndjson", "mine");
    let taken = export(&["--partial"]);
    assert!(taken.code() == 2 && taken.err().contains("choose a new name"), "{}", taken.all());
    assert_eq!(std::fs::read_to_string(place.path("rows.ndjson")).unwrap(), "mine");
    assert_eq!(names(&place, "rows"), ["rows.ndjson"]);
}

#[test]
fn rows_that_are_missing_in_a_log_stop_it_until_a_person_accepts() {
    /// It is found in the file.
    const MARK: i64 = 0x1122_3344_5566_7788;
    let place = Place::new();
    place.sql("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    let lock = place.sql("BEGIN IMMEDIATE");
    // Each run has a file of its own, of which the second one is damaged.
    for ids in [0..5, MARK..MARK + 1, 5..9] {
        let program = place.start(&stranded(&place, "0s"));
        let lines: String = ids.clone().map(|id| format!("{{\"id\":{id}}}\n")).collect();
        let response = post(program.address(), "orders/rows", &[NDJSON], lines);
        assert_eq!(response.number("accepted"), ids.count() as u64, "{response:?}");
        let (code, log) = program.stop();
        assert_eq!(code, 4, "{log}");
    }
    let mut damaged = 0;
    for file in std::fs::read_dir(place.path("intake/log")).unwrap().map(|file| file.unwrap().path()) {
        let mut bytes = std::fs::read(&file).unwrap_or_default();
        if let Some(at) = bytes.windows(8).position(|window| window == MARK.to_le_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    drop(lock);

    let verified = place.run(&["log", "verify", "intake"]);
    assert!(
        verified.code() == 1 && verified.out().contains("missing: rows 6 to 6 of \"orders\""),
        "{}",
        verified.all()
    );
    assert!(verified.out().contains("--accept-log-gap"), "{}", verified.all());
    let exported = place.run(&["log", "export", "intake"]);
    assert!(exported.code() == 1 && exported.err().contains("missing: rows 6 to 6"), "{}", exported.all());
    assert_eq!(exported.out().lines().count(), 9, "{}", exported.all());
    let whole = place.run(&["log", "export", "intake", "--output", "rows.ndjson"]);
    assert!(whole.code() == 1 && whole.err().contains("with --partial it gets the 9 rows"), "{}", whole.all());
    assert_eq!(names(&place, "rows"), Vec::<String>::new());
    let partial = place.run(&["log", "export", "intake", "--output", "rows.ndjson", "--partial"]);
    assert!(partial.code() == 1 && partial.err().contains("9 rows were written"), "{}", partial.all());
    assert_eq!(std::fs::read_to_string(place.path("rows.ndjson")).unwrap(), exported.out());
    assert_eq!(names(&place, "rows"), ["rows.ndjson"]);

    let rows = || place.number("SELECT count(*) FROM orders");
    let mut program = place.start(&stranded(&place, "1h"));
    // Perhaps before it was ready.
    let line = program.has_said("a partition has stopped");
    assert!(line.contains("1 rows are missing in the log (6 to 6)"), "{line}");
    until(|| rows() == 5, || format!("{} rows", rows()));
    // It would wait for an hour: nobody writes the rows behind the gap.
    let (code, log) = program.stop();
    assert_eq!(code, 4, "{log}");
    assert_eq!(rows(), 5);

    let program = Running::start(place.command(&["run", "b.toml", "--accept-log-gap"]));
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("accepted as lost") && log.contains("rows=1"), "{log}");
    assert_eq!((rows(), place.number("SELECT sum(id) FROM orders")), (9, 36));

    let config = std::fs::read_to_string(place.path("b.toml")).unwrap();
    place.write("c.toml", config.replace("[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\npartitions = 1\n", ""));
    let ran = place.run(&["run", "c.toml", "--accept-log-gap"]);
    assert!(ran.code() == 2 && ran.err().contains("there is no section [durable]"), "{}", ran.all());
}

/// In a terminal, which `script` is: colours and a progress bar. Elsewhere neither.
#[test]
#[cfg(target_os = "linux")]
fn a_terminal_gets_colours_and_a_progress_bar() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER NOT NULL);");
    let lines: String = (0..20_000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    place.write("a.ndjson", &lines);
    let source = "[[sources]]\nid = \"pipe\"\ntable = \"orders\"\nstdin = true\n";
    place.write("b.toml", format!("{}[[tables]]\nname = \"orders\"\n{source}", place.database()));
    let program = env!("CARGO_BIN_EXE_batchsql");
    let in_terminal = |line: &str| {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", line, "/dev/null"]).current_dir(place.folder()).stdin(std::process::Stdio::null());
        let ran = script.env("TERM", "xterm").env_remove("NO_COLOR").output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let check = in_terminal(&format!("{program} check b.toml"));
    assert!(check.contains("\u{1b}[32mok"), "{check:?}");
    let load = in_terminal(&format!("{program} load a.ndjson --config b.toml"));
    assert!(load.contains("a.ndjson loading") && load.contains("20000 written"), "{load:?}");
    let run = in_terminal(&format!("head -1 a.ndjson | {program} run b.toml"));
    assert!(run.contains("\u{1b}[32m INFO") && run.contains("accepted"), "{run:?}");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 20_001);
    let elsewhere = place.run(&["load", "a.ndjson", "--config", "b.toml", "--again", "x"]);
    assert!(!elsewhere.all().contains('\u{1b}') && !elsewhere.all().contains("loading"), "{}", elsewhere.all());
}

#[test]
fn help_has_examples_and_shells_have_completions() {
    let place = Place::new();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["load", "--help"],
        &["dead-letters", "replay", "--help"],
        &["log", "export", "--help"],
    ] {
        let help = place.run(arguments);
        assert!(help.code() == 0 && help.out().contains("Example"), "{}", help.all());
    }
    let replay = place.run(&["dead-letters", "replay", "--help"]).out();
    let words = replay.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("A replay that was killed (kill -9, a crash) and is run again writes up to 1,000 rows twice"),
        "{replay}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell]);
        assert!(script.code() == 0 && script.out().contains("dead-letters"), "{shell}: {}", script.all());
    }
    let wrong = place.run(&["chekc"]);
    assert!(wrong.code() == 2 && wrong.err().contains("'check'"), "{}", wrong.all());
}

/// There is no file that has lines and keys.
#[test]
fn mistakes_of_options_are_told_without_places() {
    let place = Place::new();
    place.write("a.csv", "id\n1\n");
    let load = |dsn: &str, more: &[&str]| {
        let ran = place.run(&[&["load", "a.csv", "--database", dsn, "--table", "t"], more].concat());
        assert_eq!(ran.code(), 2, "{}", ran.all());
        ran.err()
    };
    let rule = load("sqlite:a.db", &["--rule", "upsert"]);
    assert!(rule.contains("error: command line: `upsert` is not known"), "{rule}");
    let redis = load("redis://localhost", &[]);
    assert!(redis.contains("`columns` of the table, and --config FILE") && !redis.contains("columns = ["), "{redis}");
}

/// After the database was restored from a backup, for example.
#[test]
fn rows_that_are_kept_are_exported_with_all() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\nrule = \"ignore\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\nkeep_for = \"1h\"\n[http]\n\
         listen = \"127.0.0.1:0\"\n",
        place.database()
    );
    let program = place.start(&config);
    let lines: String = (0..10).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    assert_eq!(post(program.address(), "orders/rows", &[NDJSON], lines).number("accepted"), 10);
    assert_eq!(program.stop().0, 0);
    for (all, rows) in [(None, 0), (Some("--all"), 10)] {
        let arguments: Vec<&str> = ["log", "export", "intake"].into_iter().chain(all).collect();
        let exported = place.run(&arguments);
        assert_eq!((exported.code(), exported.out().lines().count()), (0, rows), "{}", exported.all());
    }
}
