//! Rules whose index is partial: rows outside of it never conflict, also not with each other.

use batchsql_core::{Conflict, Schema};
use batchsql_testkit::partial_index::{self, Cells, INSIDE, STORED, batches, expected, rules};

use crate::support::{memory, read, write};

const TABLE: &str = "CREATE TABLE t (id INTEGER, gone INTEGER, n INTEGER, v INTEGER);
                     CREATE UNIQUE INDEX i ON t (id) WHERE gone = 0";

#[tokio::test]
async fn rows_outside_of_a_partial_index_stay_rows_of_their_own() {
    let schema = |rule: Conflict| partial_index::schema().on_conflict(rule).build().unwrap();
    let plain = schema(Conflict::none());
    for rule in rules() {
        let ruled = schema(rule.clone().on_partial_index(INSIDE));
        for batch in batches() {
            for before in STORED {
                let sink = memory(TABLE).await;
                let rows = |schema: &Schema, rows: &[Cells]| {
                    let row = |cells: &Cells| schema.row().set_all(cells.map(Into::into)).unwrap().finish().unwrap();
                    rows.iter().map(row).collect::<Vec<_>>()
                };
                write(&sink, rows(&plain, before)).await;
                let found = write(&sink, rows(&ruled, &batch)).await;
                let (content, expected) = expected(&rule, before, &batch);
                let content: Vec<String> =
                    content.iter().map(|[id, gone, n, v]| format!("{id}|{gone}|{n}|{v}")).collect();
                let shown = format!("{rule:?}: {batch:?} into {before:?}");
                assert_eq!(read(&sink, "SELECT id, gone, n, v FROM t ORDER BY 1, 2, 3, 4").await, content, "{shown}");
                assert_eq!(found, expected, "{shown}");
            }
        }
    }
}
