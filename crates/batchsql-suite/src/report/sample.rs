//! Sample reports: one like a real run, one with values that are hard to display.
//! To view the page without a run, and for tests. Must not know any output format.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::time::Duration;

use super::model::{
    CaseResult, DatabaseInfo, Environment, Integrity, Latency, MemorySummary, Report, RunConfig, Sample, Summary,
};
use batchsql::metrics::TestResult;

/// A string that breaks out of its element if it is not escaped.
pub const HOSTILE: &str = "</script><img src=x onerror=alert(1)>";

/// The shape of one sample case.
struct Shape {
    name: &'static str,
    description: &'static str,
    seconds: f64,
    rate: f64,
    batch_size: u64,
    batch_p50_ms: f64,
    memory_mb: f64,
    /// How full the buffer is on average, 0 to 1.
    fill: f64,
    workers: usize,
}

const SHAPES: [Shape; 8] = [
    Shape {
        name: "high_throughput",
        description: "One table, rows as fast as the database takes them. Expects every row once and a rate above 50,000 records/s.",
        seconds: 30.0,
        rate: 412_000.0,
        batch_size: 2000,
        batch_p50_ms: 4.1,
        memory_mb: 46.0,
        fill: 0.82,
        workers: 8,
    },
    Shape {
        name: "concurrent_workers",
        description: "Many tasks submit at the same time. Expects that no row is lost or written twice.",
        seconds: 30.0,
        rate: 357_000.0,
        batch_size: 1000,
        batch_p50_ms: 2.4,
        memory_mb: 58.0,
        fill: 0.9,
        workers: 64,
    },
    Shape {
        name: "large_batch",
        description: "A few batches of 50,000 rows. Expects that one statement never passes the limits of the database.",
        seconds: 0.9,
        rate: 288_000.0,
        batch_size: 50_000,
        batch_p50_ms: 148.0,
        memory_mb: 96.0,
        fill: 0.35,
        workers: 4,
    },
    Shape {
        name: "memory_pressure",
        description: "Wide rows into a slow database. Expects that memory stays below its bound while submitters wait.",
        seconds: 45.0,
        rate: 21_500.0,
        batch_size: 500,
        batch_p50_ms: 21.0,
        memory_mb: 118.0,
        fill: 0.97,
        workers: 16,
    },
    Shape {
        name: "long_duration",
        description: "A steady load for minutes. Expects a level rate, level memory and no growing delay.",
        seconds: 180.0,
        rate: 98_400.0,
        batch_size: 1000,
        batch_p50_ms: 3.2,
        memory_mb: 44.0,
        fill: 0.12,
        workers: 8,
    },
    Shape {
        name: "duplicate_key_upsert",
        description: "Three writes of every key in random order. Expects that the last write of each key stands.",
        seconds: 24.0,
        rate: 164_000.0,
        batch_size: 1000,
        batch_p50_ms: 6.8,
        memory_mb: 49.0,
        fill: 0.64,
        workers: 8,
    },
    Shape {
        name: "mixed_tables",
        description: "Five tables with different shapes and rates. Expects that a busy table does not hold up a quiet one.",
        seconds: 30.0,
        rate: 201_000.0,
        batch_size: 800,
        batch_p50_ms: 3.7,
        memory_mb: 61.0,
        fill: 0.48,
        workers: 10,
    },
    Shape {
        name: "real_dataset",
        description: "A public data set with text, missing values and dates. Expects the same checksum on both sides.",
        seconds: 12.0,
        rate: 143_000.0,
        batch_size: 1000,
        batch_p50_ms: 7.9,
        memory_mb: 67.0,
        fill: 0.7,
        workers: 4,
    },
];

/// A run of eight cases on SQLite, one of which failed; the same at every call.
pub fn report() -> Report {
    let mut results: Vec<_> = SHAPES.iter().enumerate().map(|(i, shape)| case(shape, i as u64)).collect();
    let pressed = &mut results[3];
    pressed.result.rps_valid = false;
    pressed.result.rps_note = Some("the database was slowed down on purpose".to_owned());
    pressed.memory.bound_mb = Some(160.0);
    pressed.memory.bound_note = Some("start + buffer of 64 MiB + 4 batches in flight + 20 MB of slack".to_owned());
    let failed = &mut results[5];
    failed.result.success = false;
    failed.result.actual_records -= 17;
    failed.result.data_integrity_rate = 99.998_7;
    failed.result.errors = vec![
        "integrity: 17 of 1,312,000 keys hold an older write".to_owned(),
        "table events: batch 214 reported a unique violation after 3 attempts".to_owned(),
    ];
    failed.integrity.actual_rows -= 17;
    failed.integrity.actual_checksum = "5d0c77e1a94b23f8".to_owned();
    failed.integrity.matches = false;
    wrap(results, false)
}

/// An interrupted run on two databases: hostile names, a skipped case, gaps and missing figures.
pub fn edges() -> Report {
    let mut hostile = case(&SHAPES[0], 11);
    hostile.result.test_name = HOSTILE.to_owned();
    hostile.description = format!("Ends early: {HOSTILE}");
    hostile.result.success = false;
    hostile.result.errors = vec![HOSTILE.to_owned(), "one-very-long-word-".repeat(20), "two\nlines".to_owned()];
    hostile.parameters.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
    hostile.balance.insert(HOSTILE.to_owned(), u64::MAX);
    for sample in hostile.series.iter_mut().skip(8).step_by(5) {
        sample.batch_latency_p50_ms = None;
        sample.batch_latency_p99_ms = None;
    }
    let mut silent = case(&SHAPES[1], 12);
    silent.result.database = "postgres".to_owned();
    silent.result.records_per_second = 0.0;
    silent.batch_latency = None;
    silent.row_latency = None;
    silent.series.clear();
    silent.balance.clear();
    silent.parameters.clear();
    let skipped = CaseResult {
        result: TestResult {
            database: "postgres".to_owned(),
            test_name: "real_dataset".to_owned(),
            errors: vec!["the data set is not on this machine".to_owned()],
            ..Default::default()
        },
        description: SHAPES[7].description.to_owned(),
        skipped: true,
        ..Default::default()
    };
    let mut report = wrap(vec![hostile, silent, skipped], true);
    report.environment.rust_version = None;
    report.environment.memory_total_bytes = None;
    report
}

fn wrap(results: Vec<CaseResult>, interrupted: bool) -> Report {
    let mut databases: Vec<_> = results.iter().map(|case| case.result.database.clone()).collect();
    databases.dedup();
    let seconds = short(results.iter().map(|case| case.result.duration.as_secs_f64() + 1.6).sum());
    Report {
        generated_at: "2026-03-14T09:26:53Z".to_owned(),
        config: RunConfig {
            cases: results.iter().map(|case| case.result.test_name.clone()).collect(),
            databases: databases.clone(),
            duration_seconds: 30.0,
            workers: 8,
            records_per_worker: 100_000,
            batch_size: 1000,
            buffer_size: 50_000,
            flush_interval_ms: 100.0,
            metrics_port: 9090,
        },
        environment: Environment {
            batchsql_version: env!("CARGO_PKG_VERSION").to_owned(),
            rust_version: Some("rustc 1.95.0".to_owned()),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: 8,
            memory_total_bytes: Some(33_285_996_544),
            databases: databases
                .into_iter()
                .map(|name| DatabaseInfo { name, version: "3.46.0".to_owned(), location: "file".to_owned() })
                .collect(),
        },
        summary: Summary::of(&results, seconds, interrupted),
        results,
    }
}

fn case(shape: &Shape, seed: u64) -> CaseResult {
    let records = (shape.seconds * shape.rate) as u64;
    CaseResult {
        result: TestResult {
            database: "sqlite".to_owned(),
            test_name: shape.name.to_owned(),
            duration: Duration::from_secs_f64(shape.seconds),
            total_records: records,
            actual_records: records,
            data_integrity_rate: 100.0,
            records_per_second: shape.rate,
            rps_valid: true,
            rps_note: None,
            concurrent_workers: shape.workers,
            errors: Vec::new(),
            success: true,
        },
        description: shape.description.to_owned(),
        integrity: Integrity {
            expected_rows: records,
            actual_rows: records,
            expected_checksum: "9f31c04e77ab5d12".to_owned(),
            actual_checksum: "9f31c04e77ab5d12".to_owned(),
            matches: true,
        },
        batch_latency: Some(latency(shape.batch_p50_ms, records / shape.batch_size)),
        row_latency: Some(latency(
            shape.batch_p50_ms * 6.3 + 50_000.0 * shape.fill / shape.rate * 1000.0,
            records / 1000,
        )),
        memory: MemorySummary {
            start_mb: 31.4,
            peak_mb: short(shape.memory_mb * 1.06),
            end_mb: short(shape.memory_mb * 0.82),
            bound_mb: None,
            bound_note: None,
        },
        balance: BTreeMap::from(
            [("accepted", records), ("written", records), ("ignored", 0), ("rejected", 0), ("failed", 0)]
                .map(|(name, rows)| (name.to_owned(), rows)),
        ),
        batches: records / shape.batch_size,
        series: series(shape, seed),
        skipped: false,
        parameters: BTreeMap::from([
            ("batch_size".to_owned(), shape.batch_size.to_string()),
            ("conflict".to_owned(), "replace".to_owned()),
            ("journal_mode".to_owned(), "WAL".to_owned()),
        ]),
    }
}

fn latency(p50_ms: f64, samples: u64) -> Latency {
    Latency {
        p50_ms: short(p50_ms),
        p90_ms: short(p50_ms * 1.6),
        p99_ms: short(p50_ms * 2.9),
        p999_ms: short(p50_ms * 5.2),
        max_ms: short(p50_ms * 9.4),
        samples,
    }
}

/// Once a second: a ramp at the start, a slow wave, some noise, a checkpoint now and then.
fn series(shape: &Shape, seed: u64) -> Vec<Sample> {
    let mut noise = Noise(seed.wrapping_mul(7919) + 1);
    (1..=shape.seconds as u64)
        .map(|second| {
            let at = second as f64;
            let ramp = 1.0 - (-at * 1.1).exp();
            let wave = 1.0 + 0.04 * (at * 2.0 * PI / 17.0).sin();
            let slow = if second % 13 == 9 { 0.78 } else { 1.0 };
            let p50 = shape.batch_p50_ms * (2.0 - wave) * (0.94 + 0.12 * noise.next()) / slow;
            Sample {
                at_seconds: at,
                records_per_second: short(shape.rate * ramp * wave * slow * (0.96 + 0.08 * noise.next())),
                batch_latency_p50_ms: Some(short(p50)),
                batch_latency_p99_ms: Some(short(p50 * (2.1 + 1.6 * noise.next()) / slow)),
                memory_mb: short(31.4 + (shape.memory_mb - 31.4) * ramp * (0.93 + 0.14 * noise.next())),
                buffer_records: (50_000.0 * (shape.fill * ramp * (0.85 + 0.3 * noise.next())).min(1.0)) as u64,
                buffer_limit: 50_000,
            }
        })
        .collect()
}

/// To three digits after the point: exact after a round trip through JSON.
fn short(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Pseudo-random numbers, the same at every call: a linear congruential generator.
struct Noise(u64);

impl Noise {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }
}
