//! Rules whose index is partial: rows outside of it never conflict, also not with each other.

use batchsql_core::{ColumnType, Conflict, Expr, Schema};

use crate::support::{memory, read, write};

const TABLE: &str = "CREATE TABLE t (id INTEGER, gone INTEGER, n INTEGER, v INTEGER);
                     CREATE UNIQUE INDEX i ON t (id) WHERE gone = 0";

/// The condition of the index.
const INSIDE: &str = "gone = 0";

/// A row: a key, whether it is outside of the index, a number, a version.
type Cells = [i64; 4];

fn rules() -> [Conflict; 6] {
    let update = || Conflict::update(["id"]);
    [
        update(),
        Conflict::update_columns(["id"], ["n"]),
        update().only_if_newer("v"),
        update().set("n", Expr::add()),
        Conflict::replace(["id"]),
        Conflict::ignore(["id"]),
    ]
}

/// What the rows one after the other leave of a table, and the outcome of each.
fn expected(rule: &Conflict, before: &[Cells], batch: &[Cells]) -> (Vec<Cells>, Vec<&'static str>) {
    let mut table = before.to_vec();
    let mut apply = |row: &Cells| {
        let stored = table.iter_mut().find(|old| (old[0], old[1], row[1]) == (row[0], 0, 0));
        let Some(stored) = stored else {
            table.push(*row);
            return "written";
        };
        *stored = match rules().iter().position(|known| known == rule) {
            Some(0 | 4) => *row,
            Some(1) => [stored[0], stored[1], row[2], stored[3]],
            Some(2) if row[3] > stored[3] => *row,
            Some(3) => [row[0], row[1], stored[2] + row[2], row[3]],
            _ => return "ignored",
        };
        "written"
    };
    let outcomes = batch.iter().map(&mut apply).collect();
    table.sort_unstable();
    (table, outcomes)
}

/// Three rows of a key, each inside or outside of the index, and a row of another key.
fn batches() -> impl Iterator<Item = Vec<Cells>> {
    (0..8).map(|bits: i64| {
        let row = |place: usize| [1, (bits >> place) & 1, [1, 20, 300][place], [5, 7, 6][place]];
        (0..3).map(row).chain([[2, 0, 4, 4]]).collect()
    })
}

#[tokio::test]
async fn rows_outside_of_a_partial_index_stay_rows_of_their_own() {
    let schema = |rule: Conflict| {
        let schema = ["id", "gone", "n", "v"]
            .iter()
            .fold(Schema::builder("t"), |schema, name| schema.column(*name, ColumnType::I64));
        schema.on_conflict(rule).build().unwrap()
    };
    let plain = schema(Conflict::none());
    for rule in rules() {
        let ruled = schema(rule.clone().on_partial_index(INSIDE));
        for batch in batches() {
            for before in [&[][..], &[[1, 0, 4000, 6]], &[[1, 0, 4000, 6], [1, 1, 4000, 6]]] {
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
