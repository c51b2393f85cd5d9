//! The databases that are servers: rows over HTTP, and a load that is killed.

use std::process::Stdio;

use batchsql_testserver::{Kind, Server, dsn, unique};
use serde_json::json;
use sqlx::Row as _;

use crate::client::{NDJSON, post};
use crate::http_durable::DOCUMENT;
use crate::load::kill_and_go_on;
use crate::program::{LONG, Place};

/// All partitions have more than one block.
const RECORDS: u64 = 190_000;

/// Beyond every `f64`.
const HUGE: &str = r#"{"v":1e400}"#;

/// The shared server of the run.
struct Shared(String);

impl Shared {
    fn dsn(&self) -> &str {
        &self.0
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn csv() -> String {
    let lines = (0..RECORDS).map(|id| format!("{id},note {id},{}.25\n", id % 100));
    std::iter::once("id,note,total\n".to_owned()).chain(lines).collect()
}

/// The same server for another user, whose password is `x`.
fn as_user(dsn: &str, user: &str) -> String {
    let (scheme, rest) = dsn.split_once("://").unwrap();
    format!("{scheme}://{user}:x@{}", rest.rsplit_once('@').unwrap().1)
}

/// The same test for the SQL servers: `$connect` opens a connection, on which `$query` runs.
macro_rules! sql_server {
    ($name:ident, $server:expr, $connection:ty, $types:expr, $json:expr, $as_text:expr, $password:expr) => {
        #[test]
        fn $name() {
            use sqlx::Connection;
            let (server, runtime, table) = ($server, runtime(), unique("server"));
            let dsn = server.dsn();
            let connection = std::cell::RefCell::new(runtime.block_on(<$connection>::connect(dsn)).unwrap());
            let execute = |sql: &str| {
                let mut connection = connection.borrow_mut();
                runtime.block_on(sqlx::query(sql).execute(&mut *connection)).unwrap();
            };
            let number = |sql: &str| -> i64 {
                let mut connection = connection.borrow_mut();
                runtime.block_on(sqlx::query(sql).fetch_one(&mut *connection)).unwrap().get(0)
            };
            let (keyed, plain) = (format!("{table}_k"), format!("{table}_p"));
            execute(&format!("CREATE TABLE {keyed} (id BIGINT PRIMARY KEY, note VARCHAR(100) NOT NULL, at {}, total DECIMAL(12, 2))", $types));
            execute(&format!("CREATE TABLE {plain} (id BIGINT NOT NULL, note VARCHAR(100), total DECIMAL(12, 2))"));

            let place = Place::new();
            let config = format!(
                "[database]\ndsn = \"{dsn}\"\n[[tables]]\nname = \"orders\"\ntable = \"{keyed}\"\nrule = \"update\"\n[http]\nlisten = \
                 \"127.0.0.1:0\"\n[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\nexactly_once = \"{table}\"\n"
            );
            place.write("b.toml", &config);
            let check = place.run(&["check", "b.toml"]);
            assert!(check.code() == 0 && check.out().contains("update in") && check.out().contains("4 columns by id"), "{}", check.all());
            // A user who may only read.
            let reader = unique("reader");
            execute(&format!("CREATE USER {reader} {} 'x'", $password));
            execute(&format!("GRANT SELECT ON {keyed} TO {reader}"));
            place.write("reader.toml", config.replace(dsn, &as_user(dsn, &reader)));
            let check = place.run(&["check", "reader.toml"]);
            let line = |start: &str| check.out().lines().find(|line| line.starts_with(start)).map(str::to_owned).unwrap_or_default();
            assert_eq!(check.code(), 1, "{}", check.all());
            let reason = line("FAIL table");
            assert!(reason.contains("this user may not insert") || (reason.contains("INSERT") && reason.contains("denied")), "{}", check.all());
            assert!(line("FAIL positions").contains("batchsql_positions"), "{}", check.all());
            execute(&format!("REVOKE SELECT ON {keyed} FROM {reader}"));
            execute(&format!("DROP USER {reader}"));
            let program = place.start(&config);
            let row = json!({ "id": 1, "note": "a", "at": "2026-01-31T12:00:00Z", "total": "19.90" });
            let response = post(program.address(), "orders/rows?wait=logged", &[NDJSON], format!("{row}\n{{\"id\":2}}\n"));
            assert_eq!((response.number("accepted"), response.number("refused")), (1, 1), "{response:?}");
            let (code, log) = program.stop();
            assert_eq!(code, 0, "{log}");
            assert_eq!(number(&format!("SELECT count(*) FROM {keyed} WHERE total = 19.90")), 1);

            // Documents and decimals keep all digits of their numbers, where the database has a type that does.
            let exact = format!("{table}_x");
            execute(&format!("CREATE TABLE {exact} (id BIGINT NOT NULL, doc {}, total DECIMAL(40, 10))", $json));
            let config = format!(
                "[database]\ndsn = \"{dsn}\"\n[[tables]]\nname = \"exact\"\ntable = \"{exact}\"\ncolumns = [{{ name = \"id\", type = \"i64\" }}, {{ name = \"doc\", type = \"json\" }}, {{ name = \"total\", type = \"decimal\", nullable = true }}]\n[http]\nlisten = \"127.0.0.1:0\"\n"
            );
            let program = place.start(&config);
            let body = format!("{{\"id\":1,\"doc\":{DOCUMENT},\"total\":12345678901234567890.0123456789}}\n{{\"id\":2,\"doc\":{HUGE}}}\n");
            let response = post(program.address(), "exact/rows?wait=written", &[NDJSON], body);
            assert_eq!(response.json()["outcomes"]["written"], 2, "{response:?}");
            assert_eq!(program.stop().0, 0);
            let text = |sql: String| -> String {
                let mut connection = connection.borrow_mut();
                runtime.block_on(sqlx::query(&sql).fetch_one(&mut *connection)).unwrap().get(0)
            };
            let found = |id: u64| text(format!("SELECT {} FROM {exact} WHERE id = {id}", $as_text));
            assert_eq!(found(1), DOCUMENT);
            assert_eq!(found(2), HUGE);
            assert_eq!(number(&format!("SELECT count(*) FROM {exact} WHERE total = 12345678901234567890.0123456789")), 1);
            execute(&format!("DROP TABLE {exact}"));

            place.write("a.csv", csv());
            let rows = || number(&format!("SELECT count(*) FROM {plain}"));
            let kills = kill_and_go_on(&place, &["load", "a.csv", "--database", dsn, "--table", &plain], 0, &rows);
            assert!(kills >= 2, "it was killed {kills} times");
            assert_eq!(rows(), RECORDS as i64);
            assert_eq!(number(&format!("SELECT count(DISTINCT id) FROM {plain}")), RECORDS as i64);
            execute(&format!("DROP TABLE {keyed}"));
            execute(&format!("DROP TABLE {plain}"));
        }
    };
}

sql_server!(postgres, Shared(dsn(Kind::Postgres)), sqlx::PgConnection, "TIMESTAMPTZ", "JSON", "doc::text", "PASSWORD");
// Exactly once needs a server that keeps what it has committed.
sql_server!(
    mysql,
    Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1"]),
    sqlx::MySqlConnection,
    "TIMESTAMP",
    "JSON",
    "CAST(doc AS CHAR)",
    "IDENTIFIED BY"
);

/// Files whose first record the table refuses, with errors that may be those of the table or of the server: the records behind it are
/// written, once.
fn bad_first(dsn: &str, table: &str, notes: &[&str], execute: &dyn Fn(&str), number: &dyn Fn(&str) -> i64) {
    let place = Place::new();
    let config =
        format!("[database]\ndsn = \"{dsn}\"\n[pipeline]\nretry_for = \"300ms\"\n[[tables]]\nname = \"{table}\"\n");
    place.write("b.toml", config);
    for note in notes {
        let shown: String = note.chars().take(8).collect();
        place.write("a.csv", format!("id,note\n1,{note}\n2,a\n3,b\n"));
        let ran = place.run(&["load", "a.csv", "--config", "b.toml", "--again", &shown]);
        assert!(ran.code() == 1 && ran.out().contains("2 written, 1 rejected"), "{shown}: {}", ran.all());
        assert_eq!(number(&format!("SELECT count(*) FROM {table} WHERE id IN (2, 3)")), 2, "{shown}");
        assert_eq!(number(&format!("SELECT count(*) FROM {table}")), 2, "{shown}");
        execute(&format!("DELETE FROM {table}"));
    }
    execute(&format!("DROP TABLE {table}"));
}

#[test]
fn a_record_that_postgres_refuses_first_keeps_no_other_back() {
    use sqlx::Connection;
    let (dsn, runtime, table) = (dsn(Kind::Postgres), runtime(), unique("first"));
    let connection = std::cell::RefCell::new(runtime.block_on(sqlx::PgConnection::connect(&dsn)).unwrap());
    let execute = |sql: &str| {
        runtime.block_on(sqlx::query(sql).execute(&mut *connection.borrow_mut())).unwrap();
    };
    let number =
        |sql: &str| runtime.block_on(sqlx::query(sql).fetch_one(&mut *connection.borrow_mut())).unwrap().get(0);
    execute(&format!("CREATE TABLE {table} (id BIGINT NOT NULL, note TEXT)"));
    execute(&format!("CREATE INDEX ON {table} (note)"));
    execute(&format!(
        "CREATE FUNCTION {table}_refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN \
         IF length(NEW.note) = 5 THEN RAISE EXCEPTION 'refused' USING ERRCODE = NEW.note; END IF; RETURN NEW; END $$"
    ));
    execute(&format!("CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_refuse()"));
    // Longer than an entry of the index, also compressed.
    let mut state = 1_u64;
    let long: String = (0..12_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + (state >> 59) as u8 % 26)
        })
        .collect();
    bad_first(&dsn, &table, &["40P01", "08006", "57P01", "42501", &long], &execute, &number);
    execute(&format!("DROP FUNCTION {table}_refuse()"));
}

#[test]
fn a_record_that_mysql_refuses_first_keeps_no_other_back() {
    use sqlx::Connection;
    let server = Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1", "--max-allowed-packet=1M"]);
    let (dsn, runtime, table) = (server.dsn().to_owned(), runtime(), unique("first"));
    let connection = std::cell::RefCell::new(runtime.block_on(sqlx::MySqlConnection::connect(&dsn)).unwrap());
    let execute = |sql: &str| {
        runtime.block_on(sqlx::raw_sql(sql).execute(&mut *connection.borrow_mut())).unwrap();
    };
    let number =
        |sql: &str| runtime.block_on(sqlx::query(sql).fetch_one(&mut *connection.borrow_mut())).unwrap().get(0);
    execute(&format!("CREATE TABLE {table} (id BIGINT NOT NULL, note LONGTEXT)"));
    let raised = |number: &str| {
        format!("IF NEW.note = '{number}' THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}; END IF; ")
    };
    let numbers = ["1213", "1142", "1146"];
    execute(&format!(
        "CREATE TRIGGER {table}_refuse BEFORE INSERT ON {table} FOR EACH ROW BEGIN {} END",
        numbers.map(raised).concat()
    ));
    let long = "x".repeat(3_000_000);
    bad_first(&dsn, &table, &[&numbers[..], &[&long]].concat(), &execute, &number);
}

/// Rows would be missing if two tables had one mark, and twice in a table if it had two.
#[test]
fn a_load_is_into_the_table_that_is_found() {
    use sqlx::Connection;
    let (dsn, runtime, place) = (dsn(Kind::Postgres), runtime(), Place::new());
    let (common, one, two) = (unique("common"), unique("one"), unique("two"));
    let mut connection = runtime.block_on(sqlx::PgConnection::connect(&dsn)).unwrap();
    let mut execute = |sql: String| {
        runtime.block_on(sqlx::query(&sql).execute(&mut connection)).unwrap();
    };
    for schema in [&common, &one, &two] {
        execute(format!("CREATE SCHEMA {schema}"));
        execute(format!("CREATE TABLE {schema}.inv (id BIGINT)"));
    }
    place.write("a.csv", "id\n1\n2\n");
    let load = |path: &str, table: &str, more: &[&str], part: &str| {
        let options = format!("{}options=-c%20search_path%3D{path}", if dsn.contains('?') { '&' } else { '?' });
        let dsn = format!("{dsn}{options}");
        let ran = place.run(&[&["load", "a.csv", "--database", &dsn, "--table", table], more].concat());
        assert!(ran.code() == 0 && ran.out().contains(part), "{path} {table} {more:?}: {}", ran.all());
    };
    // The positions are in the schema that all of them have.
    load(&common, "inv", &[], "2 written");
    for more in [&[][..], &["--at-least-once"]] {
        for schema in [&one, &two] {
            load(&format!("{schema},{common}"), "inv", more, "2 written");
        }
        for schema in [&one, &two] {
            load(&format!("{schema},{common}"), "inv", more, "already loaded");
            load(&common, &format!("{schema}.inv"), more, "already loaded");
        }
    }
    for schema in [&common, &one, &two] {
        execute(format!("DROP SCHEMA {schema} CASCADE"));
    }
}

/// The database is a part of the name that the server has.
#[test]
fn a_load_is_into_one_table_with_and_without_its_database() {
    use sqlx::Connection;
    let (dsn, runtime, place, table) = (dsn(Kind::MySql), runtime(), Place::new(), unique("inv"));
    let mut connection = runtime.block_on(sqlx::MySqlConnection::connect(&dsn)).unwrap();
    let database: String =
        runtime.block_on(sqlx::query("SELECT DATABASE()").fetch_one(&mut connection)).unwrap().get(0);
    runtime.block_on(sqlx::query(&format!("CREATE TABLE {table} (id BIGINT)")).execute(&mut connection)).unwrap();
    place.write("a.csv", "id\n1\n2\n");
    for (name, part) in [(table.clone(), "2 written"), (format!("{database}.{table}"), "already loaded")] {
        let ran = place.run(&["load", "a.csv", "--database", &dsn, "--table", &name, "--at-least-once"]);
        assert!(ran.code() == 0 && ran.out().contains(part), "{name}: {}", ran.all());
    }
    runtime.block_on(sqlx::query(&format!("DROP TABLE {table}")).execute(&mut connection)).unwrap();
}

/// The right that is missing, not columns that a program would have to declare.
#[test]
fn a_right_that_is_missing_is_named() {
    use sqlx::Connection;
    let (dsn, runtime, place) = (dsn(Kind::Postgres), runtime(), Place::new());
    let (table, reader) = (unique("rights"), unique("reader"));
    let mut connection = runtime.block_on(sqlx::PgConnection::connect(&dsn)).unwrap();
    let mut execute = |sql: String| {
        runtime.block_on(sqlx::query(&sql).execute(&mut connection)).unwrap();
    };
    execute(format!("CREATE TABLE {table} (id BIGINT, note TEXT)"));
    execute(format!("CREATE USER {reader} PASSWORD 'x'"));
    execute(format!("GRANT SELECT ON {table} TO {reader}"));
    let config = format!("[database]\ndsn = \"{}\"\n[[tables]]\nname = \"{table}\"\n", as_user(&dsn, &reader));
    place.write("b.toml", config);
    place.write("a.csv", "id\n1\n");
    for arguments in [&["check", "b.toml"][..], &["load", "a.csv", "--config", "b.toml"]] {
        let ran = place.run(arguments);
        let says = "rows can write none of its columns: id, note (this user may not insert into it); grant the right";
        assert!(ran.code() == 1 && ran.all().contains(says), "{}", ran.all());
        assert!(!ran.all().contains(".column("), "{}", ran.all());
    }
    execute(format!("DROP TABLE {table}"));
    execute(format!("DROP USER {reader}"));
}

/// A server that is killed takes replies with it: the position says whether their rows were committed.
#[test]
fn a_load_goes_on_when_the_database_was_killed() {
    use sqlx::Connection;
    let mut server = Server::start(Kind::Postgres, &[]);
    let (dsn, runtime, place) = (server.dsn().to_owned(), runtime(), Place::new());
    let connect = || runtime.block_on(sqlx::PgConnection::connect(&dsn));
    let number = |sql: &str| -> i64 {
        let mut connection = connect().unwrap();
        runtime.block_on(sqlx::query(sql).fetch_one(&mut connection)).unwrap().get(0)
    };
    let mut connection = connect().unwrap();
    let create = "CREATE TABLE plain (id BIGINT NOT NULL, note VARCHAR(100), total DECIMAL(12, 2))";
    runtime.block_on(sqlx::query(create).execute(&mut connection)).unwrap();
    drop(connection);
    place.write("a.csv", csv());
    let mut load = place.command(&["load", "a.csv", "--database", &dsn, "--table", "plain"]);
    let mut load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut kills, mut last) = (0, 0);
    while kills < 2 && load.try_wait().unwrap().is_none() {
        let now = number("SELECT count(*) FROM plain");
        if now > last {
            last = now;
            server.kill();
            server.start_again();
            kills += 1;
        }
    }
    let ran = crate::program::Ran(load.wait_with_output().unwrap());
    assert_eq!(ran.code(), 0, "{}", ran.all());
    assert!(kills >= 1, "it was not killed");
    assert_eq!(number("SELECT count(*) FROM plain"), RECORDS as i64);
    assert_eq!(number("SELECT count(DISTINCT id) FROM plain"), RECORDS as i64);
}

#[test]
fn redis() {
    let (dsn, place, table) = (dsn(Kind::Redis), Place::new(), unique("server"));
    let config = format!(
        "[database]\ndsn = \"{dsn}\"\n[[tables]]\nname = \"orders\"\ntable = \"{table}\"\nrule = \"update\"\nkey = [\"id\"]\ncolumns = [{{ \
         name = \"id\", type = \"i64\" }}, {{ name = \"note\", type = \"text\" }}, {{ name = \"total\", type = \"decimal\" }}]\n[http]\nlisten = \
         \"127.0.0.1:0\"\n"
    );
    let program = place.start(&config);
    let body = "{\"id\":1,\"note\":\"a\",\"total\":\"1.50\"}\n{\"id\":2,\"note\":\"b\"}\n";
    let response = post(program.address(), "orders/rows?wait=written", &[NDJSON], body);
    assert_eq!((&response.json()["outcomes"]["written"], response.number("refused")), (&json!(1), 1), "{response:?}");
    assert_eq!(program.stop().0, 0);
    place.write("a.csv", csv());
    let mark = || {
        // Empty until the first records are written: then it is only the lock of the load.
        let mark = std::fs::read_to_string(place.path("a.csv.batchsql-load")).unwrap_or_default();
        if mark.is_empty() {
            return 0;
        }
        serde_json::from_str::<serde_json::Value>(&mark).unwrap()["loads"][0]["record"].as_i64().unwrap()
    };
    let kills = kill_and_go_on(&place, &["load", "a.csv", "--config", "b.toml"], 0, &mark);
    assert!(kills >= 2, "it was killed {kills} times");
    assert_eq!(mark(), RECORDS as i64);
    // The first row was written before the file, and is in it.
    let keys = runtime().block_on(async {
        let client = redis::Client::open(dsn.as_str()).unwrap();
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(LONG));
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let script = "local cursor, count = '0', 0
            repeat
                local part = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 10000)
                cursor, count = part[1], count + #part[2]
            until cursor == '0'
            return count";
        let mut count = redis::cmd("EVAL");
        count.arg(script).arg(0).arg(format!("{table}*")).query_async::<u64>(&mut connection).await.unwrap()
    });
    assert_eq!(keys, RECORDS);
    let again = place.run(&["load", "a.csv", "--config", "b.toml"]);
    assert!(again.code() == 0 && again.out().contains("already loaded"), "{}", again.all());
}
