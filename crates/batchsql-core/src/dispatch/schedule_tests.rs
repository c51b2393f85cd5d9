//! The schedule without tasks that write.

use super::*;
use crate::config::PipelineConfig;
use crate::intake::table::OpenId;
use crate::model::schema::Schema;
use crate::model::value::ColumnType;

fn table(number: usize) -> Arc<Table> {
    let schema = Schema::builder(format!("t{number}")).column("id", ColumnType::I64).build().unwrap();
    Arc::new(Table::new(number, &schema, &PipelineConfig::default(), 4))
}

/// Due work for `lane` of `table`.
fn due(table: &Arc<Table>, lane: usize) -> (LaneId, Work) {
    let lane = LaneId { table: table.number(), lane };
    let batch = DueBatch { id: OpenId { lane, group: table.number() }, generation: 0, seals: 0 };
    (lane, Work::Due { table: Arc::clone(table), batch, taken: Arc::default() })
}

#[tokio::test]
async fn nothing_is_left_of_lanes_that_come_and_go() {
    let (table, now) = (table(0), Instant::now());
    let mut schedule = Schedule::new(1, Duration::from_secs(60));
    for _ in 0..1000 {
        let (lane, work) = due(&table, 0);
        schedule.enqueue(&table, lane, now, work);
        assert!(schedule.take_oldest(None).is_some());
    }
    assert!(schedule.ready.len() <= 1, "{} entries", schedule.ready.len());
    assert!(schedule.next_start(now).is_none());
    assert!(schedule.ready.is_empty() && schedule.lanes.is_empty() && !schedule.has_rows());
}

#[tokio::test]
async fn lanes_take_turns_and_permits_are_kept() {
    let tables = [table(0), table(1)];
    let now = Instant::now();
    let mut schedule = Schedule::new(3, Duration::from_secs(60));
    for table in [0, 0, 0, 1].map(|number| &tables[number]) {
        let (lane, work) = due(table, 0);
        schedule.enqueue(table, lane, now, work);
    }
    let mut started = Vec::new();
    while let Some((start, _)) = schedule.next_start(now) {
        started.push(start.table.number());
        let task = tokio::spawn(async {});
        schedule.started(task.id(), start, now);
        // The id of a task is its own for as long as its handle lives.
        std::mem::forget(task);
    }
    assert_eq!(started, [0, 1, 0], "three permits");
}
