//! When rows that cannot be written end: each within its own time, and none without a last try.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, Conflict, ErrorClass, OutcomeKind, PipelineConfig, Rows, Schema, Sink, SinkError, Written,
};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{FAR, HOUR, config, pipeline, receipts, row, table};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn retry_for_is_the_time_of_a_row_and_not_of_each_batch_before_it() {
    let (db, sink) = pipeline(config().buffer_size(2000).retry_for(MINUTE));
    sink.break_table("t", ErrorClass::Transient);
    let begin = Instant::now();
    // Adjacent keys share a lane: 125 batches, one after the other.
    let all = receipts(&db, &table("t", Conflict::update(["id"])), 0..250).await;
    let mut last = 0;
    for receipt in all {
        let outcome = receipt.await;
        assert_eq!(outcome.kind(), OutcomeKind::Expired);
        last = last.max(begin.elapsed().as_secs());
    }
    assert!((60..=62).contains(&last), "the last row has its outcome after {last} s");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_came_later_has_its_whole_time() {
    let (db, sink) = pipeline(config().retry_for(MINUTE));
    let schema = table("t", Conflict::update(["id"]));
    sink.break_table("t", ErrorClass::Transient);
    let old = receipts(&db, &schema, 0..10).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let new = receipts(&db, &schema, 10..20).await;
    for receipt in old {
        assert_eq!(receipt.await.kind(), OutcomeKind::Expired);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    sink.mend_table("t");
    for receipt in new {
        assert!(receipt.await.is_written(), "70 s after the first error, and 30 s after it was accepted");
    }
}

/// Refuses connections while a class of error is set; counts the attempts.
#[derive(Clone, Default)]
pub(crate) struct Down(Arc<Mutex<(Option<ErrorClass>, usize, usize)>>);

impl Down {
    pub(crate) fn because(&self, class: impl Into<Option<ErrorClass>>) {
        self.0.lock().unwrap().0 = class.into();
    }

    pub(crate) fn attempts(&self) -> usize {
        self.0.lock().unwrap().1
    }

    fn written(&self) -> usize {
        self.0.lock().unwrap().2
    }
}

impl Sink for Down {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "down"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        state.0.map_or(Ok(()), |class| Err(SinkError::with_code(class, "down", "no connection")))
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        self.0.lock().unwrap().2 += rows.len();
        Ok(Written::default())
    }
}

pub(crate) fn down(config: PipelineConfig) -> (BatchSql, Down) {
    let sink = Down::default();
    sink.because(ErrorClass::Transient);
    (BatchSql::builder(sink.clone()).config(config).start().unwrap(), sink)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_unreachable_is_tried_one_connection_at_a_time() {
    let (db, sink) = down(config().buffer_size(2000).retry_for(HOUR));
    for id in 0..1000 {
        db.submit(&row(&table(&format!("t{}", id % 10), Conflict::update(["id"])), id * FAR)).await.unwrap();
    }
    tokio::time::sleep(MINUTE).await;
    assert!(sink.attempts() < 200, "{} attempts in a minute", sink.attempts());
    sink.because(None);
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), sink.written()), (1000, 1000));
}

#[tokio::test(start_paused = true)]
async fn closing_on_a_dead_server_is_no_storm() {
    let (db, sink) = down(config().buffer_size(2000).retry_for(HOUR));
    for id in 0..1000 {
        db.submit(&row(&table(&format!("t{}", id % 10), Conflict::none()), id)).await.unwrap();
    }
    let report = db.close(Duration::from_secs(10)).await;
    assert_eq!(report.balance.purged(), 1000);
    assert!((10..200).contains(&sink.attempts()), "{} attempts in ten seconds", sink.attempts());
}

#[tokio::test(start_paused = true)]
async fn rows_expire_when_no_connection_can_be_had() {
    let (db, _) = down(config().retry_for(MINUTE).flush_interval(Duration::from_millis(10)));
    let begin = Instant::now();
    let schema = table("t", Conflict::update(["id"]));
    let mut all = receipts(&db, &schema, 0..5).await;
    // One of another lane, which never had a connection.
    all.extend(receipts(&db, &table("u", Conflict::none()), 0..25).await);
    for receipt in all {
        let outcome = receipt.await;
        assert_eq!(outcome.kind(), OutcomeKind::Expired);
        assert_eq!(outcome.failure().unwrap().code(), Some("down"));
    }
    let elapsed = begin.elapsed();
    assert!(elapsed >= MINUTE && elapsed < MINUTE + Duration::from_secs(3), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_has_one_clock_for_all_tables() {
    let (db, sink) = down(config().park_for(MINUTE).buffer_size(1000));
    sink.because(ErrorClass::Permission);
    let begin = Instant::now();
    let mut all = Vec::new();
    for table_number in 0..5 {
        all.extend(receipts(&db, &table(&format!("t{table_number}"), Conflict::update(["id"])), 0..20).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for receipt in all {
        assert_eq!(receipt.await.kind(), OutcomeKind::Rejected);
    }
    let elapsed = begin.elapsed();
    assert!(elapsed >= MINUTE && elapsed < MINUTE + Duration::from_secs(11), "{elapsed:?}");
    assert!(sink.attempts() < 60, "{} attempts", sink.attempts());
}

#[tokio::test(start_paused = true)]
async fn no_row_of_a_parked_table_is_rejected_after_the_table_was_mended() {
    let sink = ScriptedSink::new();
    let rejected = Arc::new(Mutex::new(Vec::new()));
    let config =
        config().park_for(Duration::from_secs(5)).buffer_size(10_000).flush_interval(Duration::from_millis(100));
    let begin = Instant::now();
    let times = Arc::clone(&rejected);
    let builder = BatchSql::builder(sink.clone()).config(config);
    let db = builder.on_failed_row(move |_| times.lock().unwrap().push(begin.elapsed())).start().unwrap();
    sink.break_table("t", ErrorClass::Permission);
    let mended_at = Duration::from_millis(5_140);
    let mend = tokio::spawn({
        let sink = sink.clone();
        async move {
            tokio::time::sleep(mended_at).await;
            sink.mend_table("t");
        }
    });
    let schema = table("t", Conflict::update(["id"]));
    for id in 0..1000 {
        db.submit(&row(&schema, id * FAR)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mend.await.unwrap();
    let balance = db.flush().await.unwrap();
    let rejected = rejected.lock().unwrap();
    assert_eq!(balance.written() + rejected.len() as u64, 1000);
    assert!(rejected.iter().all(|at| *at <= mended_at), "rejected at {:?}", rejected.last());
    assert!(balance.written() >= 900, "{balance}");
}

#[tokio::test(start_paused = true)]
async fn the_error_of_an_unknown_row_is_that_of_the_attempt_that_made_it_unknown() {
    let (db, sink) = pipeline(config().retry_for(Duration::from_secs(5)));
    sink.script([Step::LoseReply]);
    sink.script(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
    for receipt in receipts(&db, &table("t", Conflict::update(["id"])), 0..10).await {
        let outcome = receipt.await;
        assert_eq!(outcome.kind(), OutcomeKind::Unknown);
        let error = outcome.failure().unwrap().error().unwrap().to_string();
        assert!(error.contains("the reply was lost"), "{error}");
    }
}

/// Works until it fails; then writes on open connections fail, and connecting takes seconds to fail.
#[derive(Clone, Default)]
struct Dies(Arc<std::sync::atomic::AtomicBool>);

impl Sink for Dies {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "dies"
    }

    fn sorts_by_key(&self) -> bool {
        true
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        if self.0.load(std::sync::atomic::Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(SinkError::with_code(ErrorClass::Transient, "down", "no connection"));
        }
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), _: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if self.0.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(SinkError::new(ErrorClass::Unknown, "the connection was lost"));
        }
        Ok(Written::default())
    }
}

#[tokio::test(start_paused = true)]
async fn every_row_ends_when_the_server_dies_under_load() {
    let sink = Dies::default();
    let config = PipelineConfig::default().retry_for(MINUTE);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let producers: Vec<_> = (0..10)
        .map(|producer| {
            let db = db.clone();
            tokio::spawn(async move {
                let schema = table("t", Conflict::update(["id"]));
                let mut receipts = Vec::new();
                for number in 0..2_000 {
                    let row = row(&schema, (producer * 2_000 + number) * 300);
                    receipts.push(db.submit_tracked(&row).await.unwrap());
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                for receipt in receipts {
                    receipt.await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    sink.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let begin = Instant::now();
    for producer in producers {
        tokio::time::timeout(HOUR, producer).await.expect("rows have no outcome").unwrap();
    }
    // The buffer is full twice: rows that found no capacity are accepted when the first ones have expired.
    assert!(begin.elapsed() < 3 * MINUTE, "{:?}", begin.elapsed());
}

/// Refuses every write, and gives one connection; later requests for one fail with a class, or hang until the time limit.
#[derive(Clone, Default)]
struct OneConnection(Arc<Mutex<Vec<Instant>>>, Option<ErrorClass>);

impl Sink for OneConnection {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "one connection"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        let is_first = {
            let mut requests = self.0.lock().unwrap();
            requests.push(Instant::now());
            requests.len() == 1
        };
        match self.1 {
            _ if is_first => Ok(()),
            Some(class) => Err(SinkError::new(class, "refused")),
            None => std::future::pending().await,
        }
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), _: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        Err(SinkError::new(ErrorClass::Transient, "connection lost"))
    }
}

/// The request that began before the time was over does not count as the last try, and does not delay it.
#[tokio::test(start_paused = true)]
async fn the_wait_for_a_connection_is_part_of_retry_for() {
    let config = config().retry_for(Duration::from_secs(3)).statement_timeout(Duration::from_secs(5));
    for concurrency in [1, 8] {
        let sink = OneConnection::default();
        let db = BatchSql::builder(sink.clone()).config(config.clone().max_concurrency(concurrency)).start().unwrap();
        let begin = Instant::now();
        for receipt in receipts(&db, &table("t", Conflict::update(["id"])), 0..10).await {
            assert_eq!(receipt.await.kind(), OutcomeKind::Expired);
        }
        let (elapsed, requests) = (begin.elapsed(), sink.0.lock().unwrap().clone());
        let last_try = requests.last().unwrap().duration_since(begin);
        assert!(last_try >= Duration::from_secs(3), "no last try: the last request was after {last_try:?}");
        // The time of the row, and that of its last request.
        assert!(elapsed < Duration::from_millis(8_100), "with {concurrency} permits after {elapsed:?}");
        assert!(requests.len() < 10, "{} requests", requests.len());
    }
}

/// A refused login ends rows by `park_for`: the end of `retry_for` before it must not start a storm of requests.
#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_after_a_failed_write_is_not_stormed() {
    let config = config().retry_for(Duration::from_secs(3)).park_for(MINUTE);
    let sink = OneConnection(Arc::default(), Some(ErrorClass::Permission));
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    for receipt in receipts(&db, &table("t", Conflict::update(["id"])), 0..10).await {
        assert_eq!(receipt.await.kind(), OutcomeKind::Rejected);
    }
    let requests = sink.0.lock().unwrap().len();
    assert!(requests < 200, "{requests} requests");
}

/// Many batches of other tables are ready before it.
#[tokio::test(start_paused = true)]
async fn a_row_whose_time_is_over_gets_the_next_permit() {
    let (db, sink) = pipeline(config().retry_for(Duration::from_secs(3)).buffer_size(10_000).max_concurrency(1));
    sink.break_table("t", ErrorClass::Transient);
    let begin = Instant::now();
    let failing = receipts(&db, &table("t", Conflict::update(["id"])), 0..10).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..20 {
        let name = format!("other {number}");
        sink.slow_table(&name, Duration::from_secs(1));
        receipts(&db, &table(&name, Conflict::none()), 0..10).await.into_iter().for_each(drop);
    }
    for receipt in failing {
        assert_eq!(receipt.await.kind(), OutcomeKind::Expired);
    }
    let elapsed = begin.elapsed();
    let bound = Duration::from_millis(4_100);
    assert!(elapsed >= Duration::from_secs(3) && elapsed < bound, "after {elapsed:?}");
    assert_eq!(db.flush().await.unwrap().written(), 200);
}
