//! Standard output and standard error that cannot be written: a file on a full disk, and a pipe whose reader has ended.

use std::process::Stdio;

use crate::program::{Place, Ran};

/// Each write to them fails.
fn broken() -> [(&'static str, Stdio); 2] {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    [("full", full.into()), ("closed", closed.into())]
}

fn orders() -> Place {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    place
}

/// A failed row makes the pipeline log, in the task that writes the other rows too.
#[test]
fn a_log_that_cannot_be_written_costs_no_row() {
    let config = |place: &Place, more: &str| {
        format!(
            "{}[[tables]]\nname = \"orders\"\n[[sources]]\nid = \"pipe\"\ntable = \"orders\"\nstdin = true\n{more}",
            place.database()
        )
    };
    for more in [
        "[dead_letters]\nfile = \"letters.ndjson\"\n",
        "[dead_letters]\nfile = \"letters.ndjson\"\n[log]\nformat = \"json\"\nlevel = \"trace\"\n",
        "[dead_letters]\nfile = \"letters.ndjson\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n",
    ] {
        for (name, stderr) in broken() {
            let place = orders();
            place.write("b.toml", config(&place, more));
            place.sql("INSERT INTO orders VALUES (7)");
            let lines: String = (0..2000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
            let input = std::fs::File::open(place.write("input", format!("{lines}nonsense\n"))).unwrap();
            let mut command = place.command(&["run", "b.toml"]);
            let ran = Ran(command.stdin(input).stderr(stderr).output().unwrap());
            assert_eq!(ran.code(), 1, "a row and a line were refused: {name}: {more}");
            assert_eq!(place.number("SELECT count(*) FROM orders"), 2000, "{name}: {more}");
            let letters = std::fs::read_to_string(place.path("letters.ndjson")).unwrap();
            assert_eq!(letters.lines().count(), 1, "{name}: {more}: {letters}");
        }
    }
    for (name, stderr) in broken() {
        let place = orders();
        place.write("b.toml", config(&place, ""));
        let input = std::fs::File::open(place.write("input", "{\"id\":90}\n")).unwrap();
        let ran = Ran(place.command(&["run", "b.toml"]).stdin(input).stderr(stderr).output().unwrap());
        assert_eq!((ran.code(), place.number("SELECT count(*) FROM orders")), (0, 1), "{name}");
    }
}

#[test]
fn an_error_that_cannot_be_said_keeps_its_exit_code() {
    let place = Place::new();
    for arguments in [&["run", "none.toml"][..], &["chekc"]] {
        for (name, stderr) in broken() {
            let ran = Ran(place.command(arguments).stderr(stderr).output().unwrap());
            assert_eq!(ran.code(), 2, "{arguments:?}, {name}");
        }
    }
}

/// Whoever closes a pipe has read enough; on a full disk something is missing.
#[test]
fn output_that_cannot_be_written_has_an_exit_code() {
    let place = orders();
    place.write("b.toml", format!("{}[[tables]]\nname = \"orders\"\n", place.database()));
    place.write("letters.ndjson", "");
    let program = place.start(&format!(
        "{}[[tables]]\nname = \"orders\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        place.database()
    ));
    assert_eq!(program.stop().0, 0);
    for arguments in [
        &["check", "b.toml"][..],
        &["check", "b.toml", "--json"],
        &["completions", "bash"],
        &["dead-letters", "list", "letters.ndjson"],
        &["log", "inspect", "intake"],
        &["log", "verify", "intake"],
        &["--help"],
        &["--version"],
    ] {
        for (name, stdout) in broken() {
            let ran = Ran(place.command(arguments).stdout(stdout).output().unwrap());
            let expected = if name == "full" { (3, true) } else { (0, false) };
            let says = ran.err().contains("error: standard output cannot be written: ");
            assert_eq!((ran.code(), says), expected, "{arguments:?}, {name}: {}", ran.all());
        }
    }
    // What was found is more than that it could not be shown.
    for (name, stdout) in broken() {
        let ran = Ran(place.command(&["check", "none.toml"]).stdout(stdout).output().unwrap());
        assert_eq!(ran.code(), 2, "{name}: {}", ran.all());
    }
}

#[test]
fn files_are_loaded_though_it_cannot_be_said() {
    for (name, stdout) in broken() {
        let place = orders();
        place.write("x.csv", "id\n1\n2\n");
        place.write("y.csv", "id\n3\n");
        let mut command = place.command(&["load", "x.csv", "y.csv", "--database", "sqlite:a.db", "--table", "orders"]);
        let ran = Ran(command.stdout(stdout).output().unwrap());
        assert_eq!(place.number("SELECT count(*) FROM orders"), 3, "{name}: {}", ran.all());
        assert_eq!(ran.code(), if name == "full" { 3 } else { 0 }, "{name}: {}", ran.all());
    }
}

/// A program that reads the log reads the reason of a start that fails too.
#[test]
fn the_error_of_a_start_is_json_where_the_log_is() {
    let place = orders();
    place.write("a.csv", "id\n1\n");
    let config = |dsn: &str, more: &str| {
        format!(
            "[database]\ndsn = \"{dsn}\"\nconnect_for = \"0s\"\n[log]\nformat = \"json\"\nlevel = \"off\"\n[[tables]]\nname = \
             \"orders\"\n{more}"
        )
    };
    let http = "[http]\nlisten = \"127.0.0.1:0\"\n";
    place.write("none.toml", config("sqlite:none.db", http));
    place.write("nothing.toml", config("sqlite:a.db", ""));
    for (arguments, code) in [
        (&["run", "none.toml"][..], 3),
        (&["run", "nothing.toml"], 2),
        (&["load", "a.csv", "--config", "none.toml"], 3),
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code(), code, "{}", ran.all());
        let lines: Vec<serde_json::Value> =
            ran.err().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
        let [line] = &lines[..] else { panic!("{}", ran.all()) };
        assert!(line["level"] == "ERROR" && !line["message"].as_str().unwrap().is_empty(), "{line}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line["target"] == "batchsql", "{line}");
    }
    // It has no form before it is read.
    place.write("wrong.toml", config("sqlite:a.db", "color = 1\n"));
    assert!(place.run(&["run", "wrong.toml"]).err().starts_with("error: "));
}
