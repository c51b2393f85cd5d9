//! `batchsql check`.

use serde_json::Value;

use crate::client::{NDJSON, post};
use crate::program::Place;

const TABLE: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT NOT NULL, total REAL);";

#[test]
fn what_is_ready_is_said_line_by_line() {
    let place = Place::new();
    place.sql(TABLE);
    let config = format!(
        "{}[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[http]\nlisten = \"127.0.0.1:0\"\n[[tables]]\nname = \"orders\"\nrule = \
         \"update\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"*.ndjson\"\n",
        place.database()
    );
    place.write("b.toml", config);
    let ran = place.run(&["check", "b.toml"]);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    for part in [
        "ok   configuration  b.toml: 1 table, 1 source, HTTP",
        "ok   port           127.0.0.1:0: it is free",
        "the folder is new; it can be made",
        "ok   database       sqlite: it can be reached, and accepts the login",
        "ok   table          orders: update in orders, 3 columns by id; it may be written",
        "ok   positions      batchsql_positions: the table is there and may be written",
        "everything is ready",
    ] {
        assert!(ran.out().contains(part), "{part:?} is not in:\n{}", ran.all());
    }
    assert!(!ran.out().contains('\u{1b}'), "colours without a terminal");
    assert!(!place.path("intake").exists(), "a check leaves nothing behind");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 0);

    let offline = place.run(&["check", "b.toml", "--offline", "--json"]);
    let document: Value = serde_json::from_str(&offline.out()).unwrap();
    assert_eq!(document["ready"], true);
    let database = document["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "database");
    assert_eq!(database.unwrap()["status"], "skipped");
}

/// A table that does not fit needs one run to be corrected, not one for each problem.
#[test]
fn all_problems_of_a_table_are_in_one_line() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER, note TEXT NOT NULL, total REAL)");
    let check = |more: &str| {
        place.write("b.toml", format!("{}[[tables]]\nname = \"orders\"\n{more}", place.database()));
        let ran = place.run(&["check", "b.toml"]);
        assert_eq!(ran.code(), 1, "{}", ran.all());
        let line = ran.out().lines().find(|line| line.contains("orders:")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{}", ran.all()))
    };
    let columns = "rule = \"update\"\nkey = [\"id\"]\ncolumns = [{ name = \"id\", type = \"i64\" }, { name = \"price\", type = \
                   \"f64\" }, { name = \"at\", type = \"date\" }]";
    let line = check(columns);
    for part in [
        "3 problems: (1) it has no columns \"price\", \"at\"; add them",
        "(2) its column \"note\" is NOT NULL without a default",
        "(3) rows cannot be written with conflict key (id)",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    let line = check("fields = { a = \"notes\", b = \"totl\" }\ndefaults = { ids = 1 }");
    for part in ["did you mean `note`?; `fields.b`", "did you mean `total`?; `defaults.ids`", "did you mean `id`?"] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    place.sql("CREATE UNIQUE INDEX by_id ON orders (id)");
    let line = check("rule = \"update\"\nkey = [\"id\"]\nonly_if_newer = \"vresion\"\nfields = { a = \"notes\" }");
    for part in ["vresion", "`fields.a` names the column `notes`"] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    let line = check("defaults = { id = \"x\", total = \"y\" }");
    assert_eq!(line.matches("the default does not fit").count(), 2, "{line}");
}

/// The exit code and a text for each thing that is wrong.
#[test]
fn each_thing_that_is_wrong_has_its_exit_code() {
    let place = Place::new();
    place.sql(&format!("{TABLE} CREATE TABLE plain (id INTEGER);"));
    let check = |text: &str, code: i32, part: &str| {
        place.write("b.toml", text);
        let ran = place.run(&["check", "b.toml"]);
        assert_eq!(ran.code(), code, "{text}\n{}", ran.all());
        assert!(ran.out().contains(part), "{part:?} is not in:\n{}", ran.all());
    };
    let table = |more: &str| format!("{}[[tables]]\n{more}", place.database());
    check("[databse]", 2, "b.toml:1:2: the key `databse` is not known; did you mean `database`?");
    check(&table("name = \"order\""), 1, "order");
    check(&table("name = \"plain\"\nrule = \"ignore\""), 1, "has no primary key and no unique index");
    check(
        &table("name = \"orders\"\nrule = \"ignore\"\nkey = [\"note\"]"),
        1,
        "a PRIMARY KEY or UNIQUE index over exactly these columns",
    );
    check(
        &table("name = \"orders\"\nfields = { total_price = \"totl\" }"),
        1,
        "`fields.total_price` names the column `totl`, which orders does not have; did you mean `total`?",
    );
    check(&table("name = \"orders\"\ndefaults = { total = \"x\" }"), 1, "the default does not fit");
    let http = "[http]\nlisten = \"127.0.0.1:0\"\n[metrics]\n";
    let dsn = format!("[database]\ndsn = \"oracle://h/x\"\n{http}[[tables]]\nname = \"t\"");
    check(&dsn, 2, "no driver for the scheme");
    let ran = place.run(&["run", "b.toml"]);
    assert!(ran.code() == 2 && ran.err().contains("no driver for the scheme"), "as `check` says: {}", ran.all());
    check("[database]\ndsn = \"postgres://u:hunter2@127.0.0.1:1/x\"\n[[tables]]\nname = \"t\"", 3, "127.0.0.1");
    let unwritable = format!("{}[durable]\nfolder = \"/proc/intake\"\n[[tables]]\nname = \"orders\"", place.database());
    check(&unwritable, 3, "the folder cannot be written");
    let full = format!(
        "{}[durable]\nfolder = \"intake\"\nmin_free = \"1EiB\"\n[[tables]]\nname = \"orders\"",
        place.database()
    );
    check(&full, 3, "no row is accepted below 1.0 EiB (durable.min_free)");
    for (more, part) in [
        ("[pipeline]\nwhen_full = \"drop_oldest\"", "drops no row"),
        ("[durable]\nfolder = \"intake\"\nexactly_once = \" a\"", "no space at its ends"),
    ] {
        let durable = if more.contains("durable") { "" } else { "[durable]\nfolder = \"intake\"\n" };
        let text = format!(
            "{}{durable}{more}\n[[tables]]\nname = \"orders\"\n[http]\nlisten = \"127.0.0.1:0\"",
            place.database()
        );
        check(&text, 1, part);
        let ran = place.run(&["run", "b.toml"]);
        assert!(ran.code() == 2 && ran.err().contains(part), "systemd must not start it again: {}", ran.all());
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("tls.crt", made.cert.pem());
    place.write("tls.key", made.signing_key.serialize_pem());
    let http = "[http]\nlisten = \"127.0.0.1:0\"\n[http.tls]\ncertificates = \"tls.key\"\nkey = \"tls.crt\"\n";
    check(&format!("{http}{}", table("name = \"orders\"")), 1, "are they swapped?");
    let missing = place.run(&["check", "nope.toml"]);
    assert_eq!(missing.code(), 2);
    assert!(missing.out().contains("nope.toml: the file cannot be read"), "{}", missing.all());
}

/// What a check can know about fields, before a document comes.
#[test]
fn fields_that_are_lost_in_silence_are_named() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT NOT NULL, total REAL, source TEXT NOT NULL)");
    let check = |more: &str| {
        place.write("b.toml", format!("{}[[tables]]\nname = \"orders\"\nrule = \"update\"\n{more}", place.database()));
        let ran = place.run(&["check", "b.toml"]);
        assert_eq!(ran.code(), 0, "a warning only: {}", ran.all());
        let lines: Vec<String> = ran
            .out()
            .lines()
            .filter(|line| line.starts_with("warn") && line.contains("table "))
            .map(str::to_owned)
            .collect();
        lines.join("\n")
    };
    let fields = "fields = { orderId = \"id\" }\ndefaults = { source = \"web\" }\n";
    assert_eq!(check(fields), "", "a field that is no column is refused");
    let ignored = check(&format!("{fields}unknown_fields = \"ignore\""));
    for part in [
        "also one whose name is mistyped",
        "`source` gets its default",
        "`total` gets NULL or the default of the database",
        "a row without `id` (field `orderId`), `note` is refused",
        "`missing_fields = \"refuse\"` refuses such rows",
    ] {
        assert!(ignored.contains(part), "{part}: {ignored}");
    }
    let refused = check(&format!("{fields}unknown_fields = \"ignore\"\nmissing_fields = \"refuse\""));
    assert!(
        refused.contains("`source` gets its default; a row without") && !refused.contains("missing_fields"),
        "{refused}"
    );
    // The field with the name of a column becomes another one.
    let unfed = check("fields = { note = \"source\" }");
    let expected =
        "no field becomes the column `note` of orders, as `fields.note` becomes `source`: every row is refused";
    assert!(unfed.contains(expected) && unfed.lines().count() == 1, "{unfed}");
    let unfed = check("fields = { note = \"source\", total = \"id\" }\ndefaults = { note = \"-\" }");
    for part in ["`fields.note` becomes `source`: every row gets its default", "rows never have a value for it"] {
        assert!(unfed.contains(part), "{part}: {unfed}");
    }
}

/// What `run` would refuse before the first row, a check has refused.
#[test]
fn a_check_refuses_what_run_refuses() {
    let place = Place::new();
    place.sql(TABLE);
    let check = |more: &str, code: i32, part: &str| {
        place.write(
            "b.toml",
            format!("{}{more}\n[http]\nlisten = \"127.0.0.1:0\"\n[[tables]]\nname = \"orders\"", place.database()),
        );
        for command in [&["check", "b.toml"][..], &["check", "b.toml", "--offline"], &["run", "b.toml"]] {
            let ran = place.run(command);
            assert_eq!(ran.code(), code, "{command:?}: {more}\n{}", ran.all());
            assert!(ran.all().contains(part), "{command:?}: {part:?} is not in:\n{}", ran.all());
        }
    };
    for (file, part) in [
        ("", "is empty; name a file"),
        (".", ". is a folder; name a file"),
        ("in/", "in/ is a folder"),
        ("b.toml", "is the configuration"),
        ("./a.db", "is a file of the database"),
        ("a.db-wal", "is a file of the database"),
    ] {
        check(&format!("[dead_letters]\nfile = \"{file}\""), 2, part);
    }
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n";
    check(&format!("{durable}[dead_letters]\nfile = \"intake/log/letters\""), 2, "is a file of the log");
    check("[log]\nlevel = \"batchsql=loud,==\"", 2, "is no filter");
    check("[durable]\nfolder = \"intake\"\npartitions = 0\nmin_free = \"0B\"", 2, "`partitions` is 0");
    assert!(!place.path("intake").exists());
}

/// Its lines would become rows, and their letters rows again.
#[test]
#[cfg(unix)]
fn dead_letters_are_no_input() {
    let place = Place::new();
    place.sql(TABLE);
    std::fs::create_dir(place.path("in")).unwrap();
    place.write("in/a.ndjson", "");
    std::os::unix::fs::symlink("in", place.path("link")).unwrap();
    let config = |files: &str, letters: &str| {
        let text = format!(
            "{}{letters}\n[[tables]]\nname = \"orders\"\nrule = \"update\"\n[[sources]]\nid = \"drop\"\ntable = \"orders\"\nfiles = \"{files}\"\n",
            place.database()
        );
        place.write("b.toml", &text);
        text
    };
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[http]\nlisten = \"127.0.0.1:0\"";
    for (files, letters) in [
        ("*.ndjson", "[dead_letters]\nfile = \"letters.ndjson\""),
        ("in/*.ndjson", "[dead_letters]\nfile = \"in/a.ndjson\""),
        ("in/*", "[dead_letters]\nfile = \"./link/letters\""),
        ("**/*.ndjson", "[dead_letters]\nfile = \"in/letters.ndjson\""),
        // In the folder above those that `**` finds.
        ("**/*.ndjson", "[dead_letters]\nfile = \"letters.ndjson\""),
        ("in/**/*.ndjson", "[dead_letters]\nfile = \"in/letters.ndjson\""),
        ("intake/*.ndjson", durable),
    ] {
        std::fs::create_dir_all(place.path("intake")).unwrap();
        config(files, letters);
        for command in [&["check", "b.toml"][..], &["run", "b.toml"], &["load", "in/a.ndjson", "--config", "b.toml"]] {
            let ran = place.run(command);
            let part = "fits `files` of the source `drop`";
            assert!(ran.code() == 2 && ran.all().contains(part), "{files} {command:?}: {}", ran.all());
        }
    }
    for (files, letters) in [
        ("in/*.ndjson", "[dead_letters]\nfile = \"letters.ndjson\""),
        ("in/*.ndjson", "[dead_letters]\nfile = \"in/letters\""),
        ("in/*.csv", durable),
    ] {
        config(files, letters);
        let ran = place.run(&["check", "b.toml", "--offline"]);
        assert_eq!(ran.code(), 0, "{files}: {}", ran.all());
    }
}

/// `run` writes to it, and nothing reads it again.
#[test]
#[cfg(target_os = "linux")]
fn dead_letters_without_a_regular_file_are_a_warning() {
    let place = Place::new();
    place.sql(TABLE);
    let config = format!(
        "{}[dead_letters]\nfile = \"/dev/full\"\n[[tables]]\nname = \"orders\"\n[http]\nlisten = \"127.0.0.1:0\"",
        place.database()
    );
    place.write("b.toml", config);
    let ran = place.run(&["check", "b.toml", "--offline"]);
    assert!(ran.code() == 0 && ran.out().contains("it is no regular file"), "{}", ran.all());
}

#[test]
fn a_file_of_sqlite_is_not_made() {
    let place = Place::new();
    let database = format!("sqlite:{}", place.path("typo.db").display());
    let config = format!("[database]\ndsn = \"{database}\"\n[[tables]]\nname = \"orders\"");
    place.write("b.toml", config);
    place.write("a.csv", "id\n1\n");
    for command in [&["check", "b.toml"][..], &["load", "a.csv", "--database", &database, "--table", "orders"]] {
        let ran = place.run(command);
        assert_eq!(ran.code(), 3, "{}", ran.all());
        assert!(ran.all().contains("there is no such file; correct the name"), "{}", ran.all());
        assert!(!place.path("typo.db").exists(), "{command:?}");
    }
}

/// The intake makes its folder before the file.
#[test]
fn dead_letters_may_be_in_the_folder_of_the_intake() {
    let place = Place::new();
    place.sql(TABLE);
    let config = format!(
        "{}[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n[dead_letters]\nfile = \"intake/letters.ndjson\"\n[http]\nlisten = \
         \"127.0.0.1:0\"\n[[tables]]\nname = \"orders\"\nrule = \"update\"",
        place.database()
    );
    place.write("b.toml", &config);
    let ran = place.run(&["check", "b.toml"]);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    assert_eq!(place.start(&config).stop().0, 0);
}

/// A database that was restored has older positions than the log, or none.
#[test]
fn positions_that_the_database_has_lost_are_found() {
    let place = Place::new();
    place.sql(TABLE);
    let config = format!(
        "{}[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\nexactly_once = \"app\"\n[http]\nlisten = \"127.0.0.1:0\"\n[[tables]]\nname = \
         \"orders\"\nrule = \"update\"",
        place.database()
    );
    let program = place.start(&config);
    let body = (0..100).map(|id| format!("{{\"id\":{id},\"note\":\"n\"}}\n")).collect::<String>();
    assert_eq!(post(program.address(), "orders/rows", &[NDJSON], body).status, 200);
    assert_eq!(program.stop().0, 0);
    assert_eq!(place.run(&["check", "b.toml"]).code(), 0);
    let check = |part: &str| {
        let ran = place.run(&["check", "b.toml"]);
        assert_eq!(ran.code(), 1, "{}", ran.all());
        assert!(ran.out().contains(part) && ran.out().contains("--accept-log-gap"), "{}", ran.all());
    };
    place.sql("UPDATE batchsql_positions SET sequence = 1 WHERE source = 'app'");
    check("the database has the position 1 of partition ");
    place.sql("DELETE FROM batchsql_positions WHERE source = 'app'");
    check("the database has no position of partition ");
    place.sql("DROP TABLE batchsql_positions");
    check("the database has no position of partition ");
}

/// Their rows that the database refuses are in a file beside each.
#[test]
fn files_alone_need_no_file_of_dead_letters() {
    let place = Place::new();
    place.sql(TABLE);
    let table = format!("{}[[tables]]\nname = \"orders\"\n", place.database());
    let source = |more: &str| format!("[[sources]]\nid = \"{0}\"\ntable = \"orders\"\n{more}\n", &more[..3]);
    let (files, stdin) = (source("files = \"*.ndjson\""), source("stdin = true"));
    let http = "[http]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (sections, is_said) in
        [(&files, false), (&stdin, true), (&format!("{files}{stdin}"), true), (&format!("{files}{http}"), true)]
    {
        place.write("b.toml", format!("{table}{sections}"));
        let ran = place.run(&["check", "b.toml", "--offline"]);
        assert_eq!(ran.out().contains("add [dead_letters]"), is_said, "{}", ran.all());
    }
}
