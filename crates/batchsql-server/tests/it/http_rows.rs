//! Rows over HTTP: what is accepted, refused and written.

use std::collections::BTreeSet;
use std::io::Write as _;

use serde_json::json;

use crate::client::{JSON, NDJSON, Response, begin, chunk, post, read_rows, send};
use crate::described;
use crate::program::{Place, Running, until};

const TABLE: &str =
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT NOT NULL CHECK (note <> 'bad'), total REAL);";

fn place() -> Place {
    let place = Place::new();
    place.sql(TABLE);
    place
}

fn config(place: &Place, more: &str) -> String {
    format!(
        "{}[pipeline]\nflush_interval = \"20ms\"\n[[tables]]\nname = \"orders\"\nrule = \"ignore\"\nfields = {{ orderId = \"id\" \
         }}\n[dead_letters]\nfile = \"letters.ndjson\"\n[http]\nlisten = \"127.0.0.1:0\"\n{more}",
        place.database()
    )
}

fn lines(ids: std::ops::Range<u64>) -> String {
    ids.map(|id| format!("{{\"id\":{id},\"note\":\"n{id}\"}}\n")).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn rows_of_every_form_are_written() {
    let place = place();
    let program = place.start(&config(&place, ""));
    let at = program.address();
    let check = |headers: &[(&str, &str)], body: &[u8], accepted: u64| {
        let response = post(at, "orders/rows", headers, body);
        assert_eq!((response.status, response.number("accepted")), (200, accepted), "{response:?}");
    };
    check(&[NDJSON], lines(0..1000).as_bytes(), 1000);
    check(&[NDJSON, ("Content-Encoding", "gzip")], &gzip(lines(1000..2000).as_bytes()), 1000);
    check(&[NDJSON, ("Content-Encoding", "zstd")], &zstd(lines(2000..3000).as_bytes()), 1000);
    check(&[JSON], br#"[{"orderId": 3000, "note": "a"}, {"orderId": 3001, "note": "b"}]"#, 2);
    check(&[("Content-Type", "application/json; charset=utf-8")], br#"{"id": 3002, "note": "c"}"#, 1);
    // As with lines, what is no object is refused, and the others are rows.
    let others = br#"[{"id":3003,"note":"a"}, null, 7, "x", [1], {"id":3009,"note":"b"}]"#;
    let response = post(at, "orders/rows", &[JSON], others);
    assert_eq!((response.status, response.number("accepted"), response.number("refused")), (200, 2, 4), "{response:?}");
    let refused: Vec<_> = (0..4).map(|of| response.json()["rejections"][of]["line"].as_u64()).collect();
    assert_eq!(refused, [2, 3, 4, 5].map(Some), "{response:?}");
    check(&[NDJSON], b"", 0);
    let mut stream = begin(at, "POST", "/v1/tables/orders/rows", &[NDJSON], None);
    for id in 3003..3010 {
        chunk(&mut stream, lines(id..id + 1).as_bytes()).unwrap();
    }
    chunk(&mut stream, b"").unwrap();
    assert_eq!(read_rows(stream).number("accepted"), 7);
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 3010);
    assert_eq!(place.number("SELECT sum(id) FROM orders"), (0..3010).sum::<i64>());
}

#[test]
fn a_bad_line_does_not_refuse_the_others() {
    let place = place();
    let program = place.start(&config(&place, ""));
    let body = "{\"id\":1,\"note\":\"a\"}\nnonsense\n\n{\"id\":2}\n{\"id\":3,\"note\":\"c\",\"colour\":\"s3cret\"}\n{\"id\":4,\"note\":\"d\"}";
    let response = post(program.address(), "orders/rows?wait=written", &[NDJSON], body);
    let json = response.json();
    assert_eq!((response.status, &json["accepted"], &json["refused"]), (200, &json!(2), &json!(3)), "{response:?}");
    assert_eq!(json["outcomes"]["written"], 2);
    let rejected: Vec<(u64, &str)> = json["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rejection| {
            assert_eq!(rejection["outcome"], "refused");
            (rejection["line"].as_u64().unwrap(), rejection["reason"].as_str().unwrap())
        })
        .collect();
    let [(2, nonsense), (4, missing), (5, unknown)] = rejected[..] else { panic!("{rejected:?}") };
    assert!(nonsense.starts_with("it is not JSON"), "{nonsense}");
    assert!(missing.contains("column \"note\""), "{missing}");
    assert!(unknown.contains("field \"colour\" is not declared"), "{unknown}");
    assert!(!response.body.contains("s3cret"), "{response:?}");
    assert_eq!(program.stop().0, 0, "a line that was refused is no row that was lost");
}

#[test]
fn outcomes_are_those_of_the_database() {
    let place = place();
    let program = place.start(&config(&place, ""));
    let at = program.address();
    let body = "{\"id\":1,\"note\":\"a\"}\n{\"id\":2,\"note\":\"bad\"}\n{\"id\":3,\"note\":\"c\"}\n";
    let response = post(at, "orders/rows?wait=written", &[NDJSON], body);
    let json = response.json();
    assert_eq!((&json["outcomes"]["written"], &json["outcomes"]["rejected"]), (&json!(2), &json!(1)), "{response:?}");
    assert_eq!((&json["rejections"][0]["line"], &json["rejections"][0]["outcome"]), (&json!(2), &json!("rejected")));
    assert!(json["rejections"][0]["reason"].as_str().unwrap().contains("CHECK"), "{response:?}");
    // A line that is no row comes behind the row: the line of the outcome is still that of the row.
    let mixed = post(at, "orders/rows?wait=written", &[NDJSON], "{\"id\":9,\"note\":\"bad\"}\nnonsense\n").json();
    let found: Vec<_> =
        mixed["rejections"].as_array().unwrap().iter().map(|one| (&one["line"], &one["outcome"])).collect();
    assert!(
        found.contains(&(&json!(1), &json!("rejected"))) && found.contains(&(&json!(2), &json!("refused"))),
        "{mixed}"
    );
    let again = post(at, "orders/rows?wait=written", &[NDJSON], "{\"id\":1,\"note\":\"a\"}\n");
    assert_eq!(again.json()["outcomes"]["ignored"], 1, "{again:?}");
    let (code, log) = program.stop();
    assert_eq!(code, 1, "a row was not written: {log}");
    let letters = std::fs::read_to_string(place.path("letters.ndjson")).unwrap();
    assert_eq!(letters.lines().count(), 2, "{letters}");
}

#[test]
fn tokens_are_for_tables() {
    let place = place();
    place.sql("CREATE TABLE events (id INTEGER)");
    let tokens = "[[http.tokens]]\nname = \"shop\"\ntoken = \"${SHOP_TOKEN}\"\ntables = [\"orders\"]\n[[http.tokens]]\nname = \
                  \"all\"\ntoken_file = \"all.token\"\n[[tables]]\nname = \"events\"\n";
    place.write("all.token", "everything\n");
    place.write("b.toml", config(&place, tokens));
    let mut command = place.command(&["run", "b.toml"]);
    command.env("SHOP_TOKEN", "s3cret");
    let program = Running::start(command);
    let at = program.address();
    let check = |token: Option<&str>, table: &str, status: u16| {
        let mut headers = vec![NDJSON];
        headers.extend(token.map(|token| ("Authorization", token)));
        let body = if table == "orders" { "{\"id\":1,\"note\":\"a\"}\n" } else { "{\"id\":1}\n" };
        let response = post(at, &format!("{table}/rows"), &headers, body);
        assert_eq!(response.status, status, "{token:?} {table}: {response:?}");
        assert_eq!(response.header("www-authenticate").is_some(), status == 401);
        if status == 200 {
            assert_eq!(response.number("accepted"), 1, "{response:?}");
        }
    };
    check(Some("Bearer s3cret"), "orders", 200);
    check(Some("Bearer s3cret"), "events", 403);
    check(Some("Bearer everything"), "events", 200);
    check(Some("Bearer wrong"), "orders", 401);
    check(None, "orders", 401);
    check(None, "no_such_table", 401);
    check(Some("Bearer everything"), "no_such_table", 404);
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("s3cret") && !log.contains("everything"), "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
    assert_eq!(place.number("SELECT count(*) FROM events"), 1);
}

#[test]
fn a_repeat_with_its_key_skips_what_was_accepted() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER, note TEXT NOT NULL)");
    let config = config(&place, "").replace("rule = \"ignore\"\n", "");
    let program = place.start(&config);
    let at = program.address();
    let send = |key: &str, body: &str| post(at, "orders/rows", &[NDJSON, ("Idempotency-Key", key)], body);
    let first = send("k1", &lines(0..100));
    assert_eq!(first.number("accepted"), 100);
    let repeat = send("k1", &lines(0..100));
    assert_eq!((repeat.status, &repeat.body), (200, &first.body));
    assert_eq!(repeat.header("idempotency-replayed"), Some("true"));
    let other = send("k1", &lines(1..101));
    assert_eq!(other.status, 422, "{other:?}");
    assert!(other.json().get("next_line").is_none(), "its lines are those of another body: {other:?}");
    assert_eq!(send("k1", &lines(1..101)).status, 422, "a refused body does not take the key over");
    for (body, what) in [(lines(0..101), "longer"), (lines(0..99), "shorter"), (String::new(), "empty")] {
        assert_eq!(send("k1", &body).status, 422, "a {what} body is another one");
    }
    // A repeat that stops before it has come as far as the first request changes nothing.
    let packed = gzip(lines(0..50).as_bytes());
    let headers = [NDJSON, ("Idempotency-Key", "k1"), ("Content-Encoding", "gzip")];
    let torn = post(at, "orders/rows", &headers, &packed[..packed.len() - 4]);
    assert_eq!(torn.status, 400, "{torn:?}");
    let repeat = send("k1", &lines(0..100));
    assert_eq!((repeat.status, &repeat.body), (200, &first.body));
    // A request that broke off goes on where it was.
    let body = lines(100..300);
    let half = body.find("{\"id\":200").unwrap();
    let mut stream =
        begin(at, "POST", "/v1/tables/orders/rows", &[NDJSON, ("Idempotency-Key", "k2")], Some(body.len()));
    stream.write_all(&body.as_bytes()[..half]).unwrap();
    let metrics = || crate::client::send(at, "GET", "/metrics", &[], b"").body;
    until(|| metrics().contains("batchsql_records_received_total{database=\"sqlite\",table=\"orders\"} 200"), metrics);
    assert_eq!(send("k2", &body).status, 409, "it is being answered");
    drop(stream);
    let rest = loop {
        let rest = send("k2", &body);
        if rest.status != 409 {
            break rest;
        }
    };
    assert_eq!((rest.status, rest.number("accepted")), (200, 200), "{rest:?}");
    // Outcomes that the first request has waited for are those of the repeat.
    let key = [NDJSON, ("Idempotency-Key", "k3")];
    let [first, repeat] = [(); 2].map(|()| post(at, "orders/rows?wait=written", &key, lines(300..310)));
    assert_eq!(first.json()["outcomes"]["written"], 10, "{first:?}");
    assert_eq!((repeat.header("idempotency-replayed"), &repeat.body), (Some("true"), &first.body));
    assert_eq!(program.stop().0, 0);
    assert_eq!(
        place.number("SELECT count(*) FROM orders"),
        310,
        "a table without a key shows every row that is doubled"
    );
}

/// Every status of the description is given by a request, and every path of it answers.
#[test]
fn the_description_is_what_the_server_does() {
    let place = place();
    let program = place.start(&config(&place, "limits = { line = \"100B\", body = \"1MiB\" }\n"));
    let at = program.address();
    let document = send(at, "GET", "/v1/openapi.json", &[], b"").json();
    let mut expected = described::DOCUMENT.clone();
    expected["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    assert_eq!(document, expected, "answers of all tests are compared with this one");
    let answer = "/paths/~1v1~1tables~1{table}~1rows/post/responses/200/headers/Idempotency-Replayed";
    assert!(document.pointer(answer).is_some(), "a repeat has this header");
    let stopped = "/components/schemas/Stopped/allOf/1/properties/outcomes";
    assert!(document.pointer(stopped).is_some(), "with wait=written an error has outcomes too");
    let statuses: BTreeSet<u16> = document["paths"]["/v1/tables/{table}/rows"]["post"]["responses"]
        .as_object()
        .unwrap()
        .keys()
        .map(|status| status.parse().unwrap())
        .collect();
    let mut seen = BTreeSet::new();
    let mut check = |response: Response, status: u16, part: &str| {
        assert_eq!(response.status, status, "{response:?}");
        assert!(response.body.contains(part), "{part:?} is not in {response:?}");
        described::check(&response);
        seen.insert(status);
    };
    let row = "{\"id\":1,\"note\":\"a\"}\n";
    check(post(at, "orders/rows", &[NDJSON], row), 200, "accepted");
    check(post(at, "orders/rows?wait=never", &[NDJSON], row), 400, "accepted, logged or written");
    check(post(at, "orders/rows?wiat=written", &[NDJSON], row), 400, "`wiat` is not known");
    check(post(at, "orders/rows?wait=logged", &[NDJSON], row), 400, "needs a durable intake");
    check(post(at, "orders/rows", &[JSON], "[1]"), 200, "\"refused\":1");
    check(
        post(at, "orders/rows", &[JSON], "[{\"id\":8,\"note\":\"a\"} 1]"),
        400,
        "correct the body, then send the rest of it",
    );
    check(post(at, "orders/rows", &[JSON], "[{\"id\":7,\"note\":\"a\"},"), 400, "\"next_line\":2");
    check(post(at, "orders/rows", &[NDJSON, ("Content-Encoding", "gzip")], row), 400, "not gzip");
    check(post(at, "ordes/rows", &[NDJSON], row), 404, "did you mean `orders`?");
    check(send(at, "GET", "/v1/tables/orders/rows", &[], b""), 405, "POST");
    check(
        post(at, "orders/rows", &[NDJSON], format!("{row}{}", "x".repeat(200))),
        413,
        "line 2 is above the limit of 100 bytes (http.limits.line); leave it out or raise the limit",
    );
    check(post(at, "orders/rows", &[NDJSON], "x\n".repeat(1 << 20)), 413, "http.limits.body");
    check(post(at, "orders/rows", &[("Content-Type", "text/csv")], row), 415, "`text/csv` is not known");
    check(post(at, "orders/rows", &[], row), 415, "application/x-ndjson");
    check(post(at, "orders/rows", &[NDJSON, ("Content-Encoding", "br")], row), 415, "`br` is not known");
    assert_eq!(send(at, "GET", "/nowhere", &[], b"").status, 404);
    // The others need a state of the server, and have tests of their own, whose answers are compared in the same way: tokens, slow
    // clients, keys, a full buffer, the end.
    seen.extend([401, 403, 408, 409, 422, 429, 503]);
    assert_eq!(seen, statuses);
    // What is served beside the rows.
    let page = send(at, "GET", "/v1/docs", &[], b"");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{page:?}");
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; style-src 'sha256-"));
    for status in &statuses {
        assert!(page.body.contains(&format!("id=\"postRows-{status}\"")), "{status}");
    }
    for (path, part) in [("/health", "ok"), ("/ready", "ready"), ("/metrics", "batchsql_build_info"), ("/", "<html")] {
        let response = send(at, "GET", path, &[("Accept", "text/html")], b"");
        assert!(response.status == 200 && response.body.contains(part), "{path}: {response:?}");
    }
    program.stop();
}

#[test]
fn a_durable_row_is_written_after_a_kill() {
    let place = Place::new();
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n";
    place.sql(TABLE);
    let config = config(&place, durable);
    // The table is locked, so nothing can be written.
    let db = place.sql("");
    let program = place.start(&config);
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let at = program.address();
    let response = post(at, "orders/rows?wait=logged", &[NDJSON], lines(0..500));
    assert_eq!((response.status, response.number("accepted")), (200, 500), "{response:?}");
    let refused = post(at, "orders/rows?wait=written", &[NDJSON], lines(0..1));
    assert!(refused.status == 400 && refused.error().contains("use wait=logged"), "{refused:?}");
    program.kill();
    db.execute_batch("ROLLBACK").unwrap();
    assert_eq!(place.number("SELECT count(*) FROM orders"), 0);
    let program = place.start(&config);
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders"), 500);
}

/// What a client or an editor adds, and what nobody would notice.
#[test]
fn marks_charsets_and_parameters_are_taken_or_refused() {
    let place = place();
    let program = place.start(&config(&place, ""));
    let at = program.address();
    for (content, body) in
        [(NDJSON, "\u{feff}{\"id\":1,\"note\":\"a\"}\n"), (JSON, "\u{feff}[{\"id\":2,\"note\":\"b\"}]")]
    {
        let taken = post(at, "orders/rows?wait=written", &[content], body);
        assert_eq!((taken.status, taken.number("accepted")), (200, 1), "{taken:?}");
    }
    let half = post(at, "orders/rows", &[NDJSON], "{\"id\":3,\"note\":\"\\ud800\"}");
    assert_eq!(half.number("refused"), 1, "{half:?}");
    assert!(half.body.contains("half a surrogate pair"), "{half:?}");
    let row = "{\"id\":4,\"note\":\"d\"}";
    let name = post(at, "%ff/rows", &[NDJSON], row);
    assert!(name.status == 400 && name.error().contains("not UTF-8"), "{name:?}");
    let twice = post(at, "orders/rows?wait=written&wait=accepted", &[NDJSON], row);
    assert!(twice.status == 400 && twice.error().contains("twice"), "{twice:?}");
    for (charset, status) in [("utf-16", 415), ("\"iso-8859-1\"", 415), ("UTF-8", 200), ("\"utf-8\"", 200)] {
        let content = format!("application/x-ndjson; charset={charset}");
        let answer = post(at, "orders/rows", &[("Content-Type", &*content)], row);
        assert_eq!(answer.status, status, "{charset}: {answer:?}");
    }
    assert_eq!(program.stop().0, 0);
}
