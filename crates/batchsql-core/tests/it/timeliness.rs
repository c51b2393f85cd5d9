//! Rows are written in time even if producers never wait. Real time and real threads: the test waits for an event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, PipelineConfig};
use batchsql_testkit::NullSink;

use crate::support::{row, table};

/// A row must be written while producers keep working: they end only after it was written.
async fn a_row_is_written_while_producers_work(producers: usize, all: bool) {
    let config = PipelineConfig::default().buffer_size(1_000_000);
    let db = BatchSql::builder(NullSink).config(config).start().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let of_table = table("t", Conflict::none());
    let work = move |id: i64| {
        // For example parsing: a part of a millisecond of CPU time.
        let until = std::time::Instant::now() + Duration::from_micros(200);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        row(&of_table, id)
    };
    let first = db.submit_tracked(&work(0)).await.unwrap();
    let tasks: Vec<_> = (0..producers)
        .map(|_| {
            let (db, done, work) = (db.clone(), Arc::clone(&done), work.clone());
            tokio::spawn(async move {
                let rows = (1..1_000_000).take_while(|_| !done.load(Ordering::SeqCst)).map(work);
                if all {
                    db.submit_all(rows).await.unwrap();
                } else {
                    for row in rows {
                        db.submit(&row).await.unwrap();
                    }
                }
            })
        })
        .collect();
    let written = tokio::time::timeout(Duration::from_secs(120), first).await;
    done.store(true, Ordering::SeqCst);
    assert!(written.expect("nothing is written while producers work").is_written());
    for task in tasks {
        task.await.unwrap();
    }
    assert!(db.close(Duration::from_secs(120)).await.is_complete());
}

#[test]
fn rows_are_written_while_producers_never_wait() {
    let run = |threads: Option<usize>, producers, all| {
        let mut builder = match threads {
            Some(threads) => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(threads);
                builder
            }
            None => tokio::runtime::Builder::new_current_thread(),
        };
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(a_row_is_written_while_producers_work(producers, all));
    };
    for all in [false, true] {
        run(Some(2), 1, all);
        run(Some(2), 2, all);
        run(None, 1, all);
    }
}
