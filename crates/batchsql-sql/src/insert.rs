//! Owns the text of statements of many rows for PostgreSQL and SQLite: inserts with their conflict clauses, updates
//! without insert, deletes.
//! Must not know connections, values or limits.

use batchsql_core::{Action, Schema, Target};

use crate::dialect::{Dialect, NEW, Names, OLD, assignments, guard, operator};
use crate::ident::{quote, quote_table};

/// A statement of `rows` rows for SQLite with one placeholder `?` per value, row by row: what the rule of the schema
/// does.
///
/// # Panics
/// When `rows` is 0.
pub fn insert(schema: &Schema, rows: usize) -> String {
    assert!(rows > 0, "a statement has at least one row");
    let row = vec!["?"; schema.columns().len()].join(",");
    let rows = format!("VALUES {}", vec![format!("({row})"); rows].join(","));
    let returning = match schema.returning() {
        [] => String::new(),
        columns => {
            let columns: Vec<String> = columns.iter().map(|column| quote(column.name())).collect();
            format!(" RETURNING {}", columns.join(","))
        }
    };
    let statement = match schema.action() {
        Action::Insert | Action::Ignore | Action::Replace | Action::Update => {
            insert_rows(schema, &rows, Dialect::Sqlite, &|_| false)
        }
        Action::UpdateOnly => {
            let columns: Vec<String> = (0..schema.columns().len()).map(|index| format!("c{index}")).collect();
            let update = update(schema, Dialect::Sqlite, NEW, |_| String::new());
            format!("WITH {NEW}({}) AS ({rows}) {update}", columns.join(","))
        }
        Action::Delete => {
            let columns: Vec<String> = schema.columns().iter().map(|column| quote(column.name())).collect();
            let columns = columns.join(",");
            format!("DELETE FROM {} WHERE ({columns}) IN ({rows})", quote_table(schema.table()))
        }
    };
    statement + &returning
}

/// A statement of the rows that `source` returns, in the order of the schema's columns, for PostgreSQL: what the rule of
/// the schema does. `source` is `VALUES …` or `SELECT …`; `cast` returns what follows a key column of it, so that it is
/// compared as the column of the table is, for example `::citext`. Values of types of `pg_catalog` are compared and added by its
/// operators, whatever the search path is.
pub fn statement_from(schema: &Schema, source: &str, cast: impl Fn(usize) -> String) -> String {
    let rows = || rows_of(schema, source);
    match schema.action() {
        Action::Insert | Action::Ignore | Action::Replace | Action::Update => {
            insert_rows(schema, source, Dialect::Postgres, &|index| is_built_in(&cast(index)))
        }
        Action::UpdateOnly => update(schema, Dialect::Postgres, &rows(), cast),
        Action::Delete => {
            let (table, condition) = (quote_table(schema.table()), same_key(schema, cast));
            format!("DELETE FROM {table} AS {OLD} USING {} WHERE {condition}", rows())
        }
    }
}

/// The query that counts the pairs of a stored row and a row of `source` of which an update without insert or a delete changes the
/// stored one, for PostgreSQL. There are more of them than changed rows if two rows of `source` have one key to the server.
pub fn count_found(schema: &Schema, source: &str, cast: impl Fn(usize) -> String) -> String {
    let (old, new) = (|name: &str| format!("{OLD}.{name}"), |index, _: &str| format!("{NEW}.c{index}"));
    let of_type = |index| is_built_in(&cast(index));
    let (dialect, is_built_in) = (Dialect::Postgres, &of_type);
    let names = Names { dialect, quote, old: &old, new: &new, is_built_in, guards_values: false };
    let condition = guard(schema, &names).map_or(String::new(), |guard| format!(" AND {guard}"));
    let (table, key) = (quote_table(schema.table()), same_key(schema, &cast));
    format!("SELECT pg_catalog.count(*) FROM {table} AS {OLD},{} WHERE {key}{condition}", rows_of(schema, source))
}

/// The rows of a source under the name [`NEW`]. Columns behind those of the schema keep their names.
fn rows_of(schema: &Schema, source: &str) -> String {
    let columns: Vec<String> = (0..schema.columns().len()).map(|index| format!("c{index}")).collect();
    format!("({source}) AS {NEW}({})", columns.join(","))
}

fn insert_rows(schema: &Schema, source: &str, dialect: Dialect, is_built_in: &dyn Fn(usize) -> bool) -> String {
    let columns: Vec<String> = schema.columns().iter().map(|column| quote(column.name())).collect();
    let (table, clause) = (quote_table(schema.table()), conflict_clause(schema, &columns, dialect, is_built_in));
    let is_plain = schema.only_overwrites() && schema.version_column().is_none();
    // In PostgreSQL a table of this name is not distinct from the submitted row. Returned columns have the alias in any case.
    let is_named = schema.table().name() == "excluded" || !schema.returning().is_empty();
    let needs_alias = stored_row(schema) == OLD && (!is_plain || (is_named && dialect == Dialect::Postgres));
    let alias = if !needs_alias { String::new() } else { format!(" AS {OLD}") };
    let overriding = match dialect {
        Dialect::Postgres if schema.overrides_identity() => " OVERRIDING SYSTEM VALUE",
        _ => "",
    };
    format!("INSERT INTO {table}{alias} ({}){overriding} {source}{clause}", columns.join(","))
}

/// The name of the stored row in an insert, also in its `RETURNING` for PostgreSQL. The condition of a partial index may name the
/// table, which an alias would hide.
pub fn stored_row(schema: &Schema) -> String {
    let inserts = !matches!(schema.action(), Action::UpdateOnly | Action::Delete);
    let is_partial = inserts && matches!(schema.target(), Target::Partial(_));
    if is_partial && schema.table().name() != "excluded" { quote(schema.table().name()) } else { OLD.to_owned() }
}

/// The clause with its leading space; empty for a plain insert.
fn conflict_clause(
    schema: &Schema,
    quoted: &[String],
    dialect: Dialect,
    is_built_in: &dyn Fn(usize) -> bool,
) -> String {
    if schema.action() == Action::Insert {
        return String::new();
    }
    let key: Vec<&str> = schema.key_columns().iter().map(|i| quoted[*i].as_str()).collect();
    let target = match schema.target() {
        Target::Key => format!("({})", key.join(",")),
        Target::Partial(condition) => format!("({}) WHERE {condition}", key.join(",")),
        Target::Constraint(name) => format!("ON CONSTRAINT {}", quote(name)),
    };
    if schema.ignores_existing() {
        return format!(" ON CONFLICT {target} DO NOTHING");
    }
    let stored = stored_row(schema);
    let (old, new) = (|name: &str| format!("{stored}.{name}"), |_, name: &str| format!("excluded.{name}"));
    let names = Names { dialect, quote, old: &old, new: &new, is_built_in, guards_values: false };
    let condition = guard(schema, &names).map_or(String::new(), |guard| format!(" WHERE {guard}"));
    let assignments = assignments(schema, schema.assignments(), &names);
    format!(" ON CONFLICT {target} DO UPDATE SET {}{condition}", assignments.join(","))
}

fn update(schema: &Schema, dialect: Dialect, rows: &str, cast: impl Fn(usize) -> String) -> String {
    let (old, new) = (|name: &str| format!("{OLD}.{name}"), |index, _: &str| format!("{NEW}.c{index}"));
    let of_type = |index| dialect == Dialect::Postgres && is_built_in(&cast(index));
    let names = Names { dialect, quote, old: &old, new: &new, is_built_in: &of_type, guards_values: false };
    let condition = guard(schema, &names).map_or(String::new(), |guard| format!(" AND {guard}"));
    let (table, key) = (quote_table(schema.table()), same_key(schema, &cast));
    let assignments = assignments(schema, schema.assignments(), &names);
    format!("UPDATE {table} AS {OLD} SET {} FROM {rows} WHERE {key}{condition}", assignments.join(","))
}

/// Whether a cast is to a type of `pg_catalog`.
fn is_built_in(cast: &str) -> bool {
    cast.starts_with("::\"pg_catalog\".")
}

/// The condition that a stored row has the key of a submitted one.
fn same_key(schema: &Schema, cast: impl Fn(usize) -> String) -> String {
    let equal = |index: &usize| {
        let (name, cast) = (quote(schema.columns()[*index].name()), cast(*index));
        let equals = operator("=", is_built_in(&cast));
        format!("{OLD}.{name}{equals}{NEW}.c{index}{cast}")
    };
    schema.key_columns().iter().map(equal).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use batchsql_core::{ColumnType, Conflict, Expr, TableName};

    fn sql(conflict: Conflict, rows: usize) -> String {
        insert(&schema(conflict), rows)
    }

    fn schema(conflict: Conflict) -> Schema {
        Schema::builder(TableName::qualified("main", "t"))
            .column("a", ColumnType::I64)
            .column("b", ColumnType::I64)
            .nullable("c \"c\"", ColumnType::Text)
            .on_conflict(conflict)
            .build()
            .unwrap()
    }

    #[test]
    fn rows_come_from_any_source() {
        insta::assert_snapshot!(statement_from(&schema(Conflict::ignore(["a"])), "SELECT * FROM s", |_| String::new()), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") SELECT * FROM s ON CONFLICT ("a") DO NOTHING"#);
    }

    #[test]
    fn each_conflict_rule_has_its_clause() {
        let none: [&str; 0] = [];
        insta::assert_snapshot!(sql(Conflict::none(), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?)"#);
        insta::assert_snapshot!(sql(Conflict::ignore(["a"]), 2), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?),(?,?,?) ON CONFLICT ("a") DO NOTHING"#);
        insta::assert_snapshot!(sql(Conflict::replace(["b", "a"]), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("b","a") DO UPDATE SET "c ""c"""=excluded."c ""c""""#);
        insta::assert_snapshot!(sql(Conflict::update(["a"]), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("a") DO UPDATE SET "b"=excluded."b","c ""c"""=excluded."c ""c""""#);
        insta::assert_snapshot!(sql(Conflict::update_columns(["a"], ["b"]), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("a") DO UPDATE SET "b"=excluded."b""#);
        insta::assert_snapshot!(sql(Conflict::update_columns(["a"], none), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("a") DO NOTHING"#);
    }

    #[test]
    fn the_target_and_the_condition_of_a_rule_are_in_the_clause() {
        let clause = |rule| {
            let sql = statement_from(&schema(rule), "s", |_| String::new());
            sql.split_once(" s ON").unwrap().1.to_owned()
        };
        let rule = || Conflict::update(["a"]);
        insta::assert_snapshot!(clause(Conflict::ignore(["a"]).on_constraint("k\"")), @r#" CONFLICT ON CONSTRAINT "k""" DO NOTHING"#);
        insta::assert_snapshot!(clause(Conflict::ignore(["a"]).on_partial_index("b > 1")), @r#" CONFLICT ("a") WHERE b > 1 DO NOTHING"#);
        insta::assert_snapshot!(clause(rule().only_if_newer("b")), @r#" CONFLICT ("a") DO UPDATE SET "b"=excluded."b","c ""c"""=excluded."c ""c""" WHERE (excluded."b">batchsql_old."b" OR (batchsql_old."b" IS NULL))"#);
    }

    /// An alias would hide the table from a condition that names it.
    #[test]
    fn the_condition_of_an_index_may_name_the_table() {
        let of = |table: &str, rule: Conflict| {
            let schema = Schema::builder(TableName::qualified("main", table)).column("a", ColumnType::I64);
            let schema = schema.column("b", ColumnType::I64).returning("a", ColumnType::I64);
            schema.on_conflict(rule.on_partial_index("t.b > 1")).build().unwrap()
        };
        let sum = || Conflict::update(["a"]).set("b", Expr::add());
        insta::assert_snapshot!(statement_from(&of("t", Conflict::ignore(["a"])), "s", |_| String::new()), @r#"INSERT INTO "main"."t" ("a","b") s ON CONFLICT ("a") WHERE t.b > 1 DO NOTHING"#);
        insta::assert_snapshot!(statement_from(&of("t", sum()), "s", |_| String::new()), @r#"INSERT INTO "main"."t" ("a","b") s ON CONFLICT ("a") WHERE t.b > 1 DO UPDATE SET "b"=CASE WHEN "t"."b" IS NULL THEN excluded."b" ELSE "t"."b"+excluded."b" END"#);
        insta::assert_snapshot!(insert(&of("t", Conflict::update(["a"]).only_if_newer("b")), 1), @r#"INSERT INTO "main"."t" ("a","b") VALUES (?,?) ON CONFLICT ("a") WHERE t.b > 1 DO UPDATE SET "b"=excluded."b" WHERE (excluded."b">"t"."b" OR ("t"."b" IS NULL)) RETURNING "a""#);
        assert_eq!([stored_row(&of("t", sum())), stored_row(&of("excluded", sum()))], [r#""t""#, OLD]);
    }

    #[test]
    fn each_expression_has_its_text() {
        let texts = |rule: Conflict| {
            let schema = Schema::builder("t").column("k", ColumnType::I64).column("n", ColumnType::I64);
            let schema = schema.nullable("m", ColumnType::I64).on_conflict(rule).build().unwrap();
            (statement_from(&schema, "s", |_| String::new()), insert(&schema, 1))
        };
        let rule = || Conflict::update_columns(["k"], [""; 0]);
        let (postgres, sqlite) = texts(rule().set("n", Expr::add()).set("m", Expr::greatest()));
        insta::assert_snapshot!(postgres, @r#"INSERT INTO "t" AS batchsql_old ("k","n","m") s ON CONFLICT ("k") DO UPDATE SET "n"=CASE WHEN batchsql_old."n" IS NULL THEN excluded."n" ELSE batchsql_old."n"+excluded."n" END,"m"=CASE WHEN batchsql_old."m" IS NULL THEN excluded."m" WHEN excluded."m" IS NULL THEN batchsql_old."m" ELSE GREATEST(batchsql_old."m",excluded."m") END"#);
        insta::assert_snapshot!(sqlite, @r#"INSERT INTO "t" AS batchsql_old ("k","n","m") VALUES (?,?,?) ON CONFLICT ("k") DO UPDATE SET "n"=CASE WHEN batchsql_old."n" IS NULL THEN excluded."n" ELSE CASE WHEN typeof(batchsql_old."n")='integer' AND typeof(batchsql_old."n"+excluded."n")<>'integer' THEN abs(-9223372036854775807-1) ELSE batchsql_old."n"+excluded."n" END END,"m"=CASE WHEN batchsql_old."m" IS NULL THEN excluded."m" WHEN excluded."m" IS NULL THEN batchsql_old."m" ELSE max(batchsql_old."m",excluded."m") END"#);
        let (postgres, sqlite) =
            texts(rule().set("m", Expr::keep()).set("n", Expr::unless_null()).set("t", Expr::now()));
        insta::assert_snapshot!(postgres, @r#"INSERT INTO "t" AS batchsql_old ("k","n","m") s ON CONFLICT ("k") DO UPDATE SET "m"=COALESCE(batchsql_old."m",excluded."m"),"n"=COALESCE(excluded."n",batchsql_old."n"),"t"=pg_catalog.now()"#);
        insta::assert_snapshot!(sqlite, @r#"INSERT INTO "t" AS batchsql_old ("k","n","m") VALUES (?,?,?) ON CONFLICT ("k") DO UPDATE SET "m"=COALESCE(batchsql_old."m",excluded."m"),"n"=COALESCE(excluded."n",batchsql_old."n"),"t"=strftime('%Y-%m-%d %H:%M:%f','now')"#);
        let (postgres, _) = texts(rule().set("m", Expr::raw("{old} * 2 + {new.n} - {old.x}")));
        insta::assert_snapshot!(postgres, @r#"INSERT INTO "t" AS batchsql_old ("k","n","m") s ON CONFLICT ("k") DO UPDATE SET "m"=(batchsql_old."m" * 2 + excluded."n" - batchsql_old."x")"#);
    }

    /// One of another schema may be found first, and mean something else.
    #[test]
    fn built_in_types_have_the_operators_of_pg_catalog() {
        let rules = [
            (Conflict::update(["a"]).only_if_newer("b"), [">"].as_slice()),
            (Conflict::update(["a"]).set("b", Expr::add()), &["+"]),
            (Conflict::update_only(["a"]).only_if_newer("b"), &["=", ">"]),
            (Conflict::update_only(["a"]).set("b", Expr::add()), &["=", "+"]),
        ];
        for (rule, operators) in rules {
            let schema = schema(rule);
            let built_in = statement_from(&schema, "s", |_| "::\"pg_catalog\".\"int8\"".into());
            let other = statement_from(&schema, "s", |_| "::\"public\".\"mine\"".into());
            for operator in operators {
                assert_eq!(built_in.matches(&format!(" OPERATOR(pg_catalog.{operator}) ")).count(), 1, "{built_in}");
            }
            assert!(!other.contains("OPERATOR"), "{other}");
        }
        let newer = schema(Conflict::update_only(["a"]).only_if_newer("b"));
        let count = count_found(&newer, "s", |_| "::\"pg_catalog\".\"int8\"".into());
        assert!(count.contains(r#"batchsql_new.c1 OPERATOR(pg_catalog.>) batchsql_old."b""#), "{count}");
    }

    #[test]
    fn updates_and_deletes_find_their_rows_by_key() {
        let schema = schema(Conflict::update_only(["a"]));
        let postgres = statement_from(&schema, "SELECT 1", |index| format!("::t{index}"));
        insta::assert_snapshot!(postgres, @r#"UPDATE "main"."t" AS batchsql_old SET "b"=batchsql_new.c1,"c ""c"""=batchsql_new.c2 FROM (SELECT 1) AS batchsql_new(c0,c1,c2) WHERE batchsql_old."a"=batchsql_new.c0::t0"#);
        let count =
            count_found(&super::tests::schema(Conflict::update_only(["a"]).only_if_newer("b")), "SELECT 1", |_| {
                String::new()
            });
        insta::assert_snapshot!(count, @r#"SELECT pg_catalog.count(*) FROM "main"."t" AS batchsql_old,(SELECT 1) AS batchsql_new(c0,c1,c2) WHERE batchsql_old."a"=batchsql_new.c0 AND (batchsql_new.c1>batchsql_old."b" OR (batchsql_old."b" IS NULL))"#);
        insta::assert_snapshot!(insert(&schema, 2), @r#"WITH batchsql_new(c0,c1,c2) AS (VALUES (?,?,?),(?,?,?)) UPDATE "main"."t" AS batchsql_old SET "b"=batchsql_new.c1,"c ""c"""=batchsql_new.c2 FROM batchsql_new WHERE batchsql_old."a"=batchsql_new.c0"#);
        let delete = super::tests::schema(Conflict::ignore(["b", "a"])).deletion().unwrap();
        insta::assert_snapshot!(statement_from(&delete, "SELECT 1", |index| format!("::t{index}")), @r#"DELETE FROM "main"."t" AS batchsql_old USING (SELECT 1) AS batchsql_new(c0,c1) WHERE batchsql_old."b"=batchsql_new.c1::t1 AND batchsql_old."a"=batchsql_new.c0::t0"#);
        insta::assert_snapshot!(insert(&delete, 2), @r#"DELETE FROM "main"."t" WHERE ("a","b") IN (VALUES (?,?),(?,?))"#);
    }
}
