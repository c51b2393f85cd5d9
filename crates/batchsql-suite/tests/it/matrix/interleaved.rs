//! Upserts and deletes of the same keys from several tasks, through several lanes: content and outcomes are those of the
//! rows one after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, OutcomeKind, PipelineConfig, Schema};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Sqlite};
use batchsql_suite::database::TableSpec;
use batchsql_suite::digest::Canonical;

use super::servers::on;

const TASKS: i64 = 4;
const KEYS: i64 = 40;
const STEPS: i64 = 1_500;

/// What one task left of its keys, and how often it deleted a row that was there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effect {
    rows: BTreeMap<i64, i64>,
    deleted: u64,
}

/// Submits changes of the keys of one task; returns the expected effect, and the deletes that were written.
async fn change_keys(db: BatchSql, schema: Schema, task: i64) -> (Effect, u64) {
    let deletes = schema.deletion().unwrap();
    let (mut effect, mut receipts, mut random) = (Effect::default(), Vec::new(), task as u64 + 1);
    for step in 0..STEPS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Neighbouring keys share a lane, so these are far from each other.
        let key = ((random >> 33) as i64 % KEYS * TASKS + task) * 1_000;
        let is_delete = (random >> 60).is_multiple_of(3);
        let receipt = if is_delete {
            effect.deleted += u64::from(effect.rows.remove(&key).is_some());
            db.submit_tracked(&deletes.row().set("id", key).unwrap().finish().unwrap()).await.unwrap()
        } else {
            effect.rows.insert(key, step);
            let row = schema.row().set("id", key).unwrap().set("v", step).unwrap().finish().unwrap();
            db.submit_tracked(&row).await.unwrap()
        };
        receipts.push((is_delete, receipt));
    }
    db.flush().await.unwrap();
    let mut deleted = 0;
    for (is_delete, receipt) in receipts {
        let kind = receipt.await.kind();
        match (is_delete, kind) {
            (_, OutcomeKind::Superseded) | (true, OutcomeKind::Ignored) | (false, OutcomeKind::Written) => {}
            (true, OutcomeKind::Written) => deleted += 1,
            (_, kind) => panic!("task {task}: {kind:?}, delete: {is_delete}"),
        }
    }
    (effect, deleted)
}

async fn check(name: DatabaseName) {
    on(name, async |own| {
        let schema = Schema::builder("interleaved").column("id", ColumnType::I64).column("v", ColumnType::I64);
        let schema = schema.on_conflict(Conflict::update(["id"])).build().unwrap();
        own.database.create(&TableSpec::new(schema.clone(), &["id"])).await.unwrap();
        let config =
            PipelineConfig::default().max_concurrency(4).flush_size(25).flush_interval(Duration::from_millis(1));
        let db = BatchSql::builder(own.database.sink()).config(config).start().unwrap();
        let tasks: Vec<_> =
            (0..TASKS).map(|task| tokio::spawn(change_keys(db.clone(), schema.clone(), task))).collect();
        let mut expected = BTreeMap::new();
        for task in tasks {
            let (effect, deleted) = task.await.unwrap();
            assert_eq!(deleted, effect.deleted, "{name:?}");
            expected.extend(effect.rows);
        }
        let report = db.close(Duration::from_secs(60)).await;
        assert!(report.is_complete(), "{name:?}: {report:?}");
        let mut found = BTreeMap::new();
        let mut add = |values: &[Canonical<'_>]| match values {
            [Canonical::Int(id), Canonical::Int(v)] => {
                found.insert(i64::try_from(*id).unwrap(), i64::try_from(*v).unwrap());
            }
            other => panic!("{other:?}"),
        };
        own.database.read(&schema, &mut add).await.unwrap();
        assert_eq!(found, expected, "{name:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_order_of_upserts_and_deletes() {
    check(Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_order_of_upserts_and_deletes() {
    check(Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_keeps_the_order_of_upserts_and_deletes() {
    check(Mysql).await;
}
