//! Owns the check whether a database compares versions of a type as it stores them. For tests of drivers.
//! Must not know any database.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, Schema, Sink, Value};

use crate::batch::{outcomes_of, receipts_of};

/// Checks rows of one key with the rule `only_if_newer`: with NULL, with an older and with a newer version than the stored one.
///
/// The table `t` is empty; it has the key `id`, a 64-bit integer, and the column `v` of the type that is checked. `versions` are
/// one that is older than the stored one, the stored one, and a newer one. The text `what` is in the message of a failure.
///
/// # Panics
/// When an outcome is another one.
pub async fn check_versions<S: Sink + Clone>(sink: &S, column: ColumnType, versions: [Value; 3], what: &str) {
    let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("v", column);
    let schema = schema.on_conflict(Conflict::update(["id"]).only_if_newer("v")).build().expect("the rule is valid");
    let db = BatchSql::builder(sink.clone()).start().expect("the default settings are valid");
    let [older, stored, newer] = versions;
    for (version, expected) in [
        (&Value::Null, "written"),
        (&Value::Null, "ignored"),
        (&stored, "written"),
        (&older, "ignored"),
        (&stored, "ignored"),
        (&Value::Null, "ignored"),
        (&newer, "written"),
        (&stored, "ignored"),
    ] {
        let row = schema.row().set_all([1_i64.into(), version.clone()]).expect("the columns are those of the schema");
        let receipts = receipts_of(&db, [row.finish().expect("each column has a value")]).await;
        db.flush().await.expect("the pipeline is open");
        let outcomes = outcomes_of(receipts).await;
        assert_eq!(outcomes[0].kind().name(), expected, "{what} {version:?}");
    }
    db.close(Duration::from_secs(60)).await;
}
