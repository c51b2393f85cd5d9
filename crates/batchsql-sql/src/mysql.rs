//! Owns the text of MySQL and MariaDB statements: quoting with backticks, multi-row inserts, the search for keys.
//! Must not know connections, values or limits.

use batchsql_core::exhaustive::{Assignment, Set, SetPart};
use batchsql_core::{Schema, TableName};

use crate::dialect::{Dialect, NEW, Names, OLD, assignments};

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
        let ordered = in_order(schema).expect("a plan has checked the order");
        let new = |_, name: &str| format!("VALUES({name})");
        let names = Names {
            dialect: Dialect::MySql,
            quote,
            old: &str::to_owned,
            new: &new,
            is_built_in: &|_| false,
            guards_values: true,
        };
        let assignments = assignments(schema, ordered, &names);
        assert!(!assignments.is_empty(), "an update has columns to update");
        tail = format!(" ON DUPLICATE KEY UPDATE {}", assignments.join(","));
    }
    (head, tail)
}

/// The assignments of an insert in an order in which no column is changed before its stored value was used: MySQL
/// evaluates them from left to right. The version comes last.
///
/// # Errors
/// Raw expressions use each other's stored values, and which columns do.
pub fn in_order(schema: &Schema) -> Result<Vec<&Assignment>, String> {
    let uses = |of: &Assignment, name: &str| match &of.set {
        Set::Raw(parts) => parts.iter().any(|part| matches!(part, SetPart::Old(old) if **old == *name)),
        _ => false,
    };
    let is_version = |assignment: &Assignment| schema.version_column().is_some_and(|v| assignment.column == Some(v));
    let mut left: Vec<&Assignment> = schema.assignments().iter().collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_free = |candidate: &&Assignment| {
            let others = || left.iter().filter(|other| other.name != candidate.name);
            let is_too_early = is_version(candidate) && left.len() > 1;
            !is_too_early && !others().any(|other| uses(other, &candidate.name))
        };
        let Some(next) = left.iter().position(is_free) else {
            let names: Vec<&str> = left.iter().map(|assignment| &*assignment.name).collect();
            return Err(format!(
                "the raw expressions of its columns {} use each other's stored values, and this database changes one \
                 column after the other",
                names.join(", ")
            ));
        };
        ordered.push(left.remove(next));
    }
    Ok(ordered)
}

/// Which rows an update without insert joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// This many rows, by their key columns: for keys that compare without a collation.
    Rows(usize),
    /// One row; its key columns are bound once more at the end, so that each is compared as its column is.
    One,
}

/// An update without insert of rows with one placeholder per value, row by row. `values` has an expression with a
/// placeholder for each column, for example `CAST(? AS DECIMAL(65,30))`. It updates older and newer rows: the caller
/// knows which are newer. The order in which MySQL changes the columns is not defined.
///
/// # Panics
/// For no row.
pub fn update(schema: &Schema, values: &[&str], join: Join) -> String {
    let rows = match join {
        Join::Rows(rows) => rows,
        Join::One => 1,
    };
    assert!(rows > 0, "a statement has at least one row");
    let (first, other) = (first_row(values), values.join(","));
    let rows = std::iter::once(first).chain((1..rows).map(|_| other.clone()));
    let rows: Vec<String> = rows.map(|row| format!("SELECT {row}")).collect();
    let mut conditions: Vec<String> = Vec::new();
    for index in schema.key_columns() {
        let new = if join == Join::One { values[*index].to_owned() } else { format!("{NEW}.c{index}") };
        conditions.push(format!("{OLD}.{}={new}", quote(schema.columns()[*index].name())));
    }
    format!(
        "UPDATE {} AS {OLD} JOIN ({}) AS {NEW} SET {} WHERE {}",
        quote_table(schema.table()),
        rows.join(" UNION ALL "),
        assigned(schema),
        conditions.join(" AND ")
    )
}

/// An update without insert that reads the stored rows in the order of their keys, and changes them as they are read: on
/// MariaDB it takes about half of the time of [`update`]. The placeholders are those of `rows` rows, row by row, and then those
/// of their keys, key by key.
///
/// `types` has an expression for each column that has the type of its values, for example `CAST(NULL AS CHAR(64))`: MariaDB
/// does not take the length of a column of `VALUES` from all of its rows. The order in which the columns are changed is not
/// defined. As for [`select_keys`], MariaDB must not get 1,000 keys at once.
///
/// # Panics
/// For no row, or when the schema has no key.
pub fn update_listed(schema: &Schema, values: &[&str], types: &[&str], rows: usize) -> String {
    let row = format!("({})", values.join(","));
    let keys = schema.key_columns();
    let joined = keys.iter().map(|index| format!("{OLD}.{}={NEW}.c{index}", quote(schema.columns()[*index].name())));
    let joined: Vec<String> = joined.collect();
    format!(
        "UPDATE {} AS {OLD} STRAIGHT_JOIN (SELECT {} FROM DUAL WHERE FALSE UNION ALL VALUES {}) AS {NEW} SET {} WHERE {} AND ({})",
        quote_table(schema.table()),
        first_row(types),
        vec![row; rows].join(","),
        assigned(schema),
        joined.join(" AND "),
        key_condition(schema, rows, values, &format!("{OLD}."))
    )
}

/// The values of a row with the names of their columns.
fn first_row(values: &[&str]) -> String {
    let named: Vec<String> = values.iter().enumerate().map(|(index, value)| format!("{value} AS c{index}")).collect();
    named.join(",")
}

/// The assignments of an update without insert.
fn assigned(schema: &Schema) -> String {
    let (old, new) = (|name: &str| format!("{OLD}.{name}"), |index, _: &str| format!("{NEW}.c{index}"));
    let names =
        Names { dialect: Dialect::MySql, quote, old: &old, new: &new, is_built_in: &|_| false, guards_values: false };
    let set = assignments(schema, schema.assignments(), &names);
    set.into_iter().map(|set| format!("{OLD}.{set}")).collect::<Vec<_>>().join(",")
}

/// A delete of those rows whose key columns are one of `keys` keys, as in [`select_keys`].
///
/// # Panics
/// As for [`select_keys`].
pub fn delete(schema: &Schema, keys: usize, values: &[&str]) -> String {
    format!("DELETE FROM {} WHERE {}", quote_table(schema.table()), key_condition(schema, keys, values, ""))
}

/// A query for `shown` of those rows whose key columns are one of `keys` keys; a placeholder per value, key by key, in the
/// order of [`Schema::key_columns`]. `values` has an expression with a placeholder for each column of the schema, for
/// example `CAST(? AS DECIMAL(30,2))`.
///
/// Keys of several columns are written with `AND` and `OR`: MariaDB turns `(a, b) IN (…)` with many keys into a
/// join that uses the first column of the index only. It does so with lists of 1,000 values too
/// (`in_predicate_conversion_threshold`), so query fewer keys at once.
///
/// # Panics
/// When `keys` is 0, or when the schema has no key.
pub fn select_keys(schema: &Schema, keys: usize, values: &[&str], shown: &[String]) -> String {
    let (table, condition) = (quote_table(schema.table()), key_condition(schema, keys, values, ""));
    format!("SELECT {} FROM {table} WHERE {condition}", shown.join(","))
}

/// The condition that a row has one of `keys` keys. `table` comes before the names of the columns.
fn key_condition(schema: &Schema, keys: usize, values: &[&str], table: &str) -> String {
    let column = |index: &usize| format!("{table}{}", quote(schema.columns()[*index].name()));
    let columns: Vec<String> = schema.key_columns().iter().map(column).collect();
    assert!(!columns.is_empty(), "a search for keys needs a key");
    assert!(keys > 0, "a search has at least one key");
    let mut sql = String::new();
    if let [column] = &*columns {
        sql.push_str(column);
        sql.push_str(" IN ");
        push_tuple(&mut sql, keys, values[schema.key_columns()[0]]);
        return sql;
    }
    let equals = columns.iter().zip(schema.key_columns()).map(|(column, index)| format!("{column}={}", values[*index]));
    let key = equals.collect::<Vec<_>>().join(" AND ");
    for number in 0..keys {
        sql.push_str(if number == 0 { "(" } else { ") OR (" });
        sql.push_str(&key);
    }
    sql.push(')');
    sql
}

/// `(?,?)`
fn push_tuple(sql: &mut String, count: usize, value: &str) {
    sql.push('(');
    for number in 0..count {
        if number > 0 {
            sql.push(',');
        }
        sql.push_str(value);
    }
    sql.push(')');
}

#[cfg(test)]
mod tests {
    use super::*;
    use batchsql_core::{ColumnType, Conflict, Expr};

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
        let schema = schema(Conflict::none());
        let sql = insert_values(&schema, 2, OnDuplicate::Fail, &["?", "ST_GeomFromText(?)", "?"]);
        insta::assert_snapshot!(sql, @"INSERT INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,ST_GeomFromText(?),?),(?,ST_GeomFromText(?),?)");
    }

    #[test]
    fn keys_of_one_and_of_more_columns() {
        let shown = ["`a`".to_owned()];
        let one = select_keys(&schema(Conflict::ignore(["a"])), 3, &["?"; 3], &shown);
        insta::assert_snapshot!(one, @"SELECT `a` FROM `d``b`.`t` WHERE `a` IN (?,?,?)");
        let two = select_keys(&schema(Conflict::ignore(["b", "a"])), 2, &["f(?)", "?", "?"], &shown);
        insta::assert_snapshot!(two, @"SELECT `a` FROM `d``b`.`t` WHERE (`b`=? AND `a`=f(?)) OR (`b`=? AND `a`=f(?))");
    }

    #[test]
    fn each_rule_has_its_statement() {
        let sql = |rule| insert(&schema(rule), 1, OnDuplicate::Update);
        insta::assert_snapshot!(sql(Conflict::update(["a"]).only_if_newer("b")), @"INSERT INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,?,?) ON DUPLICATE KEY UPDATE `c```=IF((VALUES(`b`)>`b` OR (`b` IS NULL)),VALUES(`c```),`c```),`b`=IF((VALUES(`b`)>`b` OR (`b` IS NULL)),VALUES(`b`),`b`)");
        let rule = Conflict::update_columns(["a"], [""; 0]).set("b", Expr::add()).set("t", Expr::now());
        insta::assert_snapshot!(sql(rule), @"INSERT INTO `d``b`.`t` (`a`,`b`,`c```) VALUES (?,?,?) ON DUPLICATE KEY UPDATE `b`=CASE WHEN `b` IS NULL THEN VALUES(`b`) ELSE `b`+VALUES(`b`) END,`t`=CURRENT_TIMESTAMP(6)");
        let only = schema(Conflict::update_only(["a"]).only_if_newer("b"));
        insta::assert_snapshot!(update(&only, &["?", "?", "f(?)"], Join::Rows(2)), @"UPDATE `d``b`.`t` AS batchsql_old JOIN (SELECT ? AS c0,? AS c1,f(?) AS c2 UNION ALL SELECT ?,?,f(?)) AS batchsql_new SET batchsql_old.`b`=batchsql_new.c1,batchsql_old.`c```=batchsql_new.c2 WHERE batchsql_old.`a`=batchsql_new.c0");
        insta::assert_snapshot!(update(&only, &["?", "?", "?"], Join::One), @"UPDATE `d``b`.`t` AS batchsql_old JOIN (SELECT ? AS c0,? AS c1,? AS c2) AS batchsql_new SET batchsql_old.`b`=batchsql_new.c1,batchsql_old.`c```=batchsql_new.c2 WHERE batchsql_old.`a`=?");
        let types = ["CAST(NULL AS SIGNED)", "x", "y"];
        insta::assert_snapshot!(update_listed(&only, &["?", "?", "f(?)"], &types, 2), @"UPDATE `d``b`.`t` AS batchsql_old STRAIGHT_JOIN (SELECT CAST(NULL AS SIGNED) AS c0,x AS c1,y AS c2 FROM DUAL WHERE FALSE UNION ALL VALUES (?,?,f(?)),(?,?,f(?))) AS batchsql_new SET batchsql_old.`b`=batchsql_new.c1,batchsql_old.`c```=batchsql_new.c2 WHERE batchsql_old.`a`=batchsql_new.c0 AND (batchsql_old.`a` IN (?,?))");
        insta::assert_snapshot!(delete(&schema(Conflict::ignore(["b", "a"])).deletion().unwrap(), 2, &["?", "?"]), @"DELETE FROM `d``b`.`t` WHERE (`b`=? AND `a`=?) OR (`b`=? AND `a`=?)");
    }

    #[test]
    fn a_column_is_changed_after_its_stored_value_was_used() {
        let order = |rule: Conflict| {
            let schema = schema(rule);
            in_order(&schema).map(|ordered| ordered.iter().map(|a| a.name.to_string()).collect::<Vec<_>>())
        };
        let rule = || Conflict::update(["a"]);
        assert_eq!(order(rule().only_if_newer("b")).unwrap(), ["c`", "b"]);
        assert_eq!(order(rule().set("c`", Expr::raw("{old.b}"))).unwrap(), ["c`", "b"]);
        assert_eq!(order(rule().set("b", Expr::raw("{old} + 1"))).unwrap(), ["b", "c`"]);
        let circle = rule().set("b", Expr::raw("{old.c`}")).set("c`", Expr::raw("{old.b}"));
        assert!(order(circle).unwrap_err().contains("use each other's stored values"));
    }

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(quote("a`; DROP TABLE t; --"), "`a``; DROP TABLE t; --`");
        assert_eq!(quote("a.b\"c"), "`a.b\"c`");
    }
}
