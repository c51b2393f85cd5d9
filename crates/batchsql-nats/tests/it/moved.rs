//! A person has changed a position in the database, which the guide forbids: messages that are not written are not passed over, at
//! no start.

use batchsql_core::StopReason;
use batchsql_nats::Worker;

use crate::support::{LIMIT, Target, context, plain, publish, stream, until};

/// A message further.
const AHEAD: &str = "UPDATE batchsql_positions SET sequence = sequence + 1048576 WHERE sequence > 0";
const BACK: &str = "UPDATE batchsql_positions SET sequence = moved_to WHERE sequence > 0";

async fn refused(worker: Worker) {
    until("it has stopped", async || !worker.stats().stopped.is_empty()).await;
    let stopped = worker.stats().stopped.remove(0);
    assert_eq!(stopped.kind, Some(StopReason::Position), "{stopped}");
    let advice = ["it was changed from outside", "set it back to 10", "with WorkerOptions::accept_gaps"];
    assert!(advice.iter().all(|part| stopped.reason.contains(part)), "{stopped}");
    worker.close(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_was_moved_ahead_passes_no_message_over() {
    for (is_running, accepts) in [(false, false), (true, false), (false, true)] {
        let (context, stream, target) = (context().await, stream(1), Target::new().await);
        stream.create(&context).await.unwrap();
        let options = || target.options(&stream).exactly_once();
        let worker = target.worker(&context, options()).await;
        publish(&context, &stream, &plain("plain"), 0..5).await;
        target.has("plain", &[0, 1, 2, 3, 4]).await;
        until("it is settled", async || worker.stats().unsettled() == 0).await;
        if is_running {
            target.execute(AHEAD).await;
            publish(&context, &stream, &plain("plain"), 5..8).await;
            until("it has stopped", async || !worker.stats().stopped.is_empty()).await;
            let reason = worker.stats().stopped.remove(0).reason;
            assert!(reason.contains("changed from outside"), "{reason}");
            worker.close(LIMIT).await;
        } else {
            worker.close(LIMIT).await;
            target.execute(AHEAD).await;
            publish(&context, &stream, &plain("plain"), 5..8).await;
        }
        publish(&context, &stream, &plain("plain"), 8..10).await;
        for _ in 0..2 {
            refused(target.worker(&context, options()).await).await;
        }
        if accepts {
            let worker = target.worker(&context, options().accept_gaps(true)).await;
            target.has("plain", &[0, 1, 2, 3, 4, 8, 9]).await;
            assert_eq!(worker.stats().counts.missing, 1, "at least one row");
            worker.close(LIMIT).await;
            publish(&context, &stream, &plain("plain"), 10..11).await;
            let worker = target.worker(&context, options()).await;
            target.has("plain", &[0, 1, 2, 3, 4, 8, 9, 10]).await;
            worker.close(LIMIT).await;
        } else {
            target.execute(BACK).await;
            let worker = target.worker(&context, options()).await;
            target.has("plain", &(0..10).collect::<Vec<_>>()).await;
            worker.close(LIMIT).await;
        }
    }
}
