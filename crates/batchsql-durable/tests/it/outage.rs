//! A long outage: the database is unreachable while rows are stored, the process is killed, and the next one writes all of them.
//! The memory of both processes does not depend on how much is in the log.
//!
//! `BATCHSQL_OUTAGE_MIB=5120` is about a day of 100 rows of 500 bytes per second.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use batchsql_core::exhaustive::Values;
use batchsql_core::{
    Attempt, BatchSql, ColumnType, DynRow, ErrorClass, PipelineConfig, Rows, Schema, Sink, SinkError, Written,
};
use batchsql_durable::{DurableBatchSql, DurableExt, DurableOptions};

use crate::support::options;
use batchsql_testserver::process::{self, Process, command};

/// The log of a normal run.
const MIB: u64 = 48;
/// What each process may take, in MiB.
const MEMORY: u64 = 128;
const PRODUCERS: u64 = 16;
/// Rows of one call.
const CALL: u64 = 200;
/// The program says how far it is.
const TELL: Duration = Duration::from_secs(2);

/// A database that is unreachable, or that counts rows.
#[derive(Clone, Default)]
struct Counting {
    is_unreachable: bool,
    rows: Arc<AtomicU64>,
    ids: Arc<AtomicU64>,
}

impl Sink for Counting {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "counting"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        if self.is_unreachable { Err(SinkError::new(ErrorClass::Transient, "unreachable")) } else { Ok(()) }
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        let Values::I64(ids) = rows.column(0).values().exhaustive() else { panic!("ids are numbers") };
        self.ids.fetch_add(ids.iter().map(|id| *id as u64).sum(), Ordering::Relaxed);
        self.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(Written::default())
    }
}

fn events() -> Schema {
    Schema::builder("events").column("id", ColumnType::I64).column("note", ColumnType::Text).build().unwrap()
}

fn event(schema: &Schema, id: u64) -> DynRow {
    schema.row().set("id", id as i64).unwrap().set("note", "x".repeat(480)).unwrap().finish().unwrap()
}

async fn start(sink: Counting, options: DurableOptions) -> DurableBatchSql {
    BatchSql::builder(sink).config(PipelineConfig::default()).durable(options).start().await.unwrap()
}

/// The most memory that this process has had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() >> 10
}

/// Stores rows until the log has its size, says how many, and waits to be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a program, started by another test"]
async fn producer() {
    let Some(arguments) = process::arguments() else { return };
    let [folder, mib] = &arguments[..] else { panic!("folder and MiB") };
    let bytes = mib.parse::<u64>().unwrap() << 20;
    let sink = Counting { is_unreachable: true, ..Counting::default() };
    let db = start(sink, options(Path::new(folder)).disk_bytes(2 * bytes + (1 << 30))).await;
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..PRODUCERS {
        let (db, next) = (db.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let schema = events();
            while db.stats().log.bytes < bytes {
                let first = next.fetch_add(CALL, Ordering::Relaxed);
                db.submit_all((first..first + CALL).map(|id| event(&schema, id))).await.unwrap();
            }
        });
    }
    let mut ticks = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => ended.unwrap(),
                None => break,
            },
            _ = ticks.tick() => process::tell(format!("{} MiB", db.stats().log.bytes >> 20)),
        }
    }
    process::tell(format!("stored {} {}", next.load(Ordering::Relaxed), peak()));
    std::future::pending::<()>().await;
}

/// Writes all that waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a program, started by another test"]
async fn drain() {
    let Some(arguments) = process::arguments() else { return };
    let [folder] = &arguments[..] else { panic!("a folder") };
    let (sink, begun) = (Counting::default(), Instant::now());
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let progress = move |progress: batchsql_durable::Progress| {
        assert!(progress.bytes <= progress.total_bytes);
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let db = start(sink.clone(), options(Path::new(folder)).on_progress(progress)).await;
    let opened = begun.elapsed();
    let (rows, calls) = (db.recovered().rows, calls.load(Ordering::Relaxed));
    process::tell(format!("opened {rows} {calls} {}", opened.as_millis()));
    let flushed = db.flush();
    tokio::pin!(flushed);
    let mut ticks = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            flushed = &mut flushed => { let _ = flushed.unwrap(); break; },
            _ = ticks.tick() => process::tell(format!("{} rows left", db.stats().log.unsettled_rows)),
        }
    }
    let took = begun.elapsed() - opened;
    let (rows, ids) = (sink.rows.load(Ordering::Relaxed), sink.ids.load(Ordering::Relaxed));
    process::tell(format!("written {rows} {ids} {} {}", peak(), took.as_millis()));
    assert!(db.close(Duration::from_secs(60)).await.is_drained());
}

/// The numbers of the line that begins with this word; the lines before it are progress.
fn line(program: &mut Process, word: &str) -> Vec<u64> {
    loop {
        let line = program.line();
        eprintln!("{line}");
        if let Some(numbers) = line.strip_prefix(word) {
            return numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
        }
    }
}

#[test]
fn memory_does_not_depend_on_the_length_of_an_outage() {
    let mib = std::env::var("BATCHSQL_OUTAGE_MIB").map_or(MIB, |mib| mib.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut producer = Process::start(&mut command("outage::producer", &[path, &mib.to_string()])).unwrap();
    let stored = line(&mut producer, "stored ");
    producer.kill();
    let rows = stored[0];
    let mut drain = Process::start(&mut command("outage::drain", &[path])).unwrap();
    let opened = line(&mut drain, "opened ");
    let written = line(&mut drain, "written ");
    drain.finish();
    assert_eq!((opened[0], written[0]), (rows, rows), "rows from before the start, and rows that were written");
    assert_eq!(written[1], rows * (rows - 1) / 2, "each of them once");
    assert!(opened[1] > 0, "the start has shown its progress");
    let peaks = [stored[1], written[2]];
    println!(
        "{mib} MiB, {rows} rows: peaks of {peaks:?} MiB; opened in {} ms, drained in {} ms",
        opened[2], written[3]
    );
    assert!(peaks.iter().all(|peak| *peak <= MEMORY), "peaks of {peaks:?} MiB");
}
