//! Measures rows of many shapes: each omits different columns, so each shape has its own statement.
//!
//! `MYSQL_DSN=mysql://… cargo run --release -p batchsql-mysql --example shapes -- [shapes] [rows]`

use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::Executor;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let shapes: u32 = arguments.next().map_or(Ok(1_024), |text| text.parse())?;
    let rows: u32 = arguments.next().map_or(Ok(5_000), |text| text.parse())?;
    let sink = MySqlSink::connect(&std::env::var("MYSQL_DSN")?).await?;
    let columns: Vec<String> = (0..10).map(|n| format!("c{n} bigint")).collect();
    sink.mysql_pool().execute("DROP TABLE IF EXISTS shapes").await?;
    let table = format!("CREATE TABLE shapes (id bigint PRIMARY KEY, {})", columns.join(","));
    sink.mysql_pool().execute(&*table).await?;
    let builder = Schema::builder("shapes").column("id", ColumnType::I64).on_conflict(Conflict::update(["id"]));
    let schema = (0..10).fold(builder, |builder, n| builder.nullable(format!("c{n}"), ColumnType::I64)).build()?;
    for round in 0..3 {
        let db = BatchSql::builder(sink.clone()).start()?;
        let begin = Instant::now();
        for row in 0..rows {
            let mut builder = schema.row().set("id", i64::from(row))?;
            for n in (0..10).filter(|n| (row % shapes) & (1 << n) != 0) {
                builder = builder.set(&format!("c{n}"), i64::from(row))?;
            }
            db.submit(&builder.finish()?).await?;
        }
        let report = db.close(Duration::from_secs(120)).await;
        println!("round {round}: {rows} rows of {shapes} shapes in {:?}, {:?}", begin.elapsed(), report.balance);
    }
    sink.mysql_pool().execute("DROP TABLE shapes").await?;
    Ok(())
}
