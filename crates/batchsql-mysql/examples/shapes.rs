//! Measures rows of many shapes: each omits different columns, so each shape has its own statement.
//!
//! `MYSQL_DSN=mysql://… cargo run --release -p batchsql-mysql --example shapes -- [shapes] [rows]`

use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::Executor;
use batchsql_testkit::{SHAPES_TABLE, measure_shapes};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sink = MySqlSink::connect(&std::env::var("MYSQL_DSN")?).await?;
    sink.mysql_pool().execute("DROP TABLE IF EXISTS batchsql_shapes").await?;
    sink.mysql_pool().execute(SHAPES_TABLE).await?;
    measure_shapes(sink.clone(), std::env::args().skip(1)).await?;
    sink.mysql_pool().execute("DROP TABLE batchsql_shapes").await?;
    Ok(())
}
