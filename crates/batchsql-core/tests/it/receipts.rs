//! What a receipt gives to its owner.

use std::time::Duration;

use batchsql_testkit::Step;
use tokio::time::Instant;

use crate::support::{config, pipeline, plain, row};

#[tokio::test(start_paused = true)]
async fn a_receipt_comes_back_when_its_time_is_over_and_still_gets_the_outcome() {
    let (db, sink) = pipeline(config().flush_size(1));
    sink.script([Step::Hang]);
    let receipt = db.submit_tracked(&row(&plain(), 1)).await.unwrap();
    let begin = Instant::now();
    let receipt = receipt.with_timeout(Duration::from_secs(2)).await.expect_err("the row is not written yet");
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
    let receipt = receipt.with_timeout(Duration::ZERO).await.unwrap_err();
    sink.release(1);
    assert!(receipt.with_timeout(Duration::MAX).await.unwrap().is_written());

    let receipt = db.submit_tracked(&row(&plain(), 2)).await.unwrap();
    db.flush().await.unwrap();
    assert!(receipt.with_timeout(Duration::ZERO).await.unwrap().is_written(), "a known outcome needs no time");
}
