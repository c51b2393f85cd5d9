//! Files and standard input as sources of `run`.

use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use crate::client::{NDJSON, post};
use crate::program::{Place, Running, until};

fn place() -> Place {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER NOT NULL, note TEXT);");
    std::fs::create_dir(place.path("in")).unwrap();
    place
}

#[test]
fn files_of_a_folder_are_loaded_once() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"in/*\"\nevery = \
         \"50ms\"\nunchanged_for = \"0s\"\n",
        place.database()
    );
    place.write("in/a.csv", "id,note\n1,a\n2,b\nx,c\n");
    let mut program = place.start(&config);
    let line = program.wait_for("loaded: 3 records");
    assert!(line.contains("2 written, 1 rejected"), "{line}");
    place.write("in/b.ndjson", "{\"id\":3}\n{\"id\":4}\n");
    program.wait_for("loaded: 2 records");
    place.write("in/c.csv", "id,nope\n1,a\n");
    program.wait_for("not loaded; correct it");
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 4);
    // The next start knows what is loaded.
    let mut program = place.start(&config);
    program.wait_for("already loaded");
    program.wait_for("already loaded");
    assert_eq!(program.stop().0, 0);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 4);
}

/// Archives and copies between machines make such files.
#[test]
fn a_file_with_a_time_in_the_future_is_loaded() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"in/*\"\nevery = \
         \"50ms\"\nunchanged_for = \"1ms\"\n",
        place.database()
    );
    let path = place.write("in/a.csv", "id,note\n1,a\n");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(86_400)).unwrap();
    let mut program = place.start(&config);
    program.wait_for("loaded: 1 records");
    assert_eq!(program.stop().0, 0);
}

/// Only `files` is a pattern.
#[test]
fn the_folder_of_a_configuration_is_no_pattern() {
    for folder in ["conf[1]", "a?b", "st*r", "[!x]"] {
        let place = place();
        let config = format!(
            "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"in/*.csv\"\nevery = \
             \"50ms\"\nunchanged_for = \"0s\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n",
            place.database()
        );
        for (name, id) in [(folder, 1), ("axb", 2), ("star", 3), ("conf1", 4), ("y", 5)] {
            std::fs::create_dir_all(place.path(&format!("{name}/in"))).unwrap();
            place.write(&format!("{name}/in/a.csv"), format!("id\n{id}\n"));
        }
        let path = format!("{folder}/b.toml");
        place.write(&path, &config);
        let ran = place.run(&["check", &path]);
        let part = format!("{folder}/in/*.csv: 1 files now");
        assert!(ran.code() == 0 && ran.out().contains(&part), "{}", ran.all());
        assert!(!ran.out().contains("there is no folder"), "{}", ran.all());
        let mut program = Running::start(place.command(&["run", &path]));
        let line = program.wait_for("loaded: 1 records");
        assert!(line.contains(folder), "{line}");
        assert_eq!(program.stop().0, 0);
        assert_eq!(place.number("SELECT sum(id) FROM orders"), 1);
    }
}

/// A later file may have later values of the same keys, so it is not loaded before the first one.
#[test]
fn files_wait_for_those_before_them() {
    let place = place();
    place.sql("CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER)");
    let config = format!(
        "{}[log]\nlevel = \"info,batchsql=debug\"\n[pipeline]\nretry_for = \"10ms\"\n[[tables]]\nname = \"stock\"\nrule = \"update\"\n[[sources]]\nid = \"drop\"\ntable = \
         \"stock\"\nfiles = \"in/*.csv\"\nevery = \"50ms\"\nunchanged_for = \"0s\"\n",
        place.database().replace("a.db", "a.db?busy_timeout=10ms")
    );
    let mut program = place.start(&config);
    let lock = place.sql("BEGIN IMMEDIATE");
    place.write("in/2.csv", "id,amount\n7,2\n");
    place.write("in/1.csv", "id,amount\n7,1\n");
    // It is a warning once, not at each try.
    for level in [" WARN ", "DEBUG ", "DEBUG ", "DEBUG "] {
        let line = program.wait_for("not loaded, trying again");
        assert!(line.contains("1.csv") && line.contains(level), "{line}");
    }
    lock.execute_batch("ROLLBACK").unwrap();
    program.wait_for("1.csv");
    program.wait_for("loaded: 1 records");
    until(|| place.number("SELECT coalesce(sum(amount), 0) FROM stock") == 2, || "not loaded".to_owned());
    assert_eq!(program.stop().0, 0);
}

/// They are in the file of rejected records, and nowhere else: corrected in both, they would be written twice.
#[test]
fn rejected_records_of_files_are_no_dead_letters() {
    for more in ["", "at_least_once = true\n", "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n"] {
        let place = place();
        place.sql("CREATE TABLE items (id INTEGER NOT NULL CHECK (id <> 2));");
        let config = format!(
            "{}[dead_letters]\nfile = \"letters.ndjson\"\n[[tables]]\nname = \"items\"\n[[sources]]\nid = \"drop\"\ntable = \
             \"items\"\nfiles = \"in/*.csv\"\nevery = \"50ms\"\nunchanged_for = \"0s\"\n{more}",
            place.database()
        );
        place.write("in/a.csv", "id\n1\n2\n3\n");
        let mut program = place.start(&config);
        let line = program.has_said("loaded: 3 records");
        assert!(line.contains("2 written, 1 rejected"), "{line}");
        let (code, log) = program.stop();
        assert_eq!(code, 0, "{more}: {log}");
        let rejects = std::fs::read_to_string(place.path("in/a.csv.rejects.ndjson")).unwrap();
        assert!(rejects.lines().count() == 1 && rejects.contains("\"record\":2"), "{rejects}");
        let letters = std::fs::read_to_string(place.path("letters.ndjson")).unwrap_or_default();
        assert_eq!(letters, "", "{more}");
    }
}

/// Nobody has to touch the file when the table is repaired. One that is at fault itself keeps no other one waiting.
#[test]
fn a_file_is_tried_again_when_the_table_was_at_fault() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"in/*.csv\"\nevery = \
         \"50ms\"\nunchanged_for = \"0s\"\n",
        place.database()
    );
    let mut program = place.start(&config);
    place.sql("ALTER TABLE orders RENAME COLUMN note TO other");
    place.write("in/b.csv", "id,note\n1,a\n");
    let line = program.wait_for("not loaded, trying again");
    assert!(line.contains("the table cannot be written"), "{line}");
    place.write("in/a.csv", "id,nope\n1,a\n");
    program.wait_for("not loaded; correct it");
    place.sql("ALTER TABLE orders RENAME COLUMN other TO note");
    program.wait_for("loaded: 1 records, 1 written");
    assert_eq!(program.stop().0, 0);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

/// Its folder, or one name in it, says nothing of the others.
#[test]
fn a_file_whose_rejected_records_have_no_place_keeps_no_other_waiting() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"in/*.csv\"\nevery = \
         \"50ms\"\nunchanged_for = \"0s\"\n",
        place.database()
    );
    place.write("in/a.csv", "id,note\nx,a\n");
    place.write("in/b.csv", "id,note\n1,a\n");
    std::os::unix::fs::symlink("/no/such/folder/file", place.path("in/a.csv.rejects.ndjson")).unwrap();
    let mut program = place.start(&config);
    let line = program.has_said("loaded: 1 records, 1 written");
    assert!(line.contains("b.csv"), "{line}");
    std::fs::remove_file(place.path("in/a.csv.rejects.ndjson")).unwrap();
    program.has_said("loaded: 1 records, 1 rejected");
    assert_eq!(program.stop().0, 0);
}

/// A service that is stopped in the middle of a file writes nothing of it again.
#[test]
fn stops_double_no_row_of_a_file() {
    const RECORDS: i64 = 200_000;
    let place = place();
    let lines: String = (0..RECORDS).map(|id| format!("{id},x\n")).collect();
    place.write("in/a.csv", format!("id,note\n{lines}"));
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"in/*.csv\"\nevery = \
         \"50ms\"\nunchanged_for = \"0s\"\nat_least_once = true\n",
        place.database()
    );
    let rows = || place.number("SELECT count(*) FROM orders");
    for _ in 0..4 {
        let before = rows();
        let program = place.start(&config);
        until(|| rows() > before || before == RECORDS, || format!("{before} rows"));
        let (code, log) = program.stop();
        assert_eq!(code, 0, "{log}");
    }
    let mut program = place.start(&config);
    program.wait_for(&format!("loaded: {RECORDS} records"));
    assert_eq!(program.stop().0, 0);
    assert_eq!((rows(), place.number("SELECT count(DISTINCT id) FROM orders")), (RECORDS, RECORDS));
}

/// Nothing would come from there, or its rejected records could not be stored.
#[test]
fn the_folder_of_a_source_is_checked() {
    let place = place();
    let check = |files: &str, part: &str| {
        let config = format!(
            "{}[dead_letters]\nfile = \"l.ndjson\"\n[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"drop\"\ntable = \
             \"orders\"\nfiles = \"{files}\"\n",
            place.database()
        );
        place.write("b.toml", config);
        let ran = place.run(&["check", "b.toml"]);
        assert!(ran.all().contains(part), "{files}: {}", ran.all());
        ran.all()
    };
    let all = check("in/*.csv", "0 files now");
    assert!(!all.contains("no folder") && !all.contains("cannot be written"), "{all}");
    check("later/*/a.csv", "there is no folder");
    place.write("in/a.csv", "id,note\n");
    std::fs::create_dir(place.path("in/a.csv.rejects.ndjson")).unwrap();
    check("in/*.csv", "rejected records cannot be added to");
    // Nobody may make a file there.
    check("/proc/self/*.csv", "the folder /proc/self cannot be written, where rejected records");
    // Files are made beside those that match, and not where the pattern begins.
    for folder in ["data/a", "data/b"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
        place.write(&format!("{folder}/x.csv"), "id,note\n");
    }
    let made = || std::fs::metadata(place.path("data")).unwrap().modified().unwrap();
    let before = made();
    let all = check("data/*/x.csv", "2 files now");
    assert!(!all.contains("cannot be written"), "{all}");
    assert_eq!(made(), before, "nothing was made in the folder above them");
    std::fs::remove_dir_all(place.path("data/b")).unwrap();
    std::os::unix::fs::symlink("/proc/self", place.path("data/b")).unwrap();
    check("data/*/x.csv", "data/b cannot be written, where rejected records");
}

/// Below a durable intake rows are retried without an end, those of files too.
#[test]
fn files_are_loaded_beside_a_durable_intake() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[[sources]]\nid = \"drop\"\ntable = \
         \"orders\"\nfiles = \"in/*\"\nevery = \"50ms\"\nunchanged_for = \"0s\"\n",
        place.database()
    );
    place.write("in/a.csv", "id,note\n1,a\nx,c\n");
    let mut program = place.start(&config);
    program.wait_for("loaded: 2 records, 1 written, 1 rejected");
    assert_eq!(program.stop().0, 0);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

#[test]
fn standard_input_is_read_to_its_end() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"pipe\"\ntable = \"orders\"\nstdin = true\n",
        place.database()
    );
    place.write("b.toml", &config);
    let mut child = place.command(&["run", "b.toml"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: String = (0..5000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    child.stdin.take().unwrap().write_all(format!("{lines}nonsense\n{{\"id\":5000}}").as_bytes()).unwrap();
    let ran = crate::program::Ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code(), 1, "a line was left out: {}", ran.all());
    assert!(ran.err().contains("accepted=5001 refused=1"), "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 5001);
    let input = std::fs::File::open(place.write("input", "{\"id\":5001}\n")).unwrap();
    let ran = crate::program::Ran(place.command(&["run", "b.toml"]).stdin(input).output().unwrap());
    assert_eq!(ran.code(), 0, "{}", ran.all());

    // A pipe that stays open does not keep the service from ending.
    let mut command = place.command(&["run", "b.toml"]);
    command.stdin(Stdio::piped());
    let mut program = Running::start(command);
    program.stdin().write_all(b"{\"id\":6000}\n").unwrap();
    until(|| place.number("SELECT count(*) FROM orders") == 5003, || "no row".to_owned());
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn input_that_is_not_read_is_a_failure() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"pipe\"\ntable = \"orders\"\nstdin = true\n",
        place.database()
    );
    place.write("b.toml", &config);
    let input = std::fs::File::open(place.write("input", format!("{{\"id\":1}}\n{}\n", "x".repeat(2 << 20)))).unwrap();
    let ran = crate::program::Ran(place.command(&["run", "b.toml"]).stdin(input).output().unwrap());
    assert!(ran.code() == 1 && ran.err().contains("a line is too long"), "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

/// Whoever starts the program again has to know that rows wait.
#[test]
fn rows_that_wait_count_more_than_lines_that_were_refused() {
    let place = place();
    let config = format!(
        "{}[run]\ndrain_for = \"100ms\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[[tables]]\nname = \"orders\"\n[[sources]]\nid = \
         \"pipe\"\ntable = \"orders\"\nstdin = true\n",
        place.database().replace(".db", ".db?busy_timeout=3600s")
    );
    place.write("b.toml", &config);
    let start = || {
        let mut command = place.command(&["run", "b.toml"]);
        command.stdin(Stdio::piped());
        Running::start(command)
    };
    let mut program = start();
    let lock = place.sql("BEGIN IMMEDIATE");
    program.stdin().write_all(b"{\"id\":1}\nnonsense\n").unwrap();
    program.close_stdin();
    let (code, log) = program.wait();
    assert!(code == 4 && log.contains("refused=1"), "{code}: {log}");
    drop(lock);
    let mut program = start();
    program.stdin().write_all(b"nonsense\n").unwrap();
    program.close_stdin();
    let (code, log) = program.wait();
    assert_eq!(code, 1, "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

/// A whole input of another form would fill the disk of the log.
#[test]
fn refused_lines_of_standard_input_are_counted_in_the_log() {
    let place = place();
    let config = format!(
        "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"pipe\"\ntable = \"orders\"\nstdin = true\n",
        place.database()
    );
    place.write("b.toml", &config);
    // Lines of two reasons.
    let input = "nonsense\n[]\n".repeat(10_000);
    let input = std::fs::File::open(place.write("input", input)).unwrap();
    let ran = crate::program::Ran(place.command(&["run", "b.toml"]).stdin(input).output().unwrap());
    let log = ran.err();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert!(lines[0].contains("line=1 ") && lines[0].contains("is not a valid row"), "the reason: {log}");
    assert!(lines.len() < 1000, "{} lines", lines.len());
    let mores = lines.iter().filter_map(|line| line.split("more lines were not valid rows").nth(1));
    let number = |more: &str| more.split("lines=").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    let more: usize = mores.map(number).sum();
    let said = lines.iter().filter(|line| line.contains("is not a valid row")).count();
    assert_eq!((ran.code(), said, more), (1, 2, 19_998), "one for each reason, and the number of the others: {log}");
    assert!(log.contains("accepted=0 refused=20000"), "{log}");
}

/// The database does not answer, and rows may wait for an hour. Those that were accepted are in the table, the dead letters or the
/// log.
#[test]
fn a_second_signal_shortens_the_wait() {
    const WRITTEN: i64 = 100;
    const ROWS: i64 = 3_000;
    let lines = |ids: std::ops::Range<i64>| -> String { ids.map(|id| format!("{{\"id\":{id}}}\n")).collect() };
    let letters = "[dead_letters]\nfile = \"letters.ndjson\"\n";
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n";
    for (more, code) in [(letters, 1), ("", 1), (durable, 4)] {
        let place = place();
        let config = format!(
            "{}[run]\ndrain_for = \"1h\"\n[pipeline]\nretry_for = \"1h\"\n[[tables]]\nname = \"orders\"\n[http]\nlisten = \"127.0.0.1:0\"\n{more}",
            place.database().replace(".db", ".db?busy_timeout=3600s")
        );
        let mut program = place.start(&config);
        let response = post(program.address(), "orders/rows", &[NDJSON], lines(0..WRITTEN));
        assert_eq!(response.number("accepted"), WRITTEN as u64, "{response:?}");
        let written = || place.number("SELECT count(*) FROM orders");
        until(|| written() == WRITTEN, || format!("{} rows", written()));
        let lock = place.sql("BEGIN IMMEDIATE");
        let response = post(program.address(), "orders/rows", &[NDJSON], lines(WRITTEN..ROWS));
        assert_eq!(response.number("accepted"), (ROWS - WRITTEN) as u64, "{response:?}");
        program.signal(Signal::TERM);
        program.wait_for("no more rows are accepted");
        program.signal(Signal::INT);
        let line = program.wait_for("ended:");
        let (ended, log) = program.wait();
        assert_eq!(ended, code, "{log}");
        assert!(!line.contains("was not waited for"), "{log}");
        drop(lock);
        if more == letters {
            let letters = std::fs::read_to_string(place.path("letters.ndjson")).unwrap();
            let mut ids: Vec<i64> = letters
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["row"]["id"].as_i64().unwrap())
                .collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(WRITTEN..ROWS), "{line}");
            assert!(letters.contains("\"purged\"") || letters.contains("\"unknown\""), "{line}");
        }
        if more == durable {
            assert!(line.contains(&format!("{} rows wait in the log", ROWS - WRITTEN)), "{line}");
            assert!(line.contains(" passed on to the database") && !line.contains(" accepted"), "{line}");
            let (ended, log) = place.start(&config).stop();
            assert_eq!(ended, 0, "{log}");
            assert_eq!(place.number("SELECT count(*) FROM orders"), ROWS);
            assert_eq!(place.number("SELECT count(DISTINCT id) FROM orders"), ROWS);
        }
    }
}

/// Rows that fail for one reason have one line, and one with their number.
#[test]
fn rows_that_are_not_written_are_counted_in_the_log() {
    let place = place();
    place.sql("CREATE TABLE strict (id INTEGER CHECK (id < 0))");
    let config = format!(
        "{}[[tables]]\nname = \"strict\"\n[dead_letters]\nfile = \"letters.ndjson\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        place.database()
    );
    let program = place.start(&config);
    let lines: String = (0..500).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let response = post(program.address(), "strict/rows?wait=written", &[NDJSON], lines);
    assert_eq!(response.json()["outcomes"]["rejected"], 500, "{response:?}");
    let (code, log) = program.stop();
    assert_eq!(code, 1, "{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") && line.contains("not written")).collect();
    assert!((2..10).contains(&lines.len()), "{log}");
    assert!(lines[0].contains("CHECK"), "the reason: {log}");
    let place_of_rows = "letters.ndjson; write them again with `batchsql dead-letters replay`";
    assert!(lines[1].contains(place_of_rows) && lines[1].contains("rows="), "{log}");
    let letters = std::fs::read_to_string(place.path("letters.ndjson")).unwrap();
    assert_eq!(letters.lines().count(), 500);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(place.path("letters.ndjson")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has values of rows");
    }
}

/// Those of a durable intake too, whose file is in its folder by default.
#[test]
fn rows_of_a_durable_intake_that_are_not_written_are_in_the_log() {
    let place = place();
    place.sql("CREATE TABLE strict (id INTEGER CHECK (id < 100))");
    let config = format!(
        "{}[[tables]]\nname = \"strict\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        place.database()
    );
    let mut program = place.start(&config);
    let lines: String = (99..120).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let response = post(program.address(), "strict/rows?wait=logged", &[NDJSON], lines);
    assert_eq!(response.number("accepted"), 21, "{response:?}");
    let first = program.wait_for("a row was not written");
    assert!(first.contains("CHECK") && first.contains("strict"), "the reason: {first}");
    let letters = || std::fs::read_to_string(place.path("intake/dead-letters.ndjson")).unwrap().lines().count();
    until(|| letters() == 20, || format!("{} letters", letters()));
    let (code, log) = program.stop();
    assert_eq!(code, 1, "{log}");
    let more = log.lines().find(|line| line.contains("more rows were not written")).unwrap_or_default();
    assert!(more.contains("rows=19") && more.contains("intake/dead-letters.ndjson"), "{log}");
}

#[test]
fn a_service_without_sources_is_a_mistake() {
    let place = place();
    place.write("b.toml", format!("{}[[tables]]\nname = \"orders\"\n", place.database()));
    let ran = place.run(&["run", "b.toml"]);
    assert!(ran.code() == 2 && ran.err().contains("there is nothing to read"), "{}", ran.all());
}
