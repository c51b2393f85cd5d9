//! Owns the rows of the service and the rate of their submission.
//! Must not know databases or metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use batchsql::{BatchSql, Row};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Result;

/// How often rows are submitted.
const TICK: Duration = Duration::from_millis(10);
/// Orders that are written again and again; equal keys in one batch end as superseded.
const ORDERS: u64 = 20_000;

#[derive(Row)]
#[row(table = "app_orders", key = "id", on_conflict = "update")]
pub(crate) struct Order {
    id: i64,
    customer: String,
    total_cents: i64,
    note: Option<&'static str>,
}

#[derive(Row)]
#[row(table = "app_events", key = "id", on_conflict = "ignore")]
pub(crate) struct Event {
    id: i64,
    kind: &'static str,
    body: Option<String>,
}

/// New and changed orders, until `stop` is set.
pub(crate) async fn orders(db: BatchSql, rows_per_second: f64, stop: watch::Receiver<bool>) -> Result<()> {
    submit_at(db, rows_per_second, stop, |count| {
        // Spread over all orders without a source of randomness; every eighth is one of a few that change all the time.
        let id = if count % 8 == 0 { count / 8 % 3 } else { count.wrapping_mul(7_919) % ORDERS };
        Order {
            id: id as i64,
            customer: format!("customer {}", id % 997),
            total_cents: (count % 100_000) as i64,
            note: (id % 5 == 0).then_some("gift"),
        }
    })
    .await
}

/// Events, each with a key of its own; every tenth comes twice, like messages that are delivered at least once.
pub(crate) async fn events(db: BatchSql, rows_per_second: f64, stop: watch::Receiver<bool>) -> Result<()> {
    // Keys that an earlier run has not used: microseconds since 1970, and at most a row per microsecond.
    let first = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
    submit_at(db, rows_per_second, stop, move |count| {
        let number = count as i64;
        let is_repeated = number % 10 == 9;
        Event {
            id: first + if is_repeated { number - 1 } else { number },
            kind: ["created", "paid", "sent"][(number % 3) as usize],
            body: (number % 4 != 0).then(|| format!("event {number}")),
        }
    })
    .await
}

/// Submits the row that `make` gives for each number. When the buffer is full, `submit` waits, and the rows that were
/// due meanwhile are skipped: a burst afterwards would only fill it again.
async fn submit_at<R: Row>(
    db: BatchSql,
    rows_per_second: f64,
    mut stop: watch::Receiver<bool>,
    make: impl Fn(u64) -> R,
) -> Result<()> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut due, mut last) = (0_u64, 0.0, Instant::now());
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = stop.changed() => return Ok(()),
            now = ticks.tick() => {
                due = f64::min(due + (now - last).as_secs_f64() * rows_per_second, rows_per_second / 10.0 + 1.0);
                last = now;
            }
        }
        while due >= 1.0 {
            let row = make(count);
            tokio::select! {
                // A submit that is cancelled here was not accepted.
                _ = stop.changed() => return Ok(()),
                accepted = db.submit(&row) => accepted?,
            }
            due -= 1.0;
            count += 1;
        }
    }
    Ok(())
}
