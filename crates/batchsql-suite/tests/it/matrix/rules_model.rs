//! Owns the model of the rules that depend on the stored row: the rules, their tables, the situations, and what must be in
//! the table afterwards. Must not know pipelines or servers.

use std::collections::BTreeSet;

use batchsql::{ColumnType, Conflict, Expr, OutcomeKind, Schema};
use batchsql_suite::database::DatabaseName::{self, Mysql};

/// How the database finds the index of the key, and what its table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// By the columns of its primary key.
    Plain,
    /// The same; another unique index is over `v`.
    SecondIndex,
    /// By the name of the constraint.
    Constraint,
    /// By the condition of a partial index; rows with a `b` of 0 are not in it.
    Partial,
    /// A column of the key is `GENERATED ALWAYS`.
    Identity,
    /// By the columns of a unique index, one of which may be NULL.
    NullableKey,
}

pub(super) use Table::{Constraint, Identity, NullableKey, Partial, Plain, SecondIndex};

impl Table {
    /// The statements that make it; `{t}` is its name.
    pub(super) fn create(self) -> Vec<String> {
        let with = |a: &str, more: &str| {
            format!("CREATE TABLE {{t}} (a bigint {a}, b bigint NOT NULL, v bigint, w bigint{more})")
        };
        let key = ", PRIMARY KEY (a, b)";
        match self {
            Plain => vec![with("NOT NULL", key)],
            SecondIndex => vec![with("NOT NULL", key), "CREATE UNIQUE INDEX {t}_v ON {t} (v)".to_owned()],
            Constraint => vec![with("NOT NULL", ", CONSTRAINT {t}_k UNIQUE (b, a)")],
            Partial => {
                vec![with("NOT NULL", ""), "CREATE UNIQUE INDEX {t}_p ON {t} (a, b) WHERE b > 0".to_owned()]
            }
            Identity => vec![with("GENERATED ALWAYS AS IDENTITY", key)],
            NullableKey => vec![with("", ", UNIQUE (a, b)")],
        }
    }

    /// A schema for what is in the table before and after a batch: no rule, and every column may be NULL.
    pub(super) fn loose(self, table: &str) -> Schema {
        let schema =
            COLUMNS.iter().fold(Schema::builder(table), |schema, name| schema.nullable(*name, ColumnType::I64));
        let schema = if self == Identity { schema.overriding_system_value() } else { schema };
        schema.build().unwrap()
    }
}

/// A row: a key of two columns, a value and a version.
pub(super) type Cells = [Option<i64>; 4];

pub(super) const COLUMNS: [&str; 4] = ["a", "b", "v", "w"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Ignore,
    Replace,
    Update,
    Newer,
    NewerPartly,
    Add,
    AddAndKeep,
    Bounds,
    Keep,
    Greatest,
    Least,
    UnlessNull,
    Raw,
    NewerAndKeep,
    NewerAndGreatest,
    NewerAndLeast,
    UpdateOnly,
    UpdateOnlyNewer,
    UpdateOnlyAdd,
    Delete,
}

pub(super) use Rule::{
    Add, AddAndKeep, Bounds, Delete, Greatest, Ignore, Keep, Least, Newer, NewerAndGreatest, NewerAndKeep,
    NewerAndLeast, NewerPartly, Raw, Replace, UnlessNull, Update, UpdateOnly, UpdateOnlyAdd, UpdateOnlyNewer,
};

/// The rules that depend on the stored row.
pub(super) const RULES: [Rule; 17] = [
    Newer,
    NewerPartly,
    Add,
    AddAndKeep,
    Bounds,
    Keep,
    Greatest,
    Least,
    UnlessNull,
    Raw,
    NewerAndKeep,
    NewerAndGreatest,
    NewerAndLeast,
    UpdateOnly,
    UpdateOnlyNewer,
    UpdateOnlyAdd,
    Delete,
];

/// The other rules; another matrix has them in tables without targets.
pub(super) const BASIC_RULES: [Rule; 3] = [Ignore, Replace, Update];

impl Rule {
    fn conflict(self) -> Conflict {
        let update = || Conflict::update(["b", "a"]);
        let only = || Conflict::update_only(["b", "a"]);
        match self {
            Ignore => Conflict::ignore(["b", "a"]),
            Replace => Conflict::replace(["b", "a"]),
            Update => update(),
            Newer => update().only_if_newer("w"),
            // Column v is that of the row that was inserted: every version is sent.
            NewerPartly => Conflict::update_columns(["b", "a"], ["w"]).only_if_newer("w"),
            Add => Conflict::update_columns(["b", "a"], ["w"]).set("v", Expr::add()),
            AddAndKeep => update().set("v", Expr::add()).set("w", Expr::keep()),
            Bounds => update().set("v", Expr::least()).set("w", Expr::greatest()),
            Keep => update().set("v", Expr::keep()),
            Greatest => update().set("v", Expr::greatest()),
            Least => update().set("v", Expr::least()),
            NewerAndKeep => update().only_if_newer("w").set("v", Expr::keep()),
            NewerAndGreatest => update().only_if_newer("w").set("v", Expr::greatest()),
            NewerAndLeast => update().only_if_newer("w").set("v", Expr::least()),
            UnlessNull => update().set("v", Expr::unless_null()).set("w", Expr::unless_null()),
            Raw => update().set("v", Expr::raw("COALESCE({old}, 0) * 2 + COALESCE({new}, 0)")),
            UpdateOnly => only(),
            UpdateOnlyNewer => only().only_if_newer("w"),
            UpdateOnlyAdd => only().set("v", Expr::add()),
            Delete => Conflict::delete(["b", "a"]),
        }
    }

    pub(super) fn schema(self, table: &str) -> Schema {
        self.schema_of(Plain, table)
    }

    pub(super) fn schema_of(self, of: Table, table: &str) -> Schema {
        let key = Schema::builder(table).column("a", ColumnType::I64).column("b", ColumnType::I64);
        let schema = match self {
            Delete => key,
            _ => key.nullable("v", ColumnType::I64).nullable("w", ColumnType::I64),
        };
        let conflict = match of {
            Plain | SecondIndex | Identity | NullableKey => self.conflict(),
            Constraint => self.conflict().on_constraint(format!("{table}_k")),
            Partial => self.conflict().on_partial_index("b > 0"),
        };
        let schema = schema.on_conflict(conflict);
        let schema = if of == Identity { schema.overriding_system_value() } else { schema };
        schema.build().unwrap()
    }

    /// Whether a row whose key is not in the table becomes a row.
    fn inserts(self) -> bool {
        !matches!(self, UpdateOnly | UpdateOnlyNewer | UpdateOnlyAdd | Delete)
    }

    /// Whether it may name the index of its key.
    pub(super) fn has_target(self) -> bool {
        self.inserts()
    }

    /// What a row does to the table if `v` is unique: a duplicate is refused. MySQL, except with a version, takes the row with
    /// that `v` for the row with the key.
    fn apply_unique(self, name: DatabaseName, table: &mut Vec<Cells>, row: &Cells) -> OutcomeKind {
        let before = table.clone();
        let has_key = table.iter().any(|old| old[..2] == row[..2]);
        let meets = table.iter().find(|old| row[2].is_some() && old[2] == row[2]).copied();
        let mut row = *row;
        if let (Mysql, false, Some([a, b, ..])) = (name, has_key || !self.inserts() || self.is_newer(), meets) {
            [row[0], row[1]] = [a, b];
        }
        let is_changed = self.apply(table, &row);
        let values: Vec<i64> = table.iter().filter_map(|row| row[2]).collect();
        if values.iter().collect::<BTreeSet<_>>().len() < values.len() {
            *table = before;
            return OutcomeKind::Rejected;
        }
        kind(is_changed)
    }

    fn is_newer(self) -> bool {
        matches!(self, Newer | NewerPartly | NewerAndKeep | NewerAndGreatest | NewerAndLeast | UpdateOnlyNewer)
    }

    /// The table afterwards, and the outcome of each row, with a partial index: every row is sent, and one outside of the index
    /// conflicts with none.
    pub(super) fn expected_partial(self, before: &[Cells], batch: &[Cells]) -> (Vec<Cells>, Vec<OutcomeKind>) {
        let mut table = before.to_vec();
        let apply = |row: &Cells| {
            if row[1] > Some(0) {
                return kind(self.apply(&mut table, row));
            }
            table.push(*row);
            OutcomeKind::Written
        };
        let outcomes = batch.iter().map(apply).collect();
        (sorted(table), outcomes)
    }

    /// The table afterwards, and the outcome of each row, with another unique index over `v`.
    pub(super) fn expected_unique(
        self,
        name: DatabaseName,
        before: &[Cells],
        batch: &[Cells],
    ) -> (Vec<Cells>, Vec<OutcomeKind>) {
        let mut table = before.to_vec();
        let outcomes = batch.iter().map(|row| self.apply_unique(name, &mut table, row)).collect();
        (sorted(table), outcomes)
    }

    /// Applies a row to the table: whether it changed something.
    fn apply(self, table: &mut Vec<Cells>, row: &Cells) -> bool {
        let found = table.iter().position(|old| old[..2] == row[..2]);
        let Some(found) = found else {
            if self.inserts() {
                table.push(*row);
            }
            return self.inserts();
        };
        let [.., v, w] = &mut table[found];
        let [.., new_v, new_w] = *row;
        let sum = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (None, other) | (other, None) => other,
            (Some(a), Some(b)) => Some(a + b),
        };
        match self {
            Ignore => return false,
            // None is below every number.
            rule if rule.is_newer() && new_w <= *w => return false,
            Newer | UpdateOnlyNewer | UpdateOnly | Replace | Update => (*v, *w) = (new_v, new_w),
            Keep | NewerAndKeep => (*v, *w) = (v.or(new_v), new_w),
            Greatest | NewerAndGreatest => (*v, *w) = ((*v).max(new_v), new_w),
            Least | NewerAndLeast => (*v, *w) = ((*v).into_iter().chain(new_v).min(), new_w),
            NewerPartly => *w = new_w,
            Add | UpdateOnlyAdd => (*v, *w) = (sum(*v, new_v), new_w),
            AddAndKeep => (*v, *w) = (sum(*v, new_v), w.or(new_w)),
            Bounds => (*v, *w) = ((*v).into_iter().chain(new_v).min(), (*w).max(new_w)),
            UnlessNull => (*v, *w) = (new_v.or(*v), new_w.or(*w)),
            Raw => (*v, *w) = (Some(v.unwrap_or(0) * 2 + new_v.unwrap_or(0)), new_w),
            Delete => {
                table.remove(found);
            }
        }
        true
    }

    /// The table afterwards, and the outcome of each row.
    pub(super) fn expected(self, before: &[Cells], batch: &[Cells]) -> (Vec<Cells>, Vec<OutcomeKind>) {
        let mut table = before.to_vec();
        let same = |row: usize| (0..batch.len()).filter(move |other| batch[*other][..2] == batch[row][..2]);
        let mut outcomes = vec![None; batch.len()];
        for row in 0..batch.len() {
            if outcomes[row].is_some() {
                continue;
            }
            match self {
                // The content is that of all rows one after the other.
                Ignore | NewerPartly | Raw | Add | AddAndKeep | Bounds | Keep | Greatest | Least | UnlessNull
                | NewerAndKeep | NewerAndGreatest | NewerAndLeast | UpdateOnlyAdd => {
                    outcomes[row] = Some(kind(self.apply(&mut table, &batch[row])));
                }
                // One row of each key is sent.
                Replace | Update | Newer | UpdateOnlyNewer | UpdateOnly | Delete => {
                    let is_versioned = matches!(self, Newer | UpdateOnlyNewer);
                    let version = |other: &usize| if is_versioned { batch[*other][3] } else { None };
                    let newest = same(row).map(|other| version(&other)).max().unwrap();
                    let mut newest_rows = same(row).filter(|other| version(other) == newest);
                    let winner = if is_versioned { newest_rows.next() } else { newest_rows.next_back() }.unwrap();
                    let of_winner = kind(self.apply(&mut table, &batch[winner]));
                    for other in same(row) {
                        outcomes[other] = Some(match of_winner {
                            OutcomeKind::Written if other < winner => OutcomeKind::Superseded,
                            OutcomeKind::Written if other > winner => OutcomeKind::Ignored,
                            of_winner => of_winner,
                        });
                    }
                }
            }
        }
        (sorted(table), outcomes.into_iter().flatten().collect())
    }
}

fn kind(is_changed: bool) -> OutcomeKind {
    if is_changed { OutcomeKind::Written } else { OutcomeKind::Ignored }
}

pub(super) fn situations() -> Vec<(&'static str, Vec<Cells>)> {
    let row = |a, b, v, w| [Some(a), Some(b), Some(v), Some(w)];
    let no_v = |a, b, w| [Some(a), Some(b), None, Some(w)];
    let no_w = |a, b, v| [Some(a), Some(b), Some(v), None];
    vec![
        ("no conflict", vec![row(2, 1, 20, 5), row(3, 1, 30, 5)]),
        ("conflict with the table", vec![row(3, 1, 30, 5), row(1, 1, 11, 6), row(1, 2, 21, 4), row(1, 3, 31, 5)]),
        ("conflict inside the batch", vec![row(2, 1, 20, 5), row(3, 1, 30, 5), row(2, 1, 21, 7), row(2, 1, 22, 6)]),
        ("equal versions", vec![row(2, 1, 20, 5), row(2, 1, 21, 5), row(1, 1, 11, 5), row(1, 1, 12, 5)]),
        ("conflict with both", vec![row(1, 1, 11, 7), row(2, 1, 20, 5), row(1, 1, 12, 6), row(2, 1, 21, 6)]),
        ("older rows after newer ones", vec![row(1, 1, 1, 9), row(1, 1, 2, 8), row(1, 1, 3, 4), row(2, 1, 1, 1)]),
        ("NULL submitted", vec![no_v(1, 1, 6), no_w(1, 2, 21), no_w(2, 1, 20), no_v(2, 1, 5), no_w(2, 1, 22)]),
        ("NULL stored", vec![row(4, 1, 41, 1), no_w(4, 2, 42), row(4, 3, 43, 5), row(4, 1, 42, 2)]),
    ]
}

/// Rows in one order, also equal ones.
pub(super) fn sorted(rows: impl IntoIterator<Item = Cells>) -> Vec<Cells> {
    let mut rows: Vec<Cells> = rows.into_iter().collect();
    rows.sort_unstable();
    rows
}

/// The rows in the table.
pub(super) fn before() -> Vec<Cells> {
    let row = |a, b, v, w| [Some(a), Some(b), v, w];
    vec![
        row(1, 1, Some(10), Some(5)),
        row(1, 2, Some(20), Some(5)),
        row(1, 3, Some(30), Some(5)),
        row(4, 1, Some(40), None),
        row(4, 2, Some(40), None),
        row(4, 3, None, Some(5)),
    ]
}

/// Rows whose key is NULL in one column; they conflict with no row.
pub(super) fn stored_null_keys() -> Vec<Cells> {
    let row = |v, w| [None, Some(1), v, w];
    vec![row(Some(60), Some(1)), row(Some(61), None), row(None, Some(9))]
}

/// Rows that the partial index does not have: stored ones, and a situation with such rows, some of them equal.
pub(super) fn outside_of_index() -> (Vec<Cells>, Vec<(&'static str, Vec<Cells>)>) {
    let row = |a, b, v, w| [Some(a), Some(b), Some(v), Some(w)];
    let outside = vec![row(1, 0, 11, 6), row(1, 1, 12, 6), row(2, 0, 20, 5), row(2, 0, 21, 4), row(2, 0, 20, 5)];
    (vec![row(1, 0, 10, 5), row(3, 0, 30, 5)], vec![("rows outside of the index", outside)])
}

/// Stored rows and a batch.
pub(super) type Start = (Vec<Cells>, Vec<Cells>);

/// Of a table with a second unique index, over `v`: a new row, a new row with a `v` of the table, and a row whose key and `v`
/// are those of two stored rows.
pub(super) fn second_index() -> Start {
    let row = |a, b, v, w| [Some(a), Some(b), Some(v), Some(w)];
    (vec![row(1, 1, 10, 5), row(1, 2, 20, 5)], vec![row(3, 1, 31, 5), row(2, 1, 20, 5), row(1, 1, 20, 9)])
}

/// The same with rows that have no `v`, which conflict with no row by it.
pub(super) fn second_index_null() -> Start {
    let row = |a, b, v, w| [Some(a), Some(b), v, Some(w)];
    let before = vec![row(1, 1, Some(10), 5), row(1, 2, None, 5), row(1, 3, None, 5)];
    (before, vec![row(1, 1, None, 6), row(1, 2, None, 7), row(2, 1, None, 5), row(3, 1, None, 5)])
}

/// The same with two rows of the table, and two new rows, that get one `v`.
pub(super) fn second_index_in_batch() -> Start {
    let row = |a, b, v, w| [Some(a), Some(b), Some(v), Some(w)];
    let before = vec![row(1, 1, 10, 5), row(2, 1, 20, 5)];
    (before, vec![row(1, 1, 77, 9), row(2, 1, 77, 9), row(3, 1, 88, 5), row(4, 1, 88, 5)])
}
