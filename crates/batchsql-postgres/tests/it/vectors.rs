//! Lists for the types of pgvector. They need a server that has this extension, which is not a part of PostgreSQL; without
//! it they say so and end. `POSTGRES_DSN` names a server that has it.

use batchsql_core::{ColumnType, DynRow, Json, Schema, Value};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_testserver::{Kind, dsn};

use crate::support::{TestSink, execute, fresh_dsn, read, sink_of, values, with_parameter, write};

/// Whether the server has the type.
async fn has(ty: &str) -> bool {
    let mut conn = PgConnection::connect(&dsn(Kind::Postgres)).await.unwrap();
    // Two tests may create it at the same time.
    let made = conn.execute("CREATE EXTENSION IF NOT EXISTS vector").await.is_ok();
    let found = conn.fetch_optional(&*format!("SELECT 1 FROM pg_type WHERE typname = '{ty}'")).await.unwrap();
    conn.close().await.unwrap();
    if found.is_none() {
        eprintln!("this server has no type {ty} of pgvector (extension created: {made}); nothing was tested");
    }
    found.is_some()
}

fn schema() -> Schema {
    let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("list", ColumnType::Json);
    schema.build().unwrap()
}

fn rows<'a>(schema: &'a Schema, lists: &'a [&str]) -> impl Iterator<Item = DynRow> + 'a {
    let list = |text: &str| if text == "NULL" { Value::Null } else { text.parse::<Json>().unwrap().into() };
    (0_i64..).zip(lists).map(move |(id, text)| values(schema, [id.into(), list(text)]))
}

async fn stored(sink: &TestSink) -> Vec<String> {
    read(sink, "SELECT list::text FROM t ORDER BY id").await
}

#[tokio::test]
async fn lists_become_vectors() {
    for ty in ["vector", "halfvec"] {
        if !has(ty).await {
            continue;
        }
        let sink =
            sink_of(&fresh_dsn(&format!("CREATE TABLE t (id bigint PRIMARY KEY, list public.{ty}(3))")).await).await;
        let schema = schema();
        let lists = ["[1,-0.5,0]", "[ 1.5, 2 , 3e0 ]", "NULL"];
        for count in [lists.len(), 60] {
            execute(sink.pg_pool(), "TRUNCATE t").await;
            let sent: Vec<&str> = lists.iter().copied().cycle().take(count).collect();
            let outcomes = write(&sink, rows(&schema, &sent)).await;
            assert!(outcomes.iter().all(|outcome| *outcome == "written"), "{ty}: {outcomes:?}");
            let expected = ["[1,-0.5,0]", "[1.5,2,3]", "NULL"];
            assert!(stored(&sink).await.iter().eq(expected.iter().cycle().take(count)), "{ty}");
        }
    }
}

#[tokio::test]
async fn a_vector_that_would_change_or_does_not_fit_is_rejected_alone() {
    if !has("vector").await {
        return;
    }
    let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, list public.vector(2))").await;
    let cases = [
        // The nearest float of 0.1 is written so again; 16777217 and a double are not.
        ("[0.1,3.4028235e38]", "written", "written"),
        ("[16777217,1]", "rejected", "written"),
        ("[0.12345678901234,1]", "rejected", "written"),
        ("[1e39,1]", "rejected", "rejected"),
        ("[1,2,3]", "rejected", "rejected"),
        ("[1,null]", "rejected", "rejected"),
        ("[]", "rejected", "rejected"),
        ("{}", "rejected", "rejected"),
        ("[1,1]", "written", "written"),
    ];
    let lists = cases.map(|(list, _, _)| list);
    let exact = sink_of(&dsn).await;
    assert_eq!(write(&exact, rows(&schema(), &lists)).await, cases.map(|(_, outcome, _)| outcome));
    assert_eq!(stored(&exact).await, ["[0.1,3.4028235e+38]", "[1,1]"]);
    execute(exact.pg_pool(), "TRUNCATE t").await;
    let lossy = sink_of(&with_parameter(&dsn, "lossy_values=convert")).await;
    assert_eq!(write(&lossy, rows(&schema(), &lists)).await, cases.map(|(_, _, outcome)| outcome));
}
