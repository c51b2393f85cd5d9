//! Owns the measurement of scaling: throughput over the number of producers, tables and rows, with a sink that does
//! nothing and, if wanted, with a server. Must not know how its figures are shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use batchsql::{BatchSql, DynRow, PipelineConfig, Row, RowError, RowWriter, Schema, Sink, TypedRow};
use batchsql_testkit::NullSink;
use serde::Serialize;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::busy_producer::{Busy, busy_producer};
use super::figures::median;
use super::mysql::MySql;
use super::postgres::Postgres;
use super::server::Server;
use super::workload::{PRODUCERS, Workload};
use crate::database::DatabaseName;
use crate::rows::{Event, Texts};
use crate::tell::tell;

/// Capacity of the buffer per table in rows, if above the default.
const BUFFER_PER_TABLE: usize = 1_000;
/// Byte budget per row of the buffer, if above the default.
const BYTES_PER_ROW: usize = 512;
/// Minimum number of rows that are built before the clock starts and submitted repeatedly.
const PREPARED: usize = 1_000;
/// Short runs are repeated up to this number of rows and count as one measurement.
const ROWS_OF_A_MEASUREMENT: usize = 200_000;

/// The plan of a run.
#[derive(Debug, Clone)]
pub struct ScalePlan {
    /// Interleaved rounds; results are medians.
    pub rounds: usize,
    /// Rows of one measurement over producers or tables, with the sink that does nothing.
    pub rows: usize,
    /// The same with a server.
    pub server_rows: usize,
    /// Fewer and smaller steps.
    pub quick: bool,
    /// Duration of the measurement with the busy producer.
    pub busy_for: Duration,
    /// After this time no new measurement starts.
    pub until: Option<Instant>,
}

impl ScalePlan {
    fn has_time(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// Every figure of a run.
#[derive(Debug, Serialize)]
pub struct Scale {
    pub(super) rounds: usize,
    pub(super) results: Vec<Curve>,
    pub(super) busy_producer: Busy,
    /// Measurements that were skipped for lack of time.
    pub(super) left_out: Vec<String>,
}

/// Throughput along one axis.
#[derive(Debug, Serialize)]
pub(super) struct Curve {
    pub(super) sink: &'static str,
    pub(super) kind: Kind,
    pub(super) axis: Axis,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, Serialize)]
pub(super) struct Point {
    pub(super) value: usize,
    pub(super) rows_per_s: f64,
    pub(super) range: (f64, f64),
    /// Ratio to the point of the axis with the highest median.
    pub(super) ratio: f64,
}

/// The quantity that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Axis {
    Producers,
    Tables,
    Rows,
}

impl Axis {
    pub(super) const ALL: [Self; 3] = [Self::Producers, Self::Tables, Self::Rows];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Producers => "producers",
            Self::Tables => "tables",
            Self::Rows => "rows",
        }
    }

    fn steps(self, plan: &ScalePlan, is_server: bool) -> Vec<usize> {
        let all: &[usize] = match self {
            Self::Producers | Self::Tables => &[1, 10, 100, 1_000],
            Self::Rows => &[10_000, 100_000, 1_000_000, 10_000_000],
        };
        let most = match (self, plan.quick, is_server) {
            (Self::Producers, ..) | (Self::Tables, _, false) | (Self::Tables, false, true) => 1_000,
            (Self::Tables, true, true) => 100,
            (Self::Rows, false, false) => 10_000_000,
            (Self::Rows, true, false) | (Self::Rows, false, true) => 1_000_000,
            (Self::Rows, true, true) => 100_000,
        };
        all.iter().copied().filter(|step| *step <= most).collect()
    }
}

/// The kind of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A Rust type.
    Typed,
    /// Built at run time, before the clock starts.
    Dynamic,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Typed => "typed",
            Self::Dynamic => "dynamic",
        }
    }
}

/// The position of a run on each axis.
#[derive(Debug, Clone, Copy)]
struct Shape {
    producers: usize,
    tables: usize,
    rows: usize,
}

impl Shape {
    fn at(axis: Axis, value: usize, rows: usize) -> Self {
        let shape = Self { producers: PRODUCERS, tables: 1, rows };
        match axis {
            Axis::Producers => Self { producers: value, ..shape },
            Axis::Tables => Self { tables: value, ..shape },
            Axis::Rows => Self { rows: value, ..shape },
        }
    }

    fn config(self) -> PipelineConfig {
        let default = PipelineConfig::default();
        let buffer_size = default.buffer_size.max(BUFFER_PER_TABLE * self.tables);
        let buffer_bytes =
            if self.tables == 1 { default.buffer_bytes } else { default.buffer_bytes.max(buffer_size * BYTES_PER_ROW) };
        default.buffer_size(buffer_size).buffer_bytes(buffer_bytes)
    }
}

/// Measures the pipeline alone along every axis, then with each server, then with a busy producer.
///
/// # Errors
/// A server fails, or the pipeline rejects a row, which is a defect.
pub async fn scale(plan: &ScalePlan, databases: &[(DatabaseName, &str)]) -> Result<Scale> {
    let mut scale =
        Scale { rounds: plan.rounds, results: Vec::new(), busy_producer: Busy::default(), left_out: Vec::new() };
    tell("a producer that never awaits");
    scale.busy_producer = busy_producer(plan.rounds, plan.busy_for).await?;
    for axis in Axis::ALL {
        scale.along(plan, axis, "null", &[Kind::Typed, Kind::Dynamic], &mut NoServer).await?;
    }
    for (name, dsn) in databases {
        for axis in Axis::ALL {
            match name {
                DatabaseName::Postgres => scale.with_server::<Postgres>(plan, axis, dsn).await?,
                DatabaseName::Mysql => scale.with_server::<MySql>(plan, axis, dsn).await?,
                DatabaseName::Sqlite | DatabaseName::Redis => {
                    bail!("scaling is not measured with {}; use --db postgres,mysql, or omit --db", name.name())
                }
            }
        }
    }
    Ok(scale)
}

impl Scale {
    async fn with_server<S: Server>(&mut self, plan: &ScalePlan, axis: Axis, dsn: &str) -> Result<()> {
        let server = S::connect(dsn, 1).await?;
        let mut tables = Tables { sink: S::sink(dsn).await?, server, made: 0, written: 0 };
        let measured = self.along(plan, axis, S::NAME.name(), &[Kind::Typed], &mut tables).await;
        tables.remove().await?;
        measured
    }

    async fn along<T: Target>(
        &mut self,
        plan: &ScalePlan,
        axis: Axis,
        sink: &'static str,
        kinds: &[Kind],
        target: &mut T,
    ) -> Result<()> {
        let steps = axis.steps(plan, T::IS_SERVER);
        let rows = if T::IS_SERVER { plan.server_rows } else { plan.rows };
        let mut rates = vec![vec![Vec::new(); steps.len()]; kinds.len()];
        for round in 0..plan.rounds {
            for turn in 0..steps.len() {
                // The order changes from round to round.
                let place = (turn + round) % steps.len();
                let shape = Shape::at(axis, steps[place], rows);
                for (kind, rates) in kinds.iter().zip(&mut rates) {
                    let what = format!("{sink}, {} rows, {} {}", kind.name(), steps[place], axis.name());
                    if !plan.has_time() {
                        if rates[place].is_empty() {
                            self.left_out.push(what);
                        }
                        continue;
                    }
                    tell(format!("{what}, round {} of {}", round + 1, plan.rounds));
                    rates[place].push(target.rate(shape, *kind).await?);
                }
            }
        }
        for (kind, rates) in kinds.iter().zip(&rates) {
            self.results.push(Curve { sink, kind: *kind, axis, points: points(&steps, rates) });
        }
        Ok(())
    }
}

/// Summarises the rounds of each measured step.
fn points(steps: &[usize], rates: &[Vec<f64>]) -> Vec<Point> {
    let medians: Vec<f64> = rates.iter().map(|rates| median(rates.clone())).collect();
    let best = medians.iter().copied().fold(0.0, f64::max);
    let measured = steps.iter().zip(rates).zip(medians).filter(|((_, rates), _)| !rates.is_empty());
    let point = |((value, rates), median): ((&usize, &Vec<f64>), f64)| Point {
        value: *value,
        rows_per_s: median,
        range: (rates.iter().copied().fold(f64::MAX, f64::min), rates.iter().copied().fold(0.0, f64::max)),
        ratio: median / best,
    };
    measured.map(point).collect()
}

/// The target of rows.
trait Target {
    const IS_SERVER: bool;

    /// Rows per second of a run.
    async fn rate(&mut self, shape: Shape, kind: Kind) -> Result<f64>;
}

struct NoServer;

impl Target for NoServer {
    const IS_SERVER: bool = false;

    async fn rate(&mut self, shape: Shape, kind: Kind) -> Result<f64> {
        // The same number for each table.
        let prepared = Prepared::new(shape.tables, PREPARED.max(shape.tables), kind, 0)?;
        let repeats = ROWS_OF_A_MEASUREMENT.div_ceil(shape.rows).max(1);
        let mut took = Duration::ZERO;
        for _ in 0..repeats {
            took += run(NullSink, shape, kind, &prepared).await?;
        }
        Ok((shape.rows * repeats) as f64 / took.as_secs_f64())
    }
}

/// A server whose tables stay between runs: each run has keys of its own.
struct Tables<S: Server> {
    server: S,
    sink: S::Sink,
    made: usize,
    written: usize,
}

fn table(number: usize) -> String {
    format!("batchsql_suite_events_{number}")
}

impl<S: Server> Tables<S> {
    async fn make(&mut self, tables: usize) -> Result<()> {
        let create = S::create(Workload::Insert);
        for number in self.made..tables {
            let name = table(number);
            self.server.execute(&format!("DROP TABLE IF EXISTS {name}")).await?;
            self.server.execute(&create.replace(Workload::Insert.table(), &name)).await?;
            self.made = number + 1;
        }
        self.server.settle().await
    }

    async fn remove(&mut self) -> Result<()> {
        for number in 0..self.made {
            self.server.execute(&format!("DROP TABLE IF EXISTS {}", table(number))).await?;
        }
        Ok(())
    }
}

impl<S: Server> Target for Tables<S> {
    const IS_SERVER: bool = true;

    async fn rate(&mut self, shape: Shape, kind: Kind) -> Result<f64> {
        self.make(shape.tables).await?;
        let prepared = Prepared::new(shape.tables, shape.rows, kind, self.written)?;
        self.written += shape.rows;
        let took = run(self.sink.clone(), shape, kind, &prepared).await?;
        Ok(shape.rows as f64 / took.as_secs_f64())
    }
}

/// Rows that are built before the clock starts; they cycle through the tables.
struct Prepared {
    schemas: Vec<Schema>,
    texts: Vec<Texts>,
    dynamic: Vec<DynRow>,
    first: usize,
}

impl Prepared {
    fn new(tables: usize, rows: usize, kind: Kind, first: usize) -> Result<Arc<Self>> {
        let columns = Event::type_schema().columns();
        let schema = |number| {
            let builder = Schema::builder(table(number));
            columns.iter().fold(builder, |builder, column| builder.column(column.name(), column.column_type())).build()
        };
        let schemas: Vec<Schema> = (0..tables).map(schema).collect::<Result<_, _>>()?;
        let make = |n: usize| {
            let mut texts = Texts::default();
            texts.event((first + n) as i64, 0);
            texts
        };
        let mut prepared = Self { schemas, texts: (0..rows).map(make).collect(), dynamic: Vec::new(), first };
        if kind == Kind::Dynamic {
            let dynamic = |n| {
                let row = prepared.typed(n);
                let values = row.event.values().map(|value| value.to_value());
                row.schema.row().set_all(values)?.finish()
            };
            prepared.dynamic = (0..rows).map(dynamic).collect::<Result<_, _>>()?;
        }
        Ok(Arc::new(prepared))
    }

    fn typed(&self, n: usize) -> EventOf<'_> {
        let event = self.texts[n].again((self.first + n) as i64);
        EventOf { schema: &self.schemas[n % self.schemas.len()], event }
    }
}

/// An event of one of many tables.
struct EventOf<'a> {
    schema: &'a Schema,
    event: Event<'a>,
}

impl Row for EventOf<'_> {
    fn schema(&self) -> &Schema {
        self.schema
    }

    fn variable_len(&self) -> usize {
        self.event.variable_len()
    }

    fn key_hash(&self) -> u64 {
        self.event.key_hash()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.event.write(writer)
    }
}

/// Returns the time from the first submit to the end of close.
async fn run<S: Sink>(sink: S, shape: Shape, kind: Kind, prepared: &Arc<Prepared>) -> Result<Duration> {
    let db = BatchSql::builder(sink).config(shape.config()).start()?;
    // For a new table the sink queries the database, which is not part of the measurement.
    for schema in &prepared.schemas {
        db.prepare(schema).await?;
    }
    let ready = Arc::new(Barrier::new(shape.producers + 1));
    let mut producers = JoinSet::new();
    for producer in 0..shape.producers {
        let (db, prepared, ready) = (db.clone(), Arc::clone(prepared), Arc::clone(&ready));
        producers.spawn(async move {
            ready.wait().await;
            let length = prepared.texts.len();
            for n in (producer..shape.rows).step_by(shape.producers) {
                match kind {
                    Kind::Typed => db.submit(&prepared.typed(n % length)).await?,
                    Kind::Dynamic => db.submit(&prepared.dynamic[n % length]).await?,
                }
            }
            anyhow::Ok(())
        });
    }
    ready.wait().await;
    let begin = Instant::now();
    while let Some(produced) = producers.join_next().await {
        produced??;
    }
    let report = db.close(Duration::from_secs(120)).await;
    let took = begin.elapsed();
    anyhow::ensure!(report.balance.written() == shape.rows as u64, "rows were not written: {}", report.balance);
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ScalePlan {
        ScalePlan {
            rounds: 1,
            rows: 2_000,
            server_rows: 0,
            quick: true,
            busy_for: Duration::from_millis(50),
            until: None,
        }
    }

    #[test]
    fn ratios_are_to_the_best_step() {
        let points = points(&[1, 10, 100], &[vec![5.0, 4.0, 6.0], vec![10.0], Vec::new()]);
        let found: Vec<_> = points.iter().map(|point| (point.value, point.rows_per_s, point.ratio)).collect();
        assert_eq!(found, [(1, 5.0, 0.5), (10, 10.0, 1.0)]);
        assert_eq!(points[0].range, (4.0, 6.0));
    }

    #[test]
    fn the_buffer_grows_with_the_tables() {
        let config = Shape::at(Axis::Tables, 1_000, 1).config();
        assert_eq!(config.buffer_size, 1_000_000);
        config.validate().unwrap();
        assert_eq!(Shape::at(Axis::Producers, 1_000, 1).config(), PipelineConfig::default());
    }

    #[tokio::test]
    async fn every_row_of_every_table_is_written() {
        for kind in [Kind::Typed, Kind::Dynamic] {
            assert!(NoServer.rate(Shape { producers: 3, tables: 7, rows: 1_001 }, kind).await.unwrap() > 0.0);
        }
    }

    #[tokio::test]
    async fn what_there_is_no_time_for_is_named() {
        let mut scale = Scale { rounds: 1, results: Vec::new(), busy_producer: Busy::default(), left_out: Vec::new() };
        let plan = ScalePlan { until: Some(Instant::now()), ..plan() };
        scale.along(&plan, Axis::Producers, "null", &[Kind::Typed], &mut NoServer).await.unwrap();
        assert_eq!(scale.left_out.len(), 4);
        assert!(scale.results[0].points.is_empty());
    }
}
