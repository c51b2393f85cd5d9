//! Owns the measurement of rows of many shapes: each omits different columns, so each shape has its own schema and statement.
//! Must not know databases.

use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, ColumnType, Conflict, Schema, Sink};

/// Columns that a row may omit.
const COLUMNS: u32 = 10;
const ROUNDS: u32 = 3;

/// The table of [`measure_shapes`], as each SQL database makes it.
pub const SHAPES_TABLE: &str = "CREATE TABLE batchsql_shapes (id bigint PRIMARY KEY, c0 bigint, c1 bigint, c2 bigint, c3 bigint, \
                                c4 bigint, c5 bigint, c6 bigint, c7 bigint, c8 bigint, c9 bigint)";

/// Upserts rows of many shapes three times, each time with a new pipeline, and prints the time of each. The arguments are the
/// number of shapes, 1,024 at most, and of rows: by default 1,024 and 5,000.
///
/// # Errors
/// An argument is no number, or rows are not accepted.
pub async fn measure_shapes<S: Sink + Clone>(
    sink: S,
    mut arguments: impl Iterator<Item = String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let shapes: u32 = arguments.next().map_or(Ok(1 << COLUMNS), |text| text.parse())?;
    let rows: u32 = arguments.next().map_or(Ok(5_000), |text| text.parse())?;
    let builder =
        Schema::builder("batchsql_shapes").column("id", ColumnType::I64).on_conflict(Conflict::update(["id"]));
    let schema = (0..COLUMNS).fold(builder, |builder, n| builder.nullable(format!("c{n}"), ColumnType::I64)).build()?;
    for round in 0..ROUNDS {
        let db = BatchSql::builder(sink.clone()).start()?;
        let begin = Instant::now();
        for row in 0..rows {
            let mut builder = schema.row().set("id", i64::from(row))?;
            for n in (0..COLUMNS).filter(|n| (row % shapes) & (1 << n) != 0) {
                builder = builder.set(&format!("c{n}"), i64::from(row))?;
            }
            db.submit(&builder.finish()?).await?;
        }
        let report = db.close(Duration::from_secs(120)).await;
        println!("round {round}: {rows} rows of {shapes} shapes in {:?}, {}", begin.elapsed(), report.balance);
    }
    Ok(())
}
