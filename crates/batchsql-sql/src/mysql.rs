//! Owns the text of MySQL and MariaDB statements: quoting with backticks, multi-row inserts, the search for keys.
//! Must not know connections, values or limits.

use batchsql_core::{Schema, TableName};

/// How an insert handles a row whose key already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDuplicate {
    /// `INSERT`: error 1062.
    Fail,
    /// `INSERT … ON DUPLICATE KEY UPDATE` of the schema's update columns.
    Update,
    /// `INSERT IGNORE`.
    Ignore,
    /// `REPLACE`.
    Replace,
}

/// Quotes one name: in backticks, with inner backticks doubled.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Quotes a table name with its database.
pub fn quote_table(table: &TableName) -> String {
    match table.namespace() {
        Some(namespace) => format!("{}.{}", quote(namespace), quote(table.name())),
        None => quote(table.name()),
    }
}

/// An insert of `rows` rows with one placeholder per value, row by row.
///
/// MySQL and MariaDB support `VALUES(column)` in the update; MariaDB does not support MySQL's row alias.
///
/// # Panics
/// When `rows` is 0, or for an update of a schema without update columns.
pub fn insert(schema: &Schema, rows: usize, on_duplicate: OnDuplicate) -> String {
    let values: Vec<&str> = schema.columns().iter().map(|_| "?").collect();
    insert_values(schema, rows, on_duplicate, &values)
}

/// As [`insert`], with an expression for the value of each column: `?`, or for example `ST_GeomFromText(?)`.
///
/// # Panics
/// As for [`insert`].
pub fn insert_values(schema: &Schema, rows: usize, on_duplicate: OnDuplicate, values: &[&str]) -> String {
    let (mut sql, tail) = insert_around(schema, on_duplicate);
    let row = format!("({})", values.join(","));
    assert!(rows > 0, "a statement has at least one row");
    sql.reserve(rows * (row.len() + 1) + tail.len());
    for number in 0..rows {
        if number > 0 {
            sql.push(',');
        }
        sql.push_str(&row);
    }
    sql.push_str(&tail);
    sql
}

/// The text before and after the rows of an insert.
///
/// # Panics
/// For an update of a schema without update columns.
pub fn insert_around(schema: &Schema, on_duplicate: OnDuplicate) -> (String, String) {
    let verb = match on_duplicate {
        OnDuplicate::Fail | OnDuplicate::Update => "INSERT",
        OnDuplicate::Ignore => "INSERT IGNORE",
        OnDuplicate::Replace => "REPLACE",
    };
    let columns: Vec<String> = schema.columns().iter().map(|column| quote(column.name())).collect();
    let head = format!("{verb} INTO {} ({}) VALUES ", quote_table(schema.table()), columns.join(","));
    let mut tail = String::new();
    if on_duplicate == OnDuplicate::Update {
        let assignments: Vec<String> =
            schema.update_columns().iter().map(|i| format!("{0}=VALUES({0})", columns[*i])).collect();
        assert!(!assignments.is_empty(), "an update has columns to update");
        tail = format!(" ON DUPLICATE KEY UPDATE {}", assignments.join(","));
    }
    (head, tail)
}

/// A query for `shown` of those rows whose key columns are one of `keys` keys; a placeholder per value, key by key.
///
/// Keys of several columns are written with `AND` and `OR`: MariaDB turns `(a, b) IN (…)` with many keys into a
/// join that uses the first column of the index only. It does so with lists of 1,000 values too
/// (`in_predicate_conversion_threshold`), so query fewer keys at once.
///
/// # Panics
/// When `keys` is 0, or when the schema has no key.
pub fn select_keys(schema: &Schema, keys: usize, shown: &[String]) -> String {
    let columns: Vec<String> = schema.key_columns().iter().map(|i| quote(schema.columns()[*i].name())).collect();
    assert!(!columns.is_empty(), "a search for keys needs a key");
    let mut sql = format!("SELECT {} FROM {} WHERE ", shown.join(","), quote_table(schema.table()));
    assert!(keys > 0, "a search has at least one key");
    if let [column] = &*columns {
        sql.push_str(column);
        sql.push_str(" IN ");
        push_tuple(&mut sql, keys);
        return sql;
    }
    let key = columns.iter().map(|column| format!("{column}=?")).collect::<Vec<_>>().join(" AND ");
    for number in 0..keys {
        sql.push_str(if number == 0 { "(" } else { ") OR (" });
        sql.push_str(&key);
    }
    sql.push(')');
    sql
}

/// `(?,?)`
fn push_tuple(sql: &mut String, values: usize) {
    sql.push('(');
    for value in 0..values {
        sql.push_str(if value == 0 { "?" } else { ",?" });
    }
    sql.push(')');
}

#[cfg(test)]
mod tests {
    use super::*;
    use batchsql_core::{ColumnType, Conflict};

    fn schema(conflict: Conflict) -> Schema {
        Schema::builder(TableName::qualified("d`b", "t"))
            .column("a", ColumnType::I64)
            .column("b", ColumnType::I64)
            .nullable("c`", ColumnType::Text)
            .on_conflict(conflict)
            .build()
            .unwrap()
    }

    #[test]
    fn each_way_has_its_statement() {
        let sql = |way, rows| insert(&schema(Conflict::update(["a"])), rows, way);
        insta::assert_snapshot!(sql(OnDuplicate::Fail, 2), @"INSERT INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,?,?),(?,?,?)");
        insta::assert_snapshot!(sql(OnDuplicate::Update, 1), @"INSERT INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,?,?) ON DUPLICATE KEY UPDATE `b`=VALUES(`b`),`c```=VALUES(`c```)");
        insta::assert_snapshot!(sql(OnDuplicate::Ignore, 1), @"INSERT IGNORE INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,?,?)");
        insta::assert_snapshot!(sql(OnDuplicate::Replace, 1), @"REPLACE INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,?,?)");
    }

    #[test]
    fn a_value_may_be_an_expression() {
        let schema = schema(Conflict::None);
        let sql = insert_values(&schema, 2, OnDuplicate::Fail, &["?", "ST_GeomFromText(?)", "?"]);
        insta::assert_snapshot!(sql, @"INSERT INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,ST_GeomFromText(?),?),(?,ST_GeomFromText(?),?)");
    }

    #[test]
    fn keys_of_one_and_of_more_columns() {
        let shown = ["`a`".to_owned()];
        let one = select_keys(&schema(Conflict::ignore(["a"])), 3, &shown);
        insta::assert_snapshot!(one, @"SELECT `a` FROM `d``b`.`t` WHERE `a` IN (?,?,?)");
        let two = select_keys(&schema(Conflict::ignore(["b", "a"])), 2, &shown);
        insta::assert_snapshot!(two, @"SELECT `a` FROM `d``b`.`t` WHERE (`b`=? AND `a`=?) OR (`b`=? AND `a`=?)");
    }

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(quote("a`; DROP TABLE t; --"), "`a``; DROP TABLE t; --`");
        assert_eq!(quote("a.b\"c"), "`a.b\"c`");
    }
}
