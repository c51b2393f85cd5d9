//! Compares the strategies on your server: rows per second by rows per batch, for each kind of conflict rule.
//!
//! ```text
//! POSTGRES_DSN=postgres://user:password@host/database cargo run --release -p batchsql-postgres --example strategies
//! ```
//!
//! It creates a table `batchsql_strategies`, writes it with four connections, and drops it. Strategies alternate and
//! medians are shown, because a machine is never fully idle. `ROUNDS` (default 5), `SIZES` (for example `100,500`),
//! `CASE` (`plain`, `ignore` or `update`) and `STRATEGIES` (for example `unnest,copy`) may be set. With `POSITIONS=1` each
//! connection moves a position with its batches.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use batchsql_core::{
    Attempt, Claim, ColumnType, Conflict, PartitionKey, Position, Schema, SharedRows, Sink, SinkError, Step,
    TimestampTz, Value,
};
use batchsql_postgres::sqlx::Executor;
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};

const CONNECTIONS: usize = 4;
const TABLE: &str = "batchsql_strategies";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dsn = std::env::var("POSTGRES_DSN").map_err(|_| "set POSTGRES_DSN to the server to measure")?;
    let rounds: usize = std::env::var("ROUNDS").map_or(Ok(5), |rounds| rounds.parse())?;
    let sizes = std::env::var("SIZES").unwrap_or_else(|_| "1,10,50,100,200,500,1000,2000,5000,10000".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let with_rule = [Strategy::Unnest, Strategy::MultiValues, Strategy::Staging];
    let cases = [
        ("plain", Conflict::none(), vec![Strategy::Unnest, Strategy::MultiValues, Strategy::Copy]),
        ("ignore", Conflict::ignore(["id"]), with_rule.to_vec()),
        ("update", Conflict::update(["id"]), with_rule.to_vec()),
    ];
    let options: PostgresOptions = dsn.parse()?;
    let admin = PostgresSink::with_options(&options).await?;
    admin.pg_pool().execute(&*format!("DROP TABLE IF EXISTS {TABLE}; {}", create())).await?;
    let only = std::env::var("CASE").ok();
    let chosen = std::env::var("STRATEGIES").ok();
    for (name, conflict, mut strategies) in cases {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let is_chosen = |name: &str| chosen.as_ref().is_none_or(|chosen| chosen.split(',').any(|one| one == name));
        strategies.retain(|strategy| is_chosen(strategy.name()));
        if strategies.is_empty() {
            return Err("none of STRATEGIES can write this case".into());
        }
        print!("{name:>8}");
        strategies.iter().for_each(|strategy| print!(" {:>22}", strategy.name()));
        println!("   (rows/s, ratio to {})", strategies[0].name());
        let schema = schema(conflict)?;
        let mut writers = Vec::new();
        for strategy in &strategies {
            let options = options.clone().strategy(*strategy).max_connections(CONNECTIONS as u32);
            writers.push(Writer::new(PostgresSink::with_options(&options).await?, &schema).await?);
        }
        for size in &sizes {
            let batches = batches(&schema, *size, (*size * 160).clamp(2_000, 80_000)).await?;
            let mut measured = vec![Vec::new(); writers.len()];
            for _ in 0..rounds {
                for (writer, measured) in writers.iter().zip(&mut measured) {
                    admin.pg_pool().execute(&*format!("TRUNCATE {TABLE}")).await?;
                    measured.push(writer.rows_per_second(&batches).await?);
                }
            }
            // From the same round, so that other load on the machine affects both.
            let ratio =
                |measured: &[f64], first: &[f64]| median(measured.iter().zip(first).map(|(a, b)| a / b).collect());
            print!("{size:>8}");
            for of_strategy in &measured {
                print!(" {:>12.0} x{:<8.2}", median(of_strategy.clone()), ratio(of_strategy, &measured[0]));
            }
            println!();
        }
    }
    admin.pg_pool().execute(&*format!("DROP TABLE {TABLE}")).await?;
    Ok(())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn create() -> String {
    format!(
        "CREATE TABLE {TABLE} (id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, payload text NOT NULL,
                               amount double precision NOT NULL, active boolean NOT NULL, created_at timestamptz NOT NULL);
         CREATE INDEX ON {TABLE} (email); CREATE INDEX ON {TABLE} (created_at)"
    )
}

fn schema(conflict: Conflict) -> Result<Schema, Box<dyn Error>> {
    let schema = Schema::builder(TABLE)
        .column("id", ColumnType::I64)
        .column("name", ColumnType::Text)
        .column("email", ColumnType::Text)
        .column("payload", ColumnType::Text)
        .column("amount", ColumnType::F64)
        .column("active", ColumnType::Bool)
        .column("created_at", ColumnType::TimestampTz);
    Ok(schema.on_conflict(conflict).build()?)
}

async fn batches(schema: &Schema, size: usize, rows: usize) -> Result<Vec<SharedRows>, Box<dyn Error>> {
    let mut all = Vec::new();
    for id in 0..rows.next_multiple_of(size) as i64 {
        let at = TimestampTz::from_micros_since_epoch(1_704_067_200_000_000 + id * 1_000_003 % 31_536_000_000_000);
        let payload = format!("événement {id} — 事件 {}", id.wrapping_mul(0x9E37_79B9));
        let row: [Value; 7] = [
            id.into(),
            format!("user {id}").into(),
            format!("user{id}@example.org").into(),
            payload.into(),
            (id as f64 / 8.0).into(),
            (id % 3 == 0).into(),
            at.ok_or("within the year 2024")?.into(),
        ];
        all.push(schema.row().set_all(row)?.finish()?);
    }
    let mut batches = Vec::new();
    for batch in all.chunks(size) {
        batches.push(batchsql_testkit::batch_of(batch.iter().cloned()).await);
    }
    Ok(batches)
}

type Plan = <PostgresSink as Sink>::Plan;

/// A sink with its plan.
#[derive(Clone)]
struct Writer {
    sink: PostgresSink,
    plan: Arc<Plan>,
}

impl Writer {
    async fn new(sink: PostgresSink, schema: &Schema) -> Result<Self, SinkError> {
        let mut conn = sink.acquire().await?;
        let plan = Arc::new(sink.prepare(&mut conn, schema).await?);
        drop(conn);
        Ok(Self { sink, plan })
    }

    /// Writes the batches with every connection at once.
    async fn rows_per_second(&self, batches: &[SharedRows]) -> Result<f64, Box<dyn Error>> {
        let queue = Arc::new(Mutex::new(batches.to_vec()));
        let begin = Instant::now();
        let tasks: Vec<_> = (0..CONNECTIONS as u32)
            .map(|number| tokio::spawn(self.clone().drain(number, Arc::clone(&queue))))
            .collect();
        for task in tasks {
            task.await??;
        }
        let rows: usize = batches.iter().map(|batch| batch.rows().len()).sum();
        Ok(rows as f64 / begin.elapsed().as_secs_f64())
    }

    async fn drain(self, number: u32, queue: Arc<Mutex<Vec<SharedRows>>>) -> Result<(), SinkError> {
        let next = || queue.lock().expect("no holder panics").pop();
        let mut position = match std::env::var_os("POSITIONS") {
            Some(_) => self.claim(number).await?,
            None => None,
        };
        while let Some(batch) = next() {
            let mut conn = self.sink.acquire().await?;
            let attempt = match &mut position {
                None => Attempt::new(false),
                Some(position) => {
                    let step = Step::new(*position, position.sequence + 1);
                    position.sequence = step.to;
                    Attempt::of_step(step)
                }
            };
            self.sink.write(&mut conn, &self.plan, batch.rows(), &attempt).await?;
        }
        Ok(())
    }

    async fn claim(&self, number: u32) -> Result<Option<Position>, SinkError> {
        let key = PartitionKey::new("strategies", "example", TABLE, number);
        let mut conn = self.sink.acquire().await?;
        let claimed = self.sink.claim(&mut conn, &key, &Claim::of("example").or_begin_at(0)).await?;
        Ok(claimed.position())
    }
}
