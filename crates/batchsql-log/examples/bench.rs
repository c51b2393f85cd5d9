//! Measures a log in a folder of its own, under the given one: `bench FOLDER [SECONDS]`.
//!
//! For both policies: how long a lone submitter waits, and how many bytes several submitters store per second. The
//! latency of `fdatasync` is that of the log's own syncs. Choose a folder on the disk that counts; `/tmp` may be memory.

use std::{
    env,
    error::Error,
    fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use batchsql_log::{Block, Log, LogStats, Options, SYNC_BUCKETS_MICROS, SchemaId, SyncPolicy, TableId};

const BLOCK_BYTES: usize = 64 << 10;
const SUBMITTERS: usize = 16;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some(parent) = arguments.first() else {
        eprintln!("usage: bench FOLDER [SECONDS]");
        return Ok(ExitCode::from(2));
    };
    let time = Duration::from_secs(arguments.get(1).map_or(Ok(5), |seconds| seconds.parse())?);
    let folder = std::path::Path::new(parent).join(format!("batchsql-log-bench-{}", std::process::id()));
    for policy in [SyncPolicy::Always, SyncPolicy::Os] {
        for submitters in [1, SUBMITTERS] {
            let (log, _) = Log::open(Options::new(&folder).sync_policy(policy).disk_bytes(4 << 30))?;
            let (table, schema) = (log.table("bench")?, log.schema(b"")?);
            let started = Instant::now();
            let waits = thread::scope(|scope| {
                let submit = |_| scope.spawn(|| submit(&log, table, schema, started + time));
                let threads: Vec<_> = (0..submitters).map(submit).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
            })?;
            let took = started.elapsed();
            println!("{policy:?}, {submitters} submitter(s) of {BLOCK_BYTES} bytes:");
            print_waits(waits.concat());
            print_stats(&log.stats(), took);
            log.close().wait()?;
            drop(log);
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Appends and settles until the time is over; how long each block took.
fn submit(
    log: &Log,
    table: TableId,
    schema: SchemaId,
    until: Instant,
) -> Result<Vec<Duration>, batchsql_log::LogError> {
    let mut waits = Vec::new();
    while Instant::now() < until {
        let block = Block { table, partition: 0, schema, count: 100, bytes: vec![0x5a; BLOCK_BYTES] };
        let started = Instant::now();
        match log.append(block) {
            Ok(ticket) => {
                let appended = ticket.wait()?;
                waits.push(started.elapsed());
                log.settle(table, 0, appended.first..=appended.last)?;
            }
            Err(refused) if refused.error.is_full() => log.space(BLOCK_BYTES).wait()?,
            Err(refused) => return Err(refused.error),
        }
    }
    Ok(waits)
}

fn print_waits(mut waits: Vec<Duration>) {
    waits.sort_unstable();
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "  append: median {:?}, 99% {:?}, longest {:?}",
        at(0.5),
        at(0.99),
        waits.last().copied().unwrap_or_default()
    );
}

fn print_stats(stats: &LogStats, took: Duration) {
    let megabytes = stats.appended_bytes as f64 / 1e6 / took.as_secs_f64();
    println!("  {megabytes:.1} MB/s, {} blocks in {} groups", stats.appended_blocks, stats.groups);
    let syncs = &stats.syncs;
    let mean = syncs.total.checked_div(u32::try_from(syncs.count).unwrap_or(u32::MAX)).unwrap_or_default();
    println!("  fdatasync: {} calls, mean {mean:?}, longest {:?}", syncs.count, syncs.max);
    let bounds = SYNC_BUCKETS_MICROS.iter().map(|bound| format!("up to {bound} us"));
    for (bound, count) in bounds.chain(["longer".to_owned()]).zip(syncs.buckets) {
        if count > 0 {
            println!("    {bound}: {count}");
        }
    }
}
