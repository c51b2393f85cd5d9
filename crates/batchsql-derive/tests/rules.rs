//! The conflict rule of a derived row is the one that is built by hand.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "only the schemas of the rows are looked at")]

use std::panic::catch_unwind;

use batchsql_core::{ColumnType, Conflict, Expr, Row as _, Schema, SchemaBuilder, TypedRow};
use batchsql_derive::{Row, RowColumns};

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", only_if_newer = "version")]
#[row(now("changed_at", "seen_at"))]
struct Newest {
    id: i64,
    version: i64,
    #[row(least)]
    first: i64,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", may_add_twice, update("plain", "a"))]
struct Expressions {
    id: i64,
    #[row(add)]
    a: i64,
    #[row(keep)]
    b: i64,
    #[row(unless_null)]
    c: Option<i64>,
    #[row(greatest)]
    d: i64,
    #[row(least)]
    e: i64,
    #[row(now)]
    f: i64,
    #[row(raw = "{old} * 2 + {new.a}", rename = "G")]
    g: i64,
    plain: i64,
    inserted: i64,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update_only", only_if_newer = "version")]
struct UpdateOnly {
    id: i64,
    version: i64,
    #[row(skip_none)]
    note: Option<i64>,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update_only", now = "changed_at")]
struct Patch {
    id: i64,
    #[row(skip_none)]
    note: Option<i64>,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key("id", "version"), on_conflict = "delete")]
struct Gone {
    id: i64,
    version: i64,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "ignore", on_constraint = "t_id_key")]
#[row(overriding_system_value)]
struct Constraint {
    id: i64,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "replace", on_partial_index = "NOT gone")]
struct Partial {
    id: i64,
}

#[derive(RowColumns)]
#[row(crate = "batchsql_core")]
struct Audit {
    #[row(keep)]
    created_by: i64,
    version: i64,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", only_if_newer = "version")]
struct Audited {
    id: i64,
    #[row(flatten)]
    audit: Audit,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "ignore")]
struct Logged {
    id: i64,
    #[row(flatten)]
    audit: Audit,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", returning("id": i64, "made at": Option<String>))]
struct Generated {
    a: i64,
    #[row(skip_none)]
    b: Option<i64>,
}

#[test]
fn returned_columns_have_their_types_and_stay_when_columns_are_left_out() {
    let schema = |names: &[&str]| {
        columns(names).returning("id", ColumnType::I64).returning("made at", ColumnType::Text).build().unwrap()
    };
    assert_eq!(Generated::type_schema(), &schema(&["a", "b?"]));
    let row = Generated { a: 1, b: None };
    let names: Vec<&str> = batchsql_core::Row::schema(&row).returning().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["id", "made at"]);
}

fn columns(names: &[&str]) -> SchemaBuilder {
    names.iter().fold(Schema::builder("t"), |schema, name| match name.strip_suffix('?') {
        Some(name) => schema.nullable(name, ColumnType::I64),
        None => schema.column(*name, ColumnType::I64),
    })
}

#[test]
fn the_attributes_are_the_functions_of_the_rule() {
    let check = |derived: &Schema, names: &[&str], rule: Conflict| {
        assert_eq!(derived, &columns(names).on_conflict(rule).build().unwrap());
    };
    let newest = Conflict::update(["id"]).only_if_newer("version");
    let now = |rule: Conflict| rule.set("changed_at", Expr::now()).set("seen_at", Expr::now());
    check(Newest::type_schema(), &["id", "version", "first"], now(newest.clone()).set("first", Expr::least()));
    let expressions = Conflict::update_columns(["id"], ["plain", "a"])
        .may_add_twice()
        .set("a", Expr::add())
        .set("b", Expr::keep())
        .set("c", Expr::unless_null())
        .set("d", Expr::greatest())
        .set("e", Expr::least())
        .set("f", Expr::now())
        .set("G", Expr::raw("{old} * 2 + {new.a}"));
    check(Expressions::type_schema(), &["id", "a", "b", "c?", "d", "e", "f", "G", "plain", "inserted"], expressions);
    let update_only = Conflict::update_only(["id"]);
    check(UpdateOnly::type_schema(), &["id", "version", "note?"], update_only.clone().only_if_newer("version"));
    check(Patch::type_schema(), &["id", "note?"], update_only.set("changed_at", Expr::now()));
    check(Partial::type_schema(), &["id"], Conflict::replace(["id"]).on_partial_index("NOT gone"));
    check(Gone::type_schema(), &["id", "version"], Conflict::delete(["id", "version"]));
    let audited = ["id", "created_by", "version"];
    check(Audited::type_schema(), &audited, newest.set("created_by", Expr::keep()));
    check(Logged::type_schema(), &audited, Conflict::ignore(["id"]));

    let constraint = columns(&["id"]).on_conflict(Conflict::ignore(["id"]).on_constraint("t_id_key"));
    assert_eq!(Constraint::type_schema(), &constraint.overriding_system_value().build().unwrap());
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update")]
struct Generic<'a, T: batchsql_core::Encode> {
    id: i64,
    #[row(add)]
    sum: T,
    #[row(greatest, with = doubled)]
    last: &'a i64,
}

fn doubled(number: &&i64) -> i64 {
    2 * **number
}

/// Types that are parameters are checked where the row is used.
#[test]
fn expressions_fit_parameters() {
    let rule = Conflict::update(["id"]).set("sum", Expr::add()).set("last", Expr::greatest());
    let expected = Schema::builder("t").column("id", ColumnType::I64).column("sum", ColumnType::F64);
    let expected = expected.column("last", ColumnType::I64).on_conflict(rule).build().unwrap();
    assert_eq!(Generic::<f64>::type_schema(), &expected);
    assert_eq!(Generic { id: 1, sum: 1.5, last: &3 }.key_hash(), Generic { id: 1, sum: 2.5, last: &4 }.key_hash());
}

#[derive(RowColumns)]
#[row(crate = "batchsql_core")]
struct Optional {
    #[row(skip_none)]
    version: Option<i64>,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update", only_if_newer = "version")]
struct NoVersion {
    id: i64,
    #[row(flatten)]
    optional: Optional,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update")]
struct RawOfOptional {
    id: i64,
    #[row(raw = "{old} + {new.other}")]
    sum: i64,
    #[row(default)]
    other: i64,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "id", on_conflict = "update_only")]
struct NothingToUpdate {
    id: i64,
    #[row(flatten)]
    optional: Optional,
}

/// What only types and flattened fields show: the first use says it, and not a row of many that leaves a column out.
#[test]
fn a_rule_that_does_not_fit_its_columns_is_found_at_the_first_use() {
    let check = |schema: fn() -> &'static Schema, part: &str| {
        let panic = catch_unwind(schema).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    };
    check(NoVersion::type_schema, "the row leaves out \"version\"");
    check(RawOfOptional::type_schema, "needs the submitted value of \"other\", which the row does not carry");
    check(NothingToUpdate::type_schema, "the rule updates no column");
}
