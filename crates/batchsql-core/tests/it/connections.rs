//! How connections are acquired, kept and given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, DynSink, ErrorClass, Position, RowBuffer, Rows, Schema, Sink, SinkError, Step, ValueRef,
    ValueRules, Written,
};
use batchsql_testkit::ScriptedSink;

use crate::support::{HOUR, config, plain, row};

/// The id of a row that the sink refuses for a reason that it does not know.
const BROKEN: i64 = -9;

/// Counts its connections; each write takes 10 ms, and refuses rows with a negative id.
#[derive(Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Default)]
struct Counts {
    acquired: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    /// Writes that were refused for a reason that the sink does not know.
    broken: AtomicUsize,
    /// Writes on a connection of such a write.
    on_broken: AtomicUsize,
}

struct Conn {
    counts: Arc<Counts>,
    is_broken: bool,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sink for Counting {
    type Conn = Conn;
    type Plan = ();

    fn name(&self) -> &'static str {
        "counting"
    }

    fn efficient_batch_rows(&self) -> usize {
        0
    }

    async fn acquire(&self) -> Result<Conn, SinkError> {
        self.0.acquired.fetch_add(1, Ordering::SeqCst);
        let open = self.0.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_open.fetch_max(open, Ordering::SeqCst);
        Ok(Conn { counts: Arc::clone(&self.0), is_broken: false })
    }

    async fn prepare(&self, _: &mut Conn, _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, conn: &mut Conn, (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.0.on_broken.fetch_add(usize::from(conn.is_broken), Ordering::SeqCst);
        let bad = rows.iter().find_map(|row| match row.get(0) {
            ValueRef::I64(BROKEN) => Some(ErrorClass::Internal),
            ValueRef::I64(id) if id < 0 => Some(ErrorClass::Row),
            _ => None,
        });
        conn.is_broken |= bad == Some(ErrorClass::Internal);
        self.0.broken.fetch_add(usize::from(bad == Some(ErrorClass::Internal)), Ordering::SeqCst);
        bad.map_or(Ok(Written::default()), |class| Err(SinkError::new(class, "negative")))
    }
}

fn start(concurrency: usize) -> (BatchSql, Counting) {
    let sink = Counting::default();
    let config = config().max_concurrency(concurrency).buffer_size(100_000);
    (BatchSql::builder(sink.clone()).config(config).start().unwrap(), sink)
}

fn load(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn batches_that_wait_go_on_with_the_connection_of_the_one_before() {
    let (db, sink) = start(2);
    // 50 batches of 10 rows on two connections take 250 ms.
    for id in 0..500 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.flush().await.unwrap();
    assert_eq!(load(&sink.0.acquired), 2);
    assert_eq!(load(&sink.0.most_open), 2);
    // No batch waits, so no connection is kept from other users of the pool.
    assert_eq!(load(&sink.0.open), 0);
    db.submit(&row(&plain(), 500)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!((load(&sink.0.acquired), load(&sink.0.open)), (3, 0));
    assert_eq!(db.close(HOUR).await.balance.written(), 501);
}

/// A code that the driver does not know may leave anything on the connection.
#[tokio::test(start_paused = true)]
async fn a_step_that_fails_for_an_unknown_reason_gives_its_connection_back() {
    // The table is checked again, once, on a connection as well.
    for (id, class, acquired) in [(-1, ErrorClass::Row, 1), (BROKEN, ErrorClass::Internal, 3)] {
        let (db, sink) = start(2);
        let step = async |id: i64| {
            let mut buffer = RowBuffer::new(&plain(), ValueRules::default());
            buffer.push(&row(&plain(), id)).unwrap();
            let position = Position { id: 1, epoch: 1, sequence: 0 };
            db.write_step(buffer.into_rows().rows(), &Step::new(position, 1)).await
        };
        step(1).await.unwrap();
        assert_eq!(step(id).await.unwrap_err().error.class(), class);
        step(2).await.unwrap();
        assert_eq!(load(&sink.0.acquired), acquired, "{class}");
    }
}

/// The same for a batch: the searches for its bad row use other connections.
#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_for_an_unknown_reason_gives_its_connection_back() {
    let (db, sink) = start(1);
    for id in (1..10).chain([BROKEN]).chain(10..30) {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.written(), report.balance.rejected()), (29, 1));
    assert!(load(&sink.0.broken) > 1);
    assert_eq!((load(&sink.0.on_broken), load(&sink.0.open)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_goes_back_to_its_pool_every_second() {
    let (db, sink) = start(1);
    // 350 batches of 10 ms.
    for id in 0..3500 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!(report.balance.written(), 3500);
    assert_eq!(load(&sink.0.acquired), 4);
    assert_eq!((load(&sink.0.most_open), load(&sink.0.open)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_failed_rows_gives_its_connection_back() {
    let (db, sink) = start(1);
    for id in [-1].into_iter().chain(1..30) {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.written(), report.balance.rejected()), (29, 1));
    // One for the batch with the bad row, one for the two after it.
    assert_eq!((load(&sink.0.acquired), load(&sink.0.open)), (2, 0));
}

#[tokio::test]
async fn a_sink_without_a_catalogue_says_how_to_declare_columns() {
    let error = DynSink::new(ScriptedSink::new()).read_schema(&"orders".into()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Schema);
    assert!(error.to_string().contains("table orders: ") && error.to_string().contains("Schema::builder"), "{error}");
}
