//! Measures rows of many shapes: each omits different columns, so each shape has its own statement.
//!
//! `POSTGRES_DSN=postgres://… cargo run --release -p batchsql-postgres --example shapes -- [shapes] [rows]`

use batchsql_postgres::PostgresSink;
use batchsql_postgres::sqlx::Executor;
use batchsql_testkit::{SHAPES_TABLE, measure_shapes};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sink = PostgresSink::connect(&std::env::var("POSTGRES_DSN")?).await?;
    sink.pg_pool().execute("DROP TABLE IF EXISTS batchsql_shapes").await?;
    sink.pg_pool().execute(SHAPES_TABLE).await?;
    measure_shapes(sink.clone(), std::env::args().skip(1)).await?;
    sink.pg_pool().execute("DROP TABLE batchsql_shapes").await?;
    Ok(())
}
