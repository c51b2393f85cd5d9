//! Owns the checks of runs on a database with other tables, which must stay unchanged.
//! Must not know how cases use the suite's own tables.

use batchsql::sqlite::rusqlite::Connection;

use crate::support::{SMALL, Suite, database, objects, results};

/// Tables of the user with names similar to the suite's, with indexes, triggers and views.
const THEIRS: &str = "
    CREATE TABLE events (id INTEGER PRIMARY KEY, note TEXT);
    CREATE INDEX events_note ON events (note);
    CREATE TABLE batchsql_suitcase (id INTEGER);
    CREATE TABLE my_batchsql_suite_events (id INTEGER);
    CREATE VIEW recent AS SELECT * FROM events;
    CREATE TRIGGER on_event AFTER INSERT ON events BEGIN UPDATE users SET name = 'changed'; END;
    INSERT INTO events VALUES (1, 'one'), (2, NULL);
    UPDATE users SET name = 'Ada';
    INSERT INTO batchsql_suitcase VALUES (3);
    INSERT INTO my_batchsql_suite_events VALUES (4);";

fn content(conn: &Connection) -> Vec<String> {
    let tables = "SELECT name, note FROM users, events
        UNION ALL SELECT 'suitcase', id FROM batchsql_suitcase
        UNION ALL SELECT 'my', id FROM my_batchsql_suite_events";
    let mut statement =
        conn.prepare(&format!("SELECT name || coalesce(note, '-') FROM ({tables}) ORDER BY 1")).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_file_keeps_what_is_in_it_and_loses_what_the_suite_made() {
    let suite = Suite::new(&SMALL);
    let (path, conn, dsn) = database(suite.dir());
    conn.execute_batch(THEIRS).unwrap();
    let before = (objects(&conn), content(&conn));
    assert_eq!(before.1.len(), 4, "{before:?}");
    // Tables of a killed run.
    conn.execute_batch("CREATE TABLE batchsql_suite_events (old TEXT); CREATE TABLE batchsql_suite_visits (old TEXT)")
        .unwrap();

    let run = suite.env("SQLITE_DSN", &dsn).run().expect_code(0);

    assert_eq!((objects(&conn), content(&conn)), before);
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let report = run.report();
    assert_eq!(report["summary"]["passed"], 10);
    assert_eq!(report["environment"]["databases"][0]["location"], "file");
    // A DSN may hold a password, and a path may hold private information.
    let everything = run.everything();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(!everything.contains(name) && !everything.contains(&dsn));
}

#[test]
fn memory_works_as_a_database() {
    let run = Suite::new(&SMALL).env("SQLITE_DSN", "sqlite::memory:").run().expect_code(0);
    let report = run.report();
    assert_eq!(results(&report).len(), 10);
    assert_eq!(report["summary"]["passed"], 10);
    assert_eq!(report["environment"]["databases"][0]["location"], "in memory");
    let left: Vec<_> = std::fs::read_dir(run.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "only the report and the folder for temporary files: {left:?}");
}
