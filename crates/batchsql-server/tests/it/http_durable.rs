//! Rows over HTTP into a durable intake: a request is stored all or none, and once with its key, also when the program is killed.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{JSON, NDJSON, Response, begin, post, read};
use crate::program::{Place, Running, until};

/// Without a key: a row that is doubled shows.
fn place() -> Place {
    let place = Place::new();
    place.sql("PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER NOT NULL, note TEXT NOT NULL, doc TEXT)");
    place
}

fn config(place: &Place, durable: &str, http: &str) -> String {
    format!(
        "{}[pipeline]\nflush_interval = \"20ms\"\n[[tables]]\nname = \"orders\"\n[durable]\nfolder = \"intake\"\nmin_free = \
         \"0B\"\n{durable}[http]\nlisten = \"127.0.0.1:0\"\n{http}",
        place.database()
    )
}

fn lines(ids: std::ops::Range<u64>) -> String {
    ids.map(|id| format!("{{\"id\":{id},\"note\":\"n{id}\"}}\n")).collect()
}

fn send(at: SocketAddr, key: &str, body: impl AsRef<[u8]>) -> Response {
    post(at, "orders/rows", &[NDJSON, ("Idempotency-Key", key)], body)
}

/// Whether a file of the log has this text.
fn log_has(place: &Place, text: &str) -> bool {
    let has = |path: &std::path::Path| {
        // A segment may be removed meanwhile.
        let content = std::fs::read(path).unwrap_or_default();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    };
    std::fs::read_dir(place.path("intake").join("log")).unwrap().any(|file| has(&file.unwrap().path()))
}

/// Every row from 0 to `rows` is there once.
fn check_rows(place: &Place, rows: u64) {
    let numbers = [
        ("SELECT count(*) FROM orders", rows),
        ("SELECT count(DISTINCT id) FROM orders", rows),
        ("SELECT coalesce(max(id), -1) + 1 FROM orders", rows),
    ];
    for (query, expected) in numbers {
        assert_eq!(place.number(query), expected as i64, "{query}");
    }
}

#[test]
fn a_request_with_a_key_is_stored_once() {
    let place = place();
    // Times that no clock has are times without an end.
    let config = config(&place, "", "limits = { body_time = \"500000000000y\" }\n");
    let config = config.replacen("[database]\n", "[database]\nconnect_for = \"500000000000y\"\n", 1);
    let program = place.start(&config);
    let at = program.address();
    let body = format!("{}nonsense\n{}", lines(0..100), lines(100..150));
    let first = send(at, "k1", &body);
    assert_eq!((first.status, first.number("accepted"), first.number("refused")), (200, 150, 1), "{first:?}");
    assert_eq!(first.header("idempotency-replayed"), None);
    let check = |at: SocketAddr| {
        let repeat = send(at, "k1", &body);
        assert_eq!((repeat.status, &repeat.body), (200, &first.body), "{repeat:?}");
        assert_eq!(repeat.header("idempotency-replayed"), Some("true"));
        let other = send(at, "k1", lines(1000..1010));
        assert_eq!(other.status, 422, "{other:?}");
        assert!(other.json().get("next_line").is_none(), "{other:?}");
        let shorter = send(at, "k1", lines(0..100));
        assert_eq!(shorter.status, 422, "{shorter:?}");
    };
    check(at);
    // A body that breaks off leaves nothing, also of its key.
    let rest = lines(150..300);
    for key in [Some(("Idempotency-Key", "k2")), None] {
        let headers: Vec<_> = [Some(NDJSON), key].into_iter().flatten().collect();
        let mut broken = begin(at, "POST", "/v1/tables/orders/rows", &headers, Some(rest.len()));
        broken.write_all(&rest.as_bytes()[..rest.len() / 2]).unwrap();
        broken.shutdown(std::net::Shutdown::Write).unwrap();
        drop(read(broken));
    }
    let bad = post(at, "orders/rows", &[JSON], "[{\"id\":7,\"note\":\"a\"},");
    assert_eq!((bad.status, bad.number("accepted"), bad.number("next_line")), (400, 0, 1), "{bad:?}");
    let whole = send(at, "k2", &rest);
    assert_eq!((whole.status, whole.number("accepted")), (200, 150), "{whole:?}");
    assert_eq!(whole.header("idempotency-replayed"), None);
    assert_eq!(program.stop().0, 0);
    check_rows(&place, 300);
    // After the end, which has settled and trimmed everything.
    let program = place.start(&config);
    check(program.address());
    assert_eq!(send(program.address(), "k2", &rest).header("idempotency-replayed"), Some("true"));
    assert_eq!(program.stop().0, 0);
    check_rows(&place, 300);
}

/// The exit codes are those of the guide: 4 if rows wait in the log, otherwise 3, as the database could not be used.
#[test]
fn a_signal_that_ends_the_start_has_the_exit_code_of_what_is_in_the_log() {
    let place = place();
    let usual = config(&place, "", "");
    let database = "[database]\ndsn = \"postgres://nobody@127.0.0.1:1/none\"\nconnect_for = \"1h\"\n";
    let without_database = usual.replacen(&place.database(), database, 1);
    let end_start = || {
        place.write("b.toml", &without_database);
        let mut program = Running::spawn(place.command(&["run", "b.toml"]));
        program.wait_for("the database cannot be opened; trying again");
        program.stop()
    };
    let (code, log) = end_start();
    assert_eq!(code, 3, "there is no log: {log}");
    let locked = place.sql("BEGIN IMMEDIATE");
    let program = place.start(&usual);
    assert_eq!(post(program.address(), "orders/rows", &[NDJSON], lines(0..7)).status, 200);
    program.kill();
    let (code, log) = end_start();
    assert!(code == 4 && log.contains("SIGTERM") && log.contains("; 7 rows wait in the log"), "{code}: {log}");
    // Something has emptied the newest segment.
    let emptied = place.write("intake/log/00000000000000009999.seg", "");
    let (code, log) = end_start();
    let said =
        "; up to 7 rows wait in the log, and some may be missing, because it is damaged; see `batchsql log verify`";
    assert!(code == 4 && log.contains(said), "{code}: {log}");
    std::fs::remove_file(emptied).unwrap();
    drop(locked);
    assert_eq!(place.start(&usual).stop().0, 0);
    check_rows(&place, 7);
    let (code, log) = end_start();
    assert_eq!(code, 3, "no row waits: {log}");
    // Nobody knows whether rows wait.
    let identity = place.path("intake/log/IDENTITY");
    let whole = std::fs::read(&identity).unwrap();
    std::fs::write(&identity, "nonsense").unwrap();
    let (code, log) = end_start();
    assert!(code == 4 && log.contains("rows may wait in the log, which cannot be read: "), "{code}: {log}");
    std::fs::write(&identity, whole).unwrap();
    let segment = std::fs::read_dir(place.path("intake/log")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).max().unwrap();
    std::fs::write(segment, "").unwrap();
    let (code, log) = end_start();
    assert!(code == 4 && log.contains("rows may wait in the log, which is damaged"), "{code}: {log}");
    std::fs::remove_dir_all(place.path("intake")).unwrap();
    let (code, log) = end_start();
    assert_eq!(code, 3, "there is no log any more: {log}");
}

#[test]
fn a_folder_that_cannot_be_used_ends_the_start_before_it_listens() {
    let place = place();
    let config = config(&place, "", "");
    let program = place.start(&config);
    let ran = place.run(&["run", "b.toml"]);
    assert!(ran.code() == 3 && ran.err().contains("used by another process"), "{}", ran.all());
    assert!(!ran.all().contains("listening"), "{}", ran.all());
    assert_eq!(program.stop().0, 0);
    // A file.
    place.write("b.toml", config.replace("\"intake\"", "\"b.toml\""));
    let ran = place.run(&["run", "b.toml"]);
    let text = "cannot create the folder b.toml; it is the name of a file";
    assert!(ran.code() == 3 && ran.err().contains(text) && !ran.err().contains("parent"), "{}", ran.all());
}

#[test]
fn written_rows_stay_in_the_log_for_as_long_as_it_is_said() {
    for (keep_for, stays) in [("", false), ("keep_for = \"1h\"\n", true)] {
        let place = place();
        let config = config(&place, keep_for, "");
        for (round, rows) in [(0, 0..20), (1, 20..40)] {
            let program = place.start(&config);
            assert_eq!(send(program.address(), &format!("k{round}"), lines(rows)).status, 200);
            // It ends when all rows are written; the files of the run before are removed then at the latest.
            assert_eq!(program.stop().0, 0);
        }
        check_rows(&place, 40);
        assert_eq!(log_has(&place, "n7"), stays, "{keep_for:?}");
    }
}

/// The program is killed when the log has the request and before the client has an answer, and at other times; the client sends the
/// request again until it has one.
fn kill_between_append_and_answer(place: &Place, config: &str) -> u64 {
    const ROWS: u64 = 40;
    let mut replayed = 0;
    for request in 0..8 {
        let program = place.start(config);
        let key = format!("request {request}");
        let mark = format!("request-{request}-");
        let body = lines(request * ROWS..(request + 1) * ROWS)
            .replace("\"n", &format!("\"{mark}"))
            .replace(&format!("{mark}ote"), "note");
        let headers = [NDJSON, ("Idempotency-Key", &key)];
        let mut stream = begin(program.address(), "POST", "/v1/tables/orders/rows", &headers, Some(body.len()));
        stream.write_all(body.as_bytes()).unwrap();
        if request % 4 < 3 {
            // Whether or not the answer is on its way, this client does not get it.
            until(|| log_has(place, &mark), || format!("the log has no {mark}"));
        } else {
            std::thread::sleep(Duration::from_micros(request * 300));
        }
        program.kill();
        drop(stream);
        let program = place.start(config);
        let again = send(program.address(), &key, &body);
        assert_eq!((again.status, again.number("accepted")), (200, ROWS), "{again:?}");
        replayed += u64::from(again.header("idempotency-replayed") == Some("true"));
        // And once more, after another kill.
        program.kill();
        let program = place.start(config);
        let again = send(program.address(), &key, &body);
        assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")), "{again:?}");
        program.kill();
    }
    let program = place.start(config);
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert!(replayed >= 4, "only {replayed} requests were in the log when the program was killed");
    8 * ROWS
}

#[test]
fn requests_that_are_sent_again_after_a_kill_are_in_the_table_once() {
    let place = place();
    let rows = kill_between_append_and_answer(&place, &config(&place, "exactly_once = \"shop\"\n", ""));
    check_rows(&place, rows);
}

#[test]
fn a_full_log_leaves_nothing_of_a_request() {
    const ROWS: u64 = 12;
    let place = place();
    let db = place.sql("");
    let mut program =
        place.start(&config(&place, "disk = \"256MiB\"\n", "limits = { capacity_time = \"1ms\", line = \"2MiB\" }\n"));
    // The table is locked, so nothing leaves the log.
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let at = program.address();
    let note = "x".repeat(1 << 20);
    let body = |first: u64| -> String {
        (first..first + ROWS).map(|id| format!("{{\"id\":{id},\"note\":\"{note}\"}}\n")).collect()
    };
    let mut rows = 0;
    let refused = loop {
        let response = send(at, &format!("{rows}"), body(rows));
        if response.status != 200 {
            break response;
        }
        assert_eq!(response.number("accepted"), ROWS);
        rows += ROWS;
    };
    assert_eq!((refused.status, refused.number("accepted"), refused.number("next_line")), (429, 0, 1), "{refused:?}");
    assert!(rows >= 10 * ROWS, "{rows} rows");
    assert!(refused.error().contains("no space for it (durable.disk)"), "{refused:?}");
    program.has_said("the log of [durable] takes no rows now");
    let refused = post(at, "orders/rows", &[NDJSON], body(rows));
    assert_eq!((refused.status, refused.number("accepted"), refused.number("next_line")), (429, 0, 1), "{refused:?}");
    // A smaller one has space: the larger one was refused although a part of it had space too.
    let small = send(at, "small", format!("{{\"id\":{rows},\"note\":\"a\"}}\n"));
    assert_eq!(small.status, 200, "{small:?}");
    db.execute_batch("ROLLBACK").unwrap();
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    check_rows(&place, rows + 1);
}

#[test]
fn a_request_above_the_limit_is_stored_in_parts_without_a_key() {
    let place = place();
    let program = place.start(&config(&place, "", "limits = { together = \"16KiB\", held = \"64KiB\" }\n"));
    let at = program.address();
    let refused = send(at, "k", lines(0..3000));
    assert_eq!((refused.status, refused.number("accepted")), (413, 0), "{refused:?}");
    assert!(refused.error().contains("http.limits.together"), "{refused:?}");
    // Its parts are stored before the mistake.
    let stopped = post(at, "orders/rows", &[JSON], format!("[{}", lines(0..3000).trim_end().replace('\n', ",")));
    let stored = stopped.number("accepted");
    assert_eq!((stopped.status, stopped.number("next_line")), (400, stored + 1), "{stopped:?}");
    assert!((1..3000).contains(&stored), "{stopped:?}");
    let rest = post(at, "orders/rows", &[NDJSON], lines(stored..3000));
    assert_eq!((rest.status, rest.number("accepted")), (200, 3000 - stored), "{rest:?}");
    // One that waits for its end holds what others would need.
    let mut holding: Vec<_> =
        (0..4).map(|_| begin(at, "POST", "/v1/tables/orders/rows", &[NDJSON], Some(1 << 20))).collect();
    for stream in &mut holding {
        stream.write_all(lines(0..500).as_bytes()).unwrap();
    }
    until(
        || {
            let response = post(at, "orders/rows", &[NDJSON], lines(5000..5500));
            if response.status == 200 {
                place.sql("").execute("DELETE FROM orders WHERE id >= 5000", []).unwrap();
            }
            response.status == 429
        },
        || "no request was refused for want of memory".to_owned(),
    );
    drop(holding);
    assert_eq!(program.stop().0, 0);
    place.sql("").execute("DELETE FROM orders WHERE id >= 5000", []).unwrap();
    check_rows(&place, 3000);
}

/// All memory for rows that are held is for one request, and a part of it is no multiple of what is reserved at once.
#[test]
fn one_request_may_hold_all_that_may_be_held() {
    let place = place();
    let program = place.start(&config(&place, "", "limits = { together = \"20000B\", held = \"20000B\" }\n"));
    let at = program.address();
    let all = post(at, "orders/rows", &[NDJSON], lines(0..3000));
    assert_eq!((all.status, all.number("accepted")), (200, 3000), "{all:?}");
    let refused = send(at, "k", lines(3000..6000));
    assert_eq!((refused.status, refused.number("accepted")), (413, 0), "{refused:?}");
    assert_eq!(program.stop().0, 0);
    check_rows(&place, 3000);
}

/// Numbers that no `f64` has.
pub(crate) const DOCUMENT: &str = r#"{"tiny":0.1000000000000000055,"large":12345678901234567890,"n":[1.10,-0.0]}"#;

#[test]
fn numbers_in_documents_keep_all_of_their_digits() {
    let place = place();
    place.sql("DROP TABLE orders; CREATE TABLE orders (id INTEGER NOT NULL, note TEXT NOT NULL, doc TEXT, total TEXT)");
    let columns = "columns = [{ name = \"id\", type = \"i64\" }, { name = \"note\", type = \"text\" }, { name = \"doc\", type = \
                   \"json\", nullable = true }, { name = \"total\", type = \"decimal\", nullable = true }]\n";
    for (folder, durable) in [("memory", ""), ("disk", "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n")] {
        let config = format!(
            "{}[[tables]]\nname = \"orders\"\n{columns}{durable}[http]\nlisten = \"127.0.0.1:0\"\n",
            place.database()
        );
        let program = place.start(&config);
        let huge = r#"{"v": [1e400]}"#;
        let body = format!(
            "{{\"id\":1,\"note\":\"{folder}\",\"doc\":{DOCUMENT},\"total\":12345678901234567890.12345}}\n\
             {{\"id\":2,\"note\":\"{folder}\",\"doc\":{huge}}}\n{{\"id\":3,\"note\":\"x\",\"doc\":\"\\ud800\"}}\n"
        );
        let response = post(program.address(), "orders/rows", &[NDJSON], body);
        assert_eq!((response.number("accepted"), response.number("refused")), (2, 1), "{response:?}");
        assert!(response.body.contains("half a character"), "{response:?}");
        assert_eq!(program.stop().0, 0);
        let text = |query: &str| -> String { place.sql("").query_row(query, [folder], |row| row.get(0)).unwrap() };
        assert_eq!(text("SELECT doc FROM orders WHERE id = 1 AND note = ?"), DOCUMENT);
        assert_eq!(text("SELECT doc FROM orders WHERE id = 2 AND note = ?"), huge);
    }
    place.write("a.csv", format!("id,note,doc\n9,csv,\"{}\"\n", DOCUMENT.replace('"', "\"\"")));
    let ran = place.run(&["load", "a.csv", "--config", "b.toml"]);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    let text: String = place.sql("").query_row("SELECT doc FROM orders WHERE id = 9", [], |row| row.get(0)).unwrap();
    assert_eq!(text, DOCUMENT);
}

/// Each request holds rows, and all want more than there is: one is refused at once, and the others go on.
#[test]
fn requests_that_want_all_memory_do_not_wait_for_each_other() {
    let place = place();
    // Longer than the test: no request is answered because of it.
    let program =
        place.start(&config(&place, "", "limits = { held = \"2MiB\", together = \"2MiB\", capacity_time = \"1h\" }\n"));
    let at = program.address();
    let note = "x".repeat(1000);
    let rows = 1200;
    let requests: Vec<_> = (0..16_u64)
        .map(|request| {
            let ids = request * rows..(request + 1) * rows;
            let body: String = ids.map(|id| format!("{{\"id\":{id},\"note\":\"{note}\"}}\n")).collect();
            std::thread::spawn(move || post(at, "orders/rows", &[NDJSON], body))
        })
        .collect();
    let mut stored = 0;
    for request in requests {
        let response = request.join().unwrap();
        match response.status {
            200 => stored += 1,
            429 => {
                assert_eq!(response.header("retry-after"), Some("1"), "{response:?}");
                assert_eq!(response.number("accepted"), 0, "all or none");
            }
            _ => panic!("{response:?}"),
        }
    }
    assert!(stored > 0);
    // Nothing is held any more.
    assert_eq!(post(at, "orders/rows", &[NDJSON], lines(0..1)).status, 200);
    assert_eq!(program.stop().0, 0);
    assert_eq!(place.number("SELECT count(*) FROM orders"), stored * rows as i64 + 1);
}

/// The reason is in the log of the program, without the row.
#[test]
fn the_first_rejected_row_of_each_kind_is_logged() {
    for exactly_once in ["", "exactly_once = \"app\"\n"] {
        let place = Place::new();
        place.sql("PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER NOT NULL, note TEXT NOT NULL, doc TEXT, CHECK (id <> 1))");
        let mut program = place.start(&config(&place, exactly_once, ""));
        assert_eq!(post(program.address(), "orders/rows", &[NDJSON], lines(0..3)).status, 200);
        let first = program.wait_for("a row was not written; more of this kind are counted");
        assert!(first.contains("CHECK") && !first.contains("n1"), "{first}");
        assert_eq!(program.stop().0, 1);
        assert_eq!(place.number("SELECT count(*) FROM orders"), 2);
    }
}
