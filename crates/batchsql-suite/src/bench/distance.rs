//! Owns the measurement at a distance: the default settings against the best hand-written loop, and against fixed
//! batches in latency, with servers that are 0 to 50 ms away. Must not know the statements of a database, nor how its
//! figures are shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchsql::PipelineConfig;
use batchsql_testserver::{Conditions, NetworkProxy};
use serde::Serialize;

use super::figures::{Measurement, median};
use super::mysql::MySql;
use super::paced::{Latency, paced};
use super::postgres::Postgres;
use super::server::{self, Server};
use super::target::Target;
use super::workload::{BATCH, PRODUCERS, Shape, Workload, pipeline_with, rate};
use crate::database::DatabaseName;
use crate::rows::Texts;
use crate::tell::tell;

/// Batch sizes of hand-written loops, in rows.
const BATCHES: [usize; 4] = [500, 2_000, 5_000, 20_000];
const CONNECTIONS: [usize; 2] = [4, 16];
/// Loads, as parts of the maximum throughput of fixed batches.
const LOADS: [f64; 3] = [0.01, 0.5, 0.9];
/// Upper limit for the rows of a latency measurement.
const PACED_ROWS: usize = 400_000;

/// The plan of a run.
#[derive(Debug, Clone)]
pub struct DistancePlan {
    /// Interleaved rounds; results are medians.
    pub rounds: usize,
    /// Rows of one measurement of throughput.
    pub rows: usize,
    /// Round-trip times added to the connection.
    pub round_trips: Vec<Duration>,
    /// Duration of one latency measurement.
    pub paced_for: Duration,
    /// Measure latency also for updates, not only for inserts.
    pub latency_of_updates: bool,
    /// After this time no new measurement starts.
    pub until: Option<Instant>,
}

/// Every figure of a run.
#[derive(Debug, Serialize)]
pub struct Distance {
    pub(super) rounds: usize,
    pub(super) rows: usize,
    pub(super) producers: usize,
    /// Capacity of the pipeline's buffer in rows, which is also the limit in flight for hand-written loops.
    pub(super) buffer_size: usize,
    pub(super) results: Vec<Point>,
    /// Measurements that were skipped for lack of time.
    pub(super) left_out: Vec<String>,
}

/// One workload on one database at one distance.
#[derive(Debug, Serialize)]
pub(super) struct Point {
    pub(super) database: &'static str,
    pub(super) workload: &'static str,
    pub(super) rtt_ms: f64,
    /// Measured rounds.
    pub(super) rounds: usize,
    /// The pipeline with its default settings.
    pub(super) rows_per_s: f64,
    pub(super) rows_per_s_range: (f64, f64),
    /// The pipeline with fixed batches.
    pub(super) fixed_rows_per_s: f64,
    /// The hand-written loop with the highest median.
    pub(super) best_hand: f64,
    pub(super) best_hand_loop: String,
    /// The median over the rounds of the pipeline's rate divided by that of this loop.
    pub(super) ratio: f64,
    pub(super) hand: Vec<HandLoop>,
    pub(super) latency: Vec<Load>,
}

/// A hand-written loop.
#[derive(Debug, Serialize)]
pub(super) struct HandLoop {
    pub(super) way: &'static str,
    pub(super) batch: usize,
    pub(super) connections: usize,
    pub(super) rows_per_s: f64,
}

/// Latency at a part of the maximum throughput of fixed batches.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) load: f64,
    pub(super) rows_per_s: f64,
    pub(super) default: Latency,
    pub(super) fixed: Latency,
}

/// The pipeline with a fixed batch size.
///
/// To complete: when `PipelineConfig` has `max_batch_rows`, it is `Some(BATCH)` here.
fn fixed_batches() -> PipelineConfig {
    PipelineConfig::default().flush_size(BATCH).max_batch_rows(BATCH)
}

/// Measures databases, each by its DSN.
///
/// # Errors
/// A server fails, or a DSN does not use TCP.
pub async fn distance(plan: &DistancePlan, databases: &[(DatabaseName, &str)]) -> Result<Distance> {
    let mut distance = Distance {
        rounds: plan.rounds,
        rows: plan.rows,
        producers: PRODUCERS,
        buffer_size: PipelineConfig::default().buffer_size,
        results: Vec::new(),
        left_out: Vec::new(),
    };
    // Checked before any measurement, so that a mistake in the second DSN does not lose the figures of the first.
    let targets: Vec<_> =
        databases.iter().map(|(name, dsn)| Ok((*name, Target::new(*name, dsn)?, *dsn))).collect::<Result<_>>()?;
    for (name, target, dsn) in &targets {
        match name {
            DatabaseName::Mysql => measure::<MySql>(plan, target, dsn, &mut distance).await?,
            _ => measure::<Postgres>(plan, target, dsn, &mut distance).await?,
        }
    }
    Ok(distance)
}

impl DistancePlan {
    fn has_time(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// Hand-written loops with at most as many rows in flight as the buffer of the pipeline holds.
fn shapes(buffer_size: usize) -> Vec<Shape> {
    let all = BATCHES.iter().flat_map(|batch| CONNECTIONS.map(|connections| Shape { batch: *batch, connections }));
    all.filter(|shape| *shape == Shape::PIPELINE || shape.rows_in_flight() <= buffer_size).collect()
}

async fn measure<S: Server>(plan: &DistancePlan, target: &Target, dsn: &str, distance: &mut Distance) -> Result<()> {
    // Statements that are not measured use a direct connection.
    let near = S::connect(dsn, 1).await?;
    for round_trip in &plan.round_trips {
        let proxy = NetworkProxy::start(target.server(), Conditions::default().delay(*round_trip / 2), 0)
            .context("cannot start the proxy")?;
        let dsn = target.at(proxy.address())?;
        let shapes = shapes(distance.buffer_size);
        let connections = shapes.iter().map(|shape| shape.connections).max().unwrap_or(1);
        let far = Far {
            near: &near,
            server: S::connect(&dsn, connections).await?,
            sink: S::sink(&dsn).await?,
            shapes,
            round_trip: *round_trip,
        };
        for (workload, name) in [(Workload::Insert, "insert"), (Workload::UpdateEvents, "update")] {
            if !plan.has_time() {
                distance.left_out.push(far.title(name));
                continue;
            }
            let mut point = far.throughput(plan, workload, name).await?;
            if workload == Workload::Insert || plan.latency_of_updates {
                if plan.has_time() {
                    point.latency = far.latency(plan, workload, name, point.fixed_rows_per_s).await?;
                } else {
                    distance.left_out.push(format!("latency of {}", far.title(name)));
                }
            }
            distance.results.push(point);
        }
    }
    server::clean_up(&near).await
}

/// The contender that writes.
#[derive(Debug, Clone, Copy)]
enum Contender {
    Default,
    Fixed,
    ByHand(Shape),
}

/// A server behind a proxy.
struct Far<'a, S: Server> {
    near: &'a S,
    server: S,
    sink: S::Sink,
    shapes: Vec<Shape>,
    round_trip: Duration,
}

impl<S: Server> Far<'_, S> {
    fn title(&self, workload: &str) -> String {
        format!("{}, {workload}, round trip {} ms", S::NAME.name(), ms(self.round_trip))
    }

    async fn throughput(&self, plan: &DistancePlan, workload: Workload, name: &'static str) -> Result<Point> {
        let by_hand = self.shapes.iter().copied().map(Contender::ByHand);
        let contenders: Vec<_> = [Contender::Default, Contender::Fixed].into_iter().chain(by_hand).collect();
        tell(format!("{}: connect and prepare", self.title(name)));
        for contender in &contenders {
            // Connections, statements and the table's types are prepared before the clock starts.
            server::create_filled(self.near, workload).await?;
            let rows = match contender {
                Contender::ByHand(shape) => shape.rows_in_flight(),
                Contender::Default | Contender::Fixed => 20 * BATCH,
            };
            self.write(*contender, workload, &workload.texts(rows)).await?;
        }
        let texts = workload.texts(plan.rows);
        let mut rates = vec![Vec::new(); contenders.len()];
        for round in 0..plan.rounds {
            if round > 0 && !plan.has_time() {
                break;
            }
            tell(format!("{}: round {} of {}", self.title(name), round + 1, plan.rounds));
            for turn in 0..contenders.len() {
                // The order changes from round to round.
                let place = (turn + round) % contenders.len();
                server::create_filled(self.near, workload).await?;
                let measured = self.write(contenders[place], workload, &texts).await?;
                server::check_filled(self.near, workload, texts.len()).await?;
                rates[place].push(measured.rate);
            }
        }
        Ok(point::<S>(self.round_trip, name, workload, &self.shapes, &rates))
    }

    async fn write(&self, contender: Contender, workload: Workload, texts: &Arc<Vec<Texts>>) -> Result<Measurement> {
        let took = match contender {
            Contender::Default => {
                pipeline_with(PipelineConfig::default(), PRODUCERS, self.sink.clone(), workload, texts).await?
            }
            Contender::Fixed => pipeline_with(fixed_batches(), PRODUCERS, self.sink.clone(), workload, texts).await?,
            Contender::ByHand(shape) => server::by_hand(&self.server, workload, texts, shape).await?,
        };
        Ok(rate(texts.len(), took))
    }

    async fn latency(&self, plan: &DistancePlan, workload: Workload, name: &str, most: f64) -> Result<Vec<Load>> {
        let mut loads = Vec::new();
        for load in LOADS {
            let rows_per_s = most * load;
            let rows = (rows_per_s * plan.paced_for.as_secs_f64()) as usize;
            let texts = workload.texts(rows.clamp(PRODUCERS, PACED_ROWS));
            let (mut default, mut fixed) = (Vec::new(), Vec::new());
            for round in 0..plan.rounds {
                if round > 0 && !plan.has_time() {
                    break;
                }
                let percent = load * 100.0;
                tell(format!(
                    "{}: latency at {percent:.0} %, round {} of {}",
                    self.title(name),
                    round + 1,
                    plan.rounds
                ));
                let mut measured = [(PipelineConfig::default(), &mut default), (fixed_batches(), &mut fixed)];
                // The order changes from round to round.
                measured.rotate_left(round % 2);
                for (config, latencies) in measured {
                    server::create_filled(self.near, workload).await?;
                    let sink = self.sink.clone();
                    latencies.push(paced(config, sink, workload, &texts, rows_per_s, plan.paced_for).await?);
                }
            }
            loads.push(Load { load, rows_per_s, default: Latency::median(&default), fixed: Latency::median(&fixed) });
        }
        Ok(loads)
    }
}

/// Summarises rounds: the rates of the default settings, of fixed batches, and of each hand-written loop.
fn point<S: Server>(
    round_trip: Duration,
    name: &'static str,
    workload: Workload,
    shapes: &[Shape],
    rates: &[Vec<f64>],
) -> Point {
    let (default, by_hand) = (&rates[0], &rates[2..]);
    let medians: Vec<f64> = by_hand.iter().map(|rates| median(rates.clone())).collect();
    // One loop for all rounds: the best of each round would be biased by noise.
    let best = (0..medians.len()).max_by(|a, b| medians[*a].total_cmp(&medians[*b])).unwrap_or(0);
    let ratios = default.iter().zip(&by_hand[best]).map(|(ours, theirs)| ours / theirs).collect();
    let range = (default.iter().copied().fold(f64::MAX, f64::min), default.iter().copied().fold(0.0, f64::max));
    let hand = shapes.iter().zip(&medians).map(|(shape, median)| HandLoop {
        way: S::by_hand(workload),
        batch: shape.batch,
        connections: shape.connections,
        rows_per_s: *median,
    });
    Point {
        database: S::NAME.name(),
        workload: name,
        rtt_ms: round_trip.as_secs_f64() * 1e3,
        rounds: default.len(),
        rows_per_s: median(default.clone()),
        rows_per_s_range: range,
        fixed_rows_per_s: median(rates[1].clone()),
        best_hand: medians[best],
        best_hand_loop: shapes[best].to_string(),
        ratio: median(ratios),
        hand: hand.collect(),
        latency: Vec::new(),
    }
}

/// Milliseconds without trailing zeros.
pub(super) fn ms(time: Duration) -> String {
    format!("{}", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_by_hand_have_no_more_rows_in_flight_than_the_buffer_holds() {
        let check = |buffer_size, expected: &[&str]| {
            let shapes: Vec<_> = shapes(buffer_size).iter().map(Shape::to_string).collect();
            assert_eq!(shapes, expected, "{buffer_size}");
        };
        check(1_000, &["500 x 4"]);
        check(10_000, &["500 x 4", "500 x 16", "2000 x 4"]);
        check(40_000, &["500 x 4", "500 x 16", "2000 x 4", "2000 x 16", "5000 x 4"]);
        assert_eq!(shapes(usize::MAX).len(), 8);
    }

    #[test]
    fn the_best_loop_is_that_with_the_best_median_and_ratios_are_within_a_round() {
        let shapes = shapes(10_000);
        // The second loop had one fast round; the machine was slow in the last round, for all.
        let rates =
            [vec![90.0, 81.0, 9.0], vec![50.0; 3], vec![60.0; 3], vec![200.0, 50.0, 5.0], vec![100.0, 90.0, 10.0]];
        let point = point::<Postgres>(Duration::from_millis(2), "insert", Workload::Insert, &shapes, &rates);
        assert_eq!((point.best_hand_loop.as_str(), point.best_hand), ("2000 x 4", 90.0));
        assert!((point.ratio - 0.9).abs() < 1e-9);
        assert_eq!((point.rows_per_s, point.rows_per_s_range), (81.0, (9.0, 90.0)));
        assert_eq!((point.rtt_ms, point.hand[0].way), (2.0, "COPY BINARY"));
    }
}
