//! Owns the text of multi-row inserts with their conflict clauses.
//! Must not know connections, values or limits.

use batchsql_core::{Conflict, Schema};

use crate::ident::{quote, quote_table};

/// An insert of `rows` rows with one placeholder `?` per value, row by row.
///
/// # Panics
/// When `rows` is 0.
pub fn insert(schema: &Schema, rows: usize) -> String {
    assert!(rows > 0, "an insert has at least one row");
    let row = vec!["?"; schema.columns().len()].join(",");
    insert_from(schema, &format!("VALUES {}", vec![format!("({row})"); rows].join(",")))
}

/// An insert of the rows that `source` returns, in the order of the schema's columns: `VALUES …` or `SELECT …`.
/// SQLite 3.24 and PostgreSQL 9.5 use the same syntax.
pub fn insert_from(schema: &Schema, source: &str) -> String {
    let columns: Vec<String> = schema.columns().iter().map(|column| quote(column.name())).collect();
    let (table, clause) = (quote_table(schema.table()), conflict_clause(schema, &columns));
    format!("INSERT INTO {table} ({}) {source}{clause}", columns.join(","))
}

/// The clause with its leading space; empty for a plain insert.
fn conflict_clause(schema: &Schema, quoted: &[String]) -> String {
    if *schema.conflict() == Conflict::None {
        return String::new();
    }
    let list = |indexes: &[usize]| indexes.iter().map(|i| quoted[*i].as_str()).collect::<Vec<_>>().join(",");
    let key = list(schema.key_columns());
    if schema.update_columns().is_empty() {
        // Ignore, or an update of a table whose columns are all part of the key.
        return format!(" ON CONFLICT ({key}) DO NOTHING");
    }
    let assignments: Vec<String> =
        schema.update_columns().iter().map(|i| format!("{0}=excluded.{0}", quoted[*i])).collect();
    format!(" ON CONFLICT ({key}) DO UPDATE SET {}", assignments.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use batchsql_core::{ColumnType, TableName};

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
        insta::assert_snapshot!(insert_from(&schema(Conflict::ignore(["a"])), "SELECT * FROM s"), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") SELECT * FROM s ON CONFLICT ("a") DO NOTHING"#);
    }

    #[test]
    fn each_conflict_rule_has_its_clause() {
        let none: [&str; 0] = [];
        insta::assert_snapshot!(sql(Conflict::None, 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?)"#);
        insta::assert_snapshot!(sql(Conflict::ignore(["a"]), 2), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?),(?,?,?) ON CONFLICT ("a") DO NOTHING"#);
        insta::assert_snapshot!(sql(Conflict::replace(["b", "a"]), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("b","a") DO UPDATE SET "c ""c"""=excluded."c ""c""""#);
        insta::assert_snapshot!(sql(Conflict::update(["a"]), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("a") DO UPDATE SET "b"=excluded."b","c ""c"""=excluded."c ""c""""#);
        insta::assert_snapshot!(sql(Conflict::update_columns(["a"], ["b"]), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("a") DO UPDATE SET "b"=excluded."b""#);
        insta::assert_snapshot!(sql(Conflict::update_columns(["a"], none), 1), @r#"INSERT INTO "main"."t" ("a","b","c ""c""") VALUES (?,?,?) ON CONFLICT ("a") DO NOTHING"#);
    }
}
