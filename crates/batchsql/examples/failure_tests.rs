//! Tests of failure handling without a database: the sink of `batchsql-testkit` fails when the test says so.
//!
//! ```sh
//! cargo test -p batchsql --example failure_tests
//! ```
//!
//! `place_order` is the code under test. It knows a pipeline and no database. `docs/guides/testing.md` has more failures.

use batchsql::{BatchSql, OutcomeKind, Row, SubmitError};
use batchsql_testkit::ScriptedSink;

#[derive(Row)]
#[row(table = "orders", key = "id", on_conflict = "update")]
struct Order {
    id: i64,
    total_cents: i64,
}

/// What the caller tells its customer.
#[derive(Debug, PartialEq, Eq)]
enum Placed {
    Confirmed,
    /// The row was refused: the order has a mistake.
    Refused,
    /// The database was unreachable for too long, or the buffer is full: try again later.
    TryLater,
}

async fn place_order(db: &BatchSql, id: i64, total_cents: i64) -> Result<Placed, SubmitError> {
    let receipt = match db.submit_tracked(&Order { id, total_cents }).await {
        Ok(receipt) => receipt,
        Err(error) if error.is_full() => return Ok(Placed::TryLater),
        Err(error) => return Err(error),
    };
    Ok(match receipt.await.kind() {
        OutcomeKind::Written | OutcomeKind::Ignored | OutcomeKind::Superseded => Placed::Confirmed,
        OutcomeKind::Rejected => Placed::Refused,
        // The key makes it safe to place the order again, also if it was written after all.
        _ => Placed::TryLater,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = BatchSql::builder(ScriptedSink::new()).start()?;
    println!("an order without trouble: {:?}", place_order(&db, 1, 995).await?);
    println!("the trouble is in the tests: cargo test -p batchsql --example failure_tests");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use batchsql::{ErrorClass, PipelineConfig, ValueRef, WhenFull};
    use batchsql_testkit::Step;

    use super::*;

    fn start(sink: &ScriptedSink, config: PipelineConfig) -> BatchSql {
        BatchSql::builder(sink.clone()).config(config).start().unwrap()
    }

    // The paused clock jumps over waits, so a minute of retries takes no time.
    #[tokio::test(start_paused = true)]
    async fn a_short_outage_is_not_noticed() {
        let sink = ScriptedSink::new();
        sink.script([Step::Fail(ErrorClass::Transient), Step::Fail(ErrorClass::Transient)]);
        let db = start(&sink, PipelineConfig::default());
        assert_eq!(place_order(&db, 1, 995).await.unwrap(), Placed::Confirmed);
        assert_eq!(sink.writes(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_outage_asks_the_customer_to_come_back() {
        let sink = ScriptedSink::new();
        sink.script([Step::Fail(ErrorClass::Transient)]);
        let db = start(&sink, PipelineConfig::default().retry_for(Duration::ZERO));
        assert_eq!(place_order(&db, 1, 995).await.unwrap(), Placed::TryLater);
        // The database is back.
        assert_eq!(place_order(&db, 1, 995).await.unwrap(), Placed::Confirmed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_order_does_not_spoil_the_others_of_its_batch() {
        let sink = ScriptedSink::new();
        sink.poison(|row| row.get("total_cents") == Some(ValueRef::I64(-1)));
        let db = start(&sink, PipelineConfig::default());
        let (good, bad) = tokio::join!(place_order(&db, 1, 995), place_order(&db, 2, -1));
        assert_eq!((good.unwrap(), bad.unwrap()), (Placed::Confirmed, Placed::Refused));
        assert_eq!(sink.tables().rows("orders").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_is_repeated_because_the_order_has_a_key() {
        let sink = ScriptedSink::new();
        sink.script([Step::LoseReply]);
        let db = start(&sink, PipelineConfig::default());
        assert_eq!(place_order(&db, 1, 995).await.unwrap(), Placed::Confirmed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_buffer_is_reported_at_once() {
        let sink = ScriptedSink::new();
        sink.script([Step::Hang]);
        let config = PipelineConfig::default().buffer_size(1).flush_size(1).when_full(WhenFull::Reject);
        let db = start(&sink, config);
        let first = tokio::spawn({
            let db = db.clone();
            async move { place_order(&db, 1, 995).await }
        });
        // The first order has the whole buffer once the sink hangs with it.
        while sink.writes() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(place_order(&db, 2, 995).await.unwrap(), Placed::TryLater);
        sink.release(1);
        assert_eq!(first.await.unwrap().unwrap(), Placed::Confirmed);
    }
}
