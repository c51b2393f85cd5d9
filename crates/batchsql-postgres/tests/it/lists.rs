//! Each type of element x {no element, one, NULL, many, extreme values} x {few rows, many rows}, by UNNEST and by COPY,
//! read back by content.

use batchsql_core::{ColumnType, Conflict, DynRow, Json, Schema, Value};
use batchsql_postgres::Strategy;

use crate::support::{TestSink, execute, fresh_dsn, outcomes, read, values, with_strategy, write};

/// A column type, and lists with their text in the server.
type Case = (&'static str, Vec<(String, String)>);

fn case<const N: usize>(ty: &'static str, lists: [(&str, &str); N]) -> Case {
    let own = lists.map(|(json, text)| (json.to_owned(), text.to_owned()));
    let common = [("[]", "{}"), (" [ ] ", "{}")].map(|(json, text)| (json.to_owned(), text.to_owned()));
    (ty, own.into_iter().chain(common).collect())
}

/// The same element often.
fn many(json: &str, text: &str) -> (String, String) {
    let repeated = |element: &str| vec![element; 1_000].join(",");
    (format!("[{}]", repeated(json)), format!("{{{}}}", repeated(text)))
}

/// Types whose lists COPY writes.
fn copied() -> Vec<Case> {
    let mut cases = vec![
        case("boolean[]", [("[true]", "{t}"), ("[null]", "{NULL}"), ("[true,null,false]", "{t,NULL,f}")]),
        case("smallint[]", [("[1]", "{1}"), ("[-32768,null,32767]", "{-32768,NULL,32767}")]),
        case("integer[]", [("[1]", "{1}"), ("[-2147483648,null,2147483647]", "{-2147483648,NULL,2147483647}")]),
        case(
            "bigint[]",
            [
                ("[1, \"2\"]", "{1,2}"),
                ("[-9223372036854775808,null,9223372036854775807]", "{-9223372036854775808,NULL,9223372036854775807}"),
            ],
        ),
        case(
            "real[]",
            [
                ("[0.1]", "{0.1}"),
                ("[null,-0.0,3.4028235e38,1e-45,16777216]", "{NULL,-0,3.4028235e+38,1e-45,1.6777216e+07}"),
                ("[\"NaN\",\"Infinity\",\"-Infinity\"]", "{NaN,Infinity,-Infinity}"),
            ],
        ),
        case(
            "double precision[]",
            [
                ("[0.1]", "{0.1}"),
                (
                    "[null,-0.0,1.7976931348623157e308,5e-324,0.30000000000000004]",
                    "{NULL,-0,1.7976931348623157e+308,5e-324,0.30000000000000004}",
                ),
                ("[\"NaN\",\"Infinity\",\"-Infinity\"]", "{NaN,Infinity,-Infinity}"),
            ],
        ),
        case(
            "numeric[]",
            [
                ("[1]", "{1}"),
                (
                    "[\"-12345678901234567890.1234567890\",null,0.00,-0.001]",
                    "{-12345678901234567890.1234567890,NULL,0.00,-0.001}",
                ),
            ],
        ),
        case("numeric(6,2)[]", [("[1.5]", "{1.50}"), ("[\"-9999.99\",null,0.01]", "{-9999.99,NULL,0.01}")]),
        case("numeric(3,-2)[]", [("[12300]", "{12300}"), ("[null,-99900]", "{NULL,-99900}")]),
        case(
            "text[]",
            [
                ("[\"a\"]", "{a}"),
                (
                    r#"["",null,"NULL","a,\"b\" {c}\\","ä\n\u00e9😀"]"#,
                    "{\"\",NULL,\"NULL\",\"a,\\\"b\\\" {c}\\\\\",\"ä\né😀\"}",
                ),
            ],
        ),
        case("varchar(3)[]", [("[\"äöü\"]", "{äöü}"), ("[\"ab \",null]", "{\"ab \",NULL}")]),
        case("char(3)[]", [("[\"ab\"]", "{\"ab \"}"), ("[null,\"\"]", "{NULL,\"   \"}")]),
        case("bytea[]", [(r#"["\\x00ff"]"#, r#"{"\\x00ff"}"#), (r#"["\\x",null]"#, r#"{"\\x",NULL}"#)]),
        case(
            "uuid[]",
            [(
                "[\"00000000-0000-0000-0000-00000000000A\",null,\"ffffffff-ffff-ffff-ffff-ffffffffffff\"]",
                "{00000000-0000-0000-0000-00000000000a,NULL,ffffffff-ffff-ffff-ffff-ffffffffffff}",
            )],
        ),
        case(
            "json[]",
            [
                ("[1]", "{1}"),
                (r#"[null,"a", {"b" :[1,2]} ,[],1e3,-0.0]"#, r#"{"null","\"a\"","{\"b\" :[1,2]}",[],1e3,-0.0}"#),
            ],
        ),
        case(
            "jsonb[]",
            [
                ("[1]", "{1}"),
                (r#"[null,"a\"]", {"b" :[1,2]} ,[],1e3]"#, r#"{"null","\"a\\\"]\"","{\"b\": [1, 2]}",[],1000}"#),
            ],
        ),
        case(
            "date[]",
            [
                ("[\"2026-01-31\"]", "{2026-01-31}"),
                ("[\"0001-01-01\",null,\"9999-12-31\",\"infinity\"]", "{0001-01-01,NULL,9999-12-31,infinity}"),
            ],
        ),
        case(
            "time[]",
            [
                ("[\"12:00:00\"]", "{12:00:00}"),
                ("[\"00:00:00\",null,\"23:59:59.999999\"]", "{00:00:00,NULL,23:59:59.999999}"),
            ],
        ),
        case("time(0)[]", [("[\"12:00:01\",\"12:00:00.000\"]", "{12:00:01,12:00:00}")]),
        case(
            "timestamp[]",
            [
                ("[\"2026-01-31 12:00:00.5\"]", "{\"2026-01-31 12:00:00.5\"}"),
                (
                    "[\"0001-01-01T00:00:00\",null,\"9999-12-31 23:59:59.999999\"]",
                    "{\"0001-01-01 00:00:00\",NULL,\"9999-12-31 23:59:59.999999\"}",
                ),
            ],
        ),
        case("timestamp(3)[]", [("[\"2026-01-31 12:00:00.123\"]", "{\"2026-01-31 12:00:00.123\"}")]),
        case(
            "timestamptz[]",
            [
                ("[\"2026-01-31T12:00:00Z\"]", "{\"2026-01-31 12:00:00+00\"}"),
                (
                    "[\"2026-01-31 12:00:00.000001-11:30\",null,\"9999-12-31 23:59:59.999999+00:00\",\"-infinity\"]",
                    "{\"2026-01-31 23:30:00.000001+00\",NULL,\"9999-12-31 23:59:59.999999+00\",-infinity}",
                ),
            ],
        ),
        case("mood[]", [("[\"ok\"]", "{ok}"), ("[null,\"so, so\"]", "{NULL,\"so, so\"}")]),
        case("inet[]", [("[\"10.0.0.1\"]", "{10.0.0.1}"), ("[null,\"::1/0\"]", "{NULL,::1/0}")]),
        case("interval[]", [("[\"1 day 02:00:00\",null]", "{\"1 day 02:00:00\",NULL}")]),
        case("bit(3)[]", [("[\"101\",null]", "{101,NULL}")]),
        case("int4range[]", [("[\"[1,5]\",null,\"empty\"]", "{\"[1,6)\",NULL,empty}")]),
        // A domain of an array is treated as the array.
        case("prices", [("[1.5,null]", "{1.50,NULL}")]),
    ];
    let long = |element: &str| many(element, element.trim_matches('"'));
    for (ty, lists) in &mut cases {
        match *ty {
            "boolean[]" => lists.push(many("true", "t")),
            "integer[]" | "bigint[]" | "real[]" | "numeric[]" => lists.push(long("7")),
            "text[]" => {
                lists.push(long("\"a\""));
                lists.push((format!("[\"{}\"]", "x".repeat(1 << 16)), format!("{{{}}}", "x".repeat(1 << 16))));
            }
            "date[]" => lists.push(long("\"2026-01-31\"")),
            _ => {}
        }
    }
    cases
}

/// Lists that stay JSON: the server parses them.
fn parsed() -> Vec<Case> {
    vec![
        case("xml[]", [("[\"<a/>\",null]", "{<a/>,NULL}")]),
        case("price[]", [("[1.5,null]", "{1.50,NULL}")]),
        case("money[]", [("[1.5]", "{$1.50}")]),
        case("integer[]", [("[1e3]", "{1000}")]),
        case("double precision[]", [("[\"0.5\",\"1e3\"]", "{0.5,1000}")]),
        case("numeric[]", [("[1e3,\"NaN\"]", "{1000,NaN}")]),
        case("text[]", [("[1,true,1.50]", "{1,true,1.50}")]),
        case("date[]", [("[\"infinity\",\"31 Jan 2026\"]", "{infinity,2026-01-31}")]),
        case("timestamptz[]", [("[\"2026-01-31 12:00:00+15:59\"]", "{\"2026-01-30 20:01:00+00\"}")]),
        case("interval(0)[]", [("[\"00:00:01\"]", "{00:00:01}")]),
    ]
}

/// Sinks, one for each strategy, and their tables.
struct Tables {
    sinks: Vec<(Strategy, TestSink)>,
    count: usize,
}

impl Tables {
    async fn new(strategies: &[Strategy]) -> Self {
        let dsn = fresh_dsn(
            "CREATE TYPE mood AS ENUM ('ok', 'so, so'); CREATE DOMAIN price AS numeric(6,2);
             CREATE DOMAIN prices AS numeric(6,2)[]; CREATE TABLE log (query text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO log VALUES (left(current_query(), 4)); RETURN NULL; END$$",
        )
        .await;
        let mut sinks = Vec::new();
        for strategy in strategies {
            sinks.push((*strategy, with_strategy(&dsn, *strategy).await));
        }
        Self { sinks, count: 0 }
    }

    /// A new table with a column of the type. What writes it is in the table `log`.
    async fn add(&mut self, ty: &str) -> String {
        self.count += 1;
        let name = format!("t{}", self.count);
        let sql = format!(
            "CREATE TABLE {name} (id bigint PRIMARY KEY, list {ty});
             CREATE TRIGGER note AFTER INSERT ON {name} FOR EACH STATEMENT EXECUTE FUNCTION note()"
        );
        execute(self.sinks[0].1.pg_pool(), &sql).await;
        name
    }
}

fn schema(table: &str) -> Schema {
    Schema::builder(table).column("id", ColumnType::I64).nullable("list", ColumnType::Json).build().unwrap()
}

fn row(schema: &Schema, (id, json): (i64, &str)) -> DynRow {
    values(schema, [id.into(), json.parse::<Json>().unwrap().into()])
}

/// Writes the lists, and NULL with the key -1.
async fn write_all(sink: &TestSink, table: &str, lists: &[&str]) {
    let schema = schema(table);
    let null = values(&schema, [(-1_i64).into(), Value::Null]);
    let rows = (0_i64..).zip(lists.iter().copied()).map(|list| row(&schema, list)).chain([null]);
    let outcomes = write(sink, rows).await;
    assert!(outcomes.iter().all(|outcome| *outcome == "written"), "{lists:?}: {outcomes:?}");
}

/// Writes few and many rows with each strategy; only `Copy` copies. The lists must be the same as text, and byte for byte.
async fn check(tables: &mut Tables, (ty, lists): &Case) {
    let table = tables.add(ty).await;
    for count in [lists.len(), 40.max(lists.len())] {
        let sent: Vec<&(String, String)> = lists.iter().cycle().take(count).collect();
        let mut bytes = Vec::new();
        for (strategy, sink) in &tables.sinks {
            // With a trigger, texts that are not ASCII are not copied.
            let has_trigger = *strategy != Strategy::Copy || sent.iter().all(|(json, _)| json.is_ascii());
            let state = if has_trigger { "ENABLE" } else { "DISABLE" };
            execute(sink.pg_pool(), &format!("TRUNCATE {table}, log; ALTER TABLE {table} {state} TRIGGER note")).await;
            write_all(sink, &table, &sent.iter().map(|(json, _)| &**json).collect::<Vec<_>>()).await;
            let found = read(sink, &format!("SET timezone = 'UTC'; SELECT list::text FROM {table} ORDER BY id")).await;
            assert_eq!((&*found[0], found.len()), ("NULL", sent.len() + 1), "{ty} {strategy:?}");
            for (found, (json, expected)) in found[1..].iter().zip(&sent) {
                assert!(found == expected, "{ty} {strategy:?}: {json:.100} is {found:.100}, not {expected:.100}");
            }
            let log = read(sink, "SELECT DISTINCT query FROM log").await;
            let is_seen = *strategy == Strategy::Copy && has_trigger;
            assert_eq!(
                (log.is_empty(), log == ["COPY"]),
                (!has_trigger, is_seen),
                "{ty} {strategy:?} {count}: {log:?}"
            );
            bytes.push(read(sink, &format!("SELECT md5(array_send(list)) FROM {table} ORDER BY id")).await);
        }
        assert!(bytes.iter().all(|of_strategy| *of_strategy == bytes[0]), "{ty}");
    }
}

#[tokio::test]
async fn lists_are_the_same_by_unnest_and_by_copy() {
    let mut tables = Tables::new(&[Strategy::Unnest, Strategy::MultiValues, Strategy::Copy]).await;
    for case in copied() {
        check(&mut tables, &case).await;
    }
}

#[tokio::test]
async fn lists_without_a_binary_form_are_parsed_by_the_server() {
    let mut tables = Tables::new(&[Strategy::Auto]).await;
    for case in parsed() {
        check(&mut tables, &case).await;
    }
}

#[tokio::test]
async fn an_element_that_does_not_fit_rejects_its_row_also_with_copy() {
    let cases = [
        ("smallint[]", "[1]", "[70000]", "22003"),
        ("smallint[]", "[1]", "[\"x\"]", "22P02"),
        ("integer[]", "[1]", "[[1]]", "22P02"),
        ("double precision[]", "[1]", "[[1]]", "22P02"),
        ("real[]", "[0.5]", "[16777217]", "22000"),
        ("numeric(6,2)[]", "[1.5]", "[1.005]", "22000"),
        ("varchar(3)[]", "[\"abc\"]", "[\"abc \"]", "22000"),
        ("varchar(3)[]", "[\"abc\"]", "[\"abcd\"]", "22000"),
        ("timestamp(0)[]", "[\"2026-01-31 12:00:00\"]", "[\"2026-01-31 12:00:00.5\"]", "22000"),
        ("timestamp[]", "[\"2026-01-31 12:00:00\"]", "[\"2026-01-31 12:00:00+02\"]", "22000"),
        ("date[]", "[\"2026-01-31\"]", "[\"2026-01-31 12:00\"]", "22000"),
        ("uuid[]", "[null]", "[\"00000000\"]", "22P02"),
        ("mood[]", "[\"ok\"]", "[\"sad\"]", "22P02"),
        ("text[]", "[\"a\"]", r#"["a\u0000"]"#, "22P05"),
        ("bit(3)[]", "[\"101\"]", "[\"1\"]", "22026"),
    ];
    let mut tables = Tables::new(&[Strategy::Unnest, Strategy::Copy]).await;
    for (ty, good, bad, code) in cases {
        let table = tables.add(ty).await;
        for (strategy, sink) in &tables.sinks {
            execute(sink.pg_pool(), &format!("TRUNCATE {table}")).await;
            let schema = schema(&table);
            let rows = (0_i64..).zip([good, bad, good]).map(|list| row(&schema, list));
            let outcomes = outcomes(sink, rows).await;
            let kinds: Vec<&str> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
            assert_eq!(kinds, ["written", "rejected", "written"], "{ty} {bad} {strategy:?}");
            let found = outcomes[1].failure().and_then(|failed| failed.code());
            assert_eq!(found, Some(code), "{ty} {bad} {strategy:?}");
        }
    }
}

/// Only `regclass` has a cast of text that reads less than its input function.
#[tokio::test]
async fn names_of_objects_are_read_as_their_types_read_them() {
    let types = [
        ("regclass", ["-", "1259", "pg_class", "pg_catalog.pg_class"]),
        ("regtype", ["-", "23", "int4", "pg_catalog.int4"]),
        ("regproc", ["-", "1242", "boolin", "pg_catalog.boolin"]),
        ("regnamespace", ["-", "11", "pg_catalog", "pg_catalog"]),
    ];
    let dsn = fresh_dsn("SELECT 1").await;
    for (ty, texts) in types {
        for strategy in [Strategy::Unnest, Strategy::MultiValues, Strategy::Staging] {
            let sink = with_strategy(&dsn, strategy).await;
            let table = format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (id bigint PRIMARY KEY, v {ty}, list {ty}[], text {ty}[])"
            );
            execute(sink.pg_pool(), &table).await;
            let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("v", ColumnType::Text);
            let schema = schema.nullable("list", ColumnType::Json).nullable("text", ColumnType::Text);
            let schema = schema.on_conflict(Conflict::replace(["id"])).build().unwrap();
            let rows = texts.iter().zip(0_i64..).map(|(text, id)| {
                let list: Json = format!("[\"{text}\",null]").parse().unwrap();
                let array = format!("{{{text},NULL}}");
                values(&schema, [id.into(), (*text).into(), list.into(), array.into()])
            });
            let none = values(&schema, [4_i64.into(), Value::Null, Value::Null, Value::Null]);
            assert_eq!(write(&sink, rows.chain([none])).await, ["written"; 5], "{ty} {strategy:?}");
            let sql = "SELECT DISTINCT v::oid::bigint FROM t WHERE v = list[1] AND v = text[1] AND list[2] IS NULL ORDER BY 1";
            let number = texts[1].parse::<i64>().unwrap().to_string();
            assert_eq!(read(&sink, sql).await, ["0", &number], "{ty} {strategy:?}");
            assert_eq!(read(&sink, "SELECT count(*) FROM t WHERE v IS NULL AND list IS NULL").await, ["1"]);
        }
    }
}
