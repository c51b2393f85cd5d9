//! A sink of one's own: batches become JSON lines of a file. The pipeline does the rest: batches, retries, backpressure,
//! outcomes.
//!
//! ```sh
//! cargo run -p batchsql --example custom_sink -- events.ndjson
//! ```
//!
//! `docs/guides/writing-a-sink.md` explains the contract.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use batchsql::{Attempt, BatchSql, ColumnType, ErrorClass, Row, Rows, Schema, Sink, SinkError, ValueRef, Written};
use serde_json::{Map, Value};

/// Appends rows to a file.
struct JsonLines {
    path: PathBuf,
}

impl Sink for JsonLines {
    type Conn = File;
    /// The names of the columns.
    type Plan = Vec<String>;

    fn name(&self) -> &'static str {
        "json_lines"
    }

    /// One batch at a time, so that lines of two batches do not mix.
    fn max_concurrency(&self) -> Option<usize> {
        Some(1)
    }

    async fn acquire(&self) -> Result<File, SinkError> {
        OpenOptions::new().create(true).append(true).open(&self.path).map_err(not_written)
    }

    /// An error here parks the table: no row of it is lost while somebody repairs it.
    async fn prepare(&self, _: &mut File, schema: &Schema) -> Result<Vec<String>, SinkError> {
        let known = [ColumnType::I64, ColumnType::F64, ColumnType::Bool, ColumnType::Text];
        match schema.columns().iter().find(|column| !known.contains(&column.column_type())) {
            Some(column) => Err(SinkError::new(ErrorClass::Schema, format!("no JSON for column {}", column.name()))),
            None => Ok(schema.columns().iter().map(|column| column.name().to_owned()).collect()),
        }
    }

    /// All rows, or none and an error.
    async fn write(
        &self,
        file: &mut File,
        columns: &Vec<String>,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        attempt.defer();
        let table = rows.schema().table_display();
        let mut lines = Vec::new();
        for row in rows.iter() {
            let fields: Map<String, Value> = columns.iter().cloned().zip(row.values().map(json)).collect();
            writeln!(lines, "{}", serde_json::json!({ "table": table, "row": fields })).map_err(not_written)?;
        }
        // From here on the rows may be in the file, also if the pipeline gives this attempt up.
        if !attempt.begin() {
            return Err(SinkError::new(ErrorClass::Transient, "the batch was given up before it was written"));
        }
        let mut file = file.try_clone().map_err(not_written)?;
        let written = tokio::task::spawn_blocking(move || append(&mut file, &lines)).await;
        written.map_err(|_| SinkError::new(ErrorClass::Unknown, "the thread that writes the file panicked"))?
    }
}

/// Durable when it returns. After an error the file is as it was, or nobody knows.
fn append(file: &mut File, lines: &[u8]) -> Result<Written, SinkError> {
    let before = file.metadata().map_err(not_written)?.len();
    match file.write_all(lines).and_then(|()| file.sync_data()) {
        Ok(()) => Ok(Written::default()),
        Err(error) if file.set_len(before).is_ok() => Err(not_written(error)),
        Err(error) => Err(SinkError::new(ErrorClass::Unknown, error.to_string())),
    }
}

/// Both classes are retried; a full disk takes longer than a short disturbance.
fn not_written(error: io::Error) -> SinkError {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    SinkError::new(if is_full { ErrorClass::Resource } else { ErrorClass::Transient }, error.to_string())
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::I64(number) => number.into(),
        ValueRef::F64(number) => number.into(),
        ValueRef::Bool(is_true) => is_true.into(),
        ValueRef::Text(text) => text.into(),
        // `prepare` accepts no other type.
        _ => Value::Null,
    }
}

#[derive(Row)]
#[row(table = "events")]
struct Event {
    id: i64,
    body: Option<&'static str>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: custom_sink FILE.ndjson")?;
    let db = BatchSql::builder(JsonLines { path: path.into() }).start()?;
    db.submit_all((0..1_000).map(|id| Event { id, body: (id % 2 == 0).then_some("even") })).await?;
    let report = db.close(Duration::from_secs(10)).await;
    println!("{}", report.balance);
    if report.is_complete() { Ok(()) } else { Err("rows were not written".into()) }
}
