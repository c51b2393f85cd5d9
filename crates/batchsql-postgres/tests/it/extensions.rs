//! Types of the extensions `cube` and `seg`, which come with PostgreSQL. A server without them says so, and nothing is tested.

use batchsql_core::{ColumnType, Schema};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_testserver::{Kind, dsn};

use crate::support::{execute, fresh_dsn, read, sink_of, values, with_parameter, write};

async fn has(extension: &str) -> bool {
    let mut conn = PgConnection::connect(&dsn(Kind::Postgres)).await.unwrap();
    let made = conn.execute(&*format!("CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA public")).await;
    conn.close().await.unwrap();
    if let Err(error) = &made {
        eprintln!("this server has no extension {extension} ({error}); nothing was tested");
    }
    made.is_ok()
}

/// A text, its outcome with `lossy_values=refuse` and `lossy_values=convert`, and what is stored.
type Case = (&'static str, &'static str, &'static str, &'static str);

const CUBES: [Case; 9] = [
    ("(1, 0.1),(3,-4e-3)", "written", "written", "(1, 0.1),(3, -0.004)"),
    ("0.30000000000000004", "written", "written", "(0.30000000000000004)"),
    ("[(1,2),(1,2)]", "written", "written", "(1, 2)"),
    ("(nan,-Infinity)", "written", "written", "(NaN, -Infinity)"),
    ("(0.12345678901234567890,1)", "rejected", "written", "(0.12345678901234568, 1)"),
    ("9007199254740993", "rejected", "written", "(9.007199254740992e+15)"),
    ("(1,1e400)", "rejected", "rejected", ""),
    ("(1,2),(3)", "rejected", "rejected", ""),
    ("x", "rejected", "rejected", ""),
];

const SEGMENTS: [Case; 14] = [
    ("1.5", "written", "written", "1.5"),
    ("1.50 .. 2", "written", "written", "1.50 .. 2"),
    ("~1 .. <2.5", "written", "written", "~1 .. <2.5"),
    ("0.1 ...0.2", "written", "written", "0.1 .. 0.2"),
    ("-3e10 ..", "written", "written", "-3e+10 .."),
    ("123456", "written", "written", "1.23456e+05"),
    ("0.00123456", "written", "written", "0.00123456"),
    ("1.23456789", "rejected", "written", "1.23457"),
    ("16777217", "rejected", "written", "1.67772e+07"),
    ("1 .. 2.0000001", "rejected", "written", "1 .. 2.00000"),
    ("5(+-)1", "rejected", "written", "4 .. 6"),
    ("1.03(+-)0.007", "rejected", "written", "1.023 .. 1.037"),
    ("1e39", "rejected", "rejected", ""),
    ("one", "rejected", "rejected", ""),
];

async fn check(ty: &str, cases: &[Case]) {
    if !has(ty).await {
        return;
    }
    // Elements and attributes are quoted: their texts have commas.
    let shapes = [
        (format!("public.{ty}"), "V", "v::text"),
        (format!("public.{ty}[]"), "{\"V\",NULL}", "v[1]::text"),
        ("part".to_owned(), "(1,\"V\")", "(v).b::text"),
    ];
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("v", ColumnType::Text).build().unwrap();
    for (column, text, shown) in shapes {
        let sql = format!("CREATE TYPE part AS (a int, b public.{ty}); CREATE TABLE t (id bigint, v {column})");
        let dsn = fresh_dsn(&sql).await;
        let rows =
            || (0_i64..).zip(cases).map(|(id, case)| values(&schema, [id.into(), text.replace('V', case.0).into()]));
        for (parameter, outcome) in [("lossy_values=refuse", 1), ("lossy_values=convert", 2)] {
            let sink = sink_of(&with_parameter(&dsn, parameter)).await;
            let expected = |case: &Case| if outcome == 1 { case.1 } else { case.2 };
            let outcomes = write(&sink, rows()).await;
            assert_eq!(outcomes, cases.iter().map(expected).collect::<Vec<_>>(), "{column} {parameter}");
            let stored: Vec<&str> =
                cases.iter().filter(|case| expected(case) == "written").map(|case| case.3).collect();
            assert_eq!(
                read(&sink, &format!("SELECT {shown} FROM t ORDER BY id")).await,
                stored,
                "{column} {parameter}"
            );
            execute(sink.pg_pool(), "TRUNCATE t").await;
        }
    }
}

#[tokio::test]
async fn a_cube_whose_numbers_would_be_rounded_is_rejected_alone() {
    check("cube", &CUBES).await;
}

#[tokio::test]
async fn a_segment_whose_bounds_would_be_rounded_is_rejected_alone() {
    check("seg", &SEGMENTS).await;
}
