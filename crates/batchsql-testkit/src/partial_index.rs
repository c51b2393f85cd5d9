//! Owns the cases of rules whose index is partial: rows outside of it never conflict, also not with each other. For tests of
//! drivers.
//! Must not know databases.

use batchsql_core::{ColumnType, Conflict, Expr, Schema, SchemaBuilder};

/// A row of the table `t`: `id`, `gone` (not 0: it is outside of the index), `n` (a number), `v` (a version).
pub type Cells = [i64; 4];

/// The condition of the index, which is unique and has the column `id`.
pub const INSIDE: &str = "gone = 0";

/// What the table has before a batch.
pub const STORED: [&[Cells]; 3] = [&[], &[[1, 0, 4000, 6]], &[[1, 0, 4000, 6], [1, 1, 4000, 6]]];

/// The schema of the table, without a rule.
pub fn schema() -> SchemaBuilder {
    let columns = ["id", "gone", "n", "v"];
    columns.into_iter().fold(Schema::builder("t"), |schema, name| schema.column(name, ColumnType::I64))
}

/// Each kind of rule, before [`Conflict::on_partial_index`].
pub fn rules() -> [Conflict; 6] {
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

/// Three rows of a key, each inside or outside of the index, and a row of another key.
pub fn batches() -> impl Iterator<Item = Vec<Cells>> {
    (0..8).map(|bits: i64| {
        let row = |place: usize| [1, (bits >> place) & 1, [1, 20, 300][place], [5, 7, 6][place]];
        (0..3).map(row).chain([[2, 0, 4, 4]]).collect()
    })
}

/// What the rows one after the other leave of a table, in order, and the name of the outcome of each. `rule` is one of
/// [`rules`].
pub fn expected(rule: &Conflict, before: &[Cells], batch: &[Cells]) -> (Vec<Cells>, Vec<&'static str>) {
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
