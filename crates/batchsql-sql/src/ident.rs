//! Owns the quoting of names, so that no name can inject SQL.
//! Must not know statements.

use batchsql_core::TableName;

/// Quotes one name the standard way: in double quotes, with inner quotes doubled.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a table name with its namespace.
pub fn quote_table(table: &TableName) -> String {
    match table.namespace() {
        Some(namespace) => format!("{}.{}", quote(namespace), quote(table.name())),
        None => quote(table.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(quote(r#"a"; DROP TABLE t; --"#), r#""a""; DROP TABLE t; --""#);
        assert_eq!(quote("a.b"), r#""a.b""#);
        assert_eq!(quote_table(&TableName::qualified("m\"ain", "t")), r#""m""ain"."t""#);
    }
}
