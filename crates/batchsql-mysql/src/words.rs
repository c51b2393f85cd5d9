//! Owns error messages: the server's own message if it cannot contain a value, otherwise our own text.
//! Must not know classes or stages.
//!
//! If rows were sent, only names from the server's message are used that the catalog also has: a column, an index or
//! a constraint of the table. A trigger may put a value into its message and use any code.

use crate::catalog::{Table, UniqueIndex};

/// `ER_SIGNAL_EXCEPTION`: a trigger refused the row.
pub(crate) const RAISED: u16 = 1644;

/// The message for an error of a request without values. It uses the server's message if that names only tables,
/// columns and users.
pub(crate) fn asked(code: u16, message: &str) -> String {
    match code {
        1146 => format!("{message}; create it before rows are submitted"),
        _ if is_quotable(code) => message.to_owned(),
        _ => description(code).to_owned(),
    }
}

/// The message for an error of a statement with values.
pub(crate) fn sent(code: u16, message: &str, table: &Table) -> String {
    let words = description(code);
    match named_part(code, message, table) {
        Some(part) => format!("{words} ({part})"),
        None => words.to_owned(),
    }
}

/// The column, index or constraint that the message names, if the table has it.
fn named_part(code: u16, message: &str, table: &Table) -> Option<String> {
    match code {
        1048 | 1263..=1265 | 1292 | 1364 | 1366 | 1406 => {
            let name =
                ["olumn ", "Field "].iter().find_map(|before| Some(last_name(message.rsplit_once(before)?.1)))?;
            let known =
                table.columns.iter().map(|column| &column.name).find(|known| known.eq_ignore_ascii_case(name))?;
            Some(format!("column {known:?}"))
        }
        1022 | 1062 | 1169 | 1586 | 1859 => {
            let name = last_name(message.rsplit_once(" key ")?.1);
            let mut indexes = table.unique_indexes.iter().map(|index| &index.name);
            let known = indexes.find(|known| known.eq_ignore_ascii_case(name))?;
            Some(format!("index {known:?}"))
        }
        1216 | 1217 | 1451 | 1452 | 3819 | 4025 => {
            let name = last_name(message.split_once("CONSTRAINT ").or_else(|| message.split_once("onstraint "))?.1);
            let known = table.constraints.iter().find(|known| known.eq_ignore_ascii_case(name))?;
            Some(format!("constraint {known:?}"))
        }
        _ => None,
    }
}

/// What the message of a duplicate says of the index that has the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DuplicateIn {
    /// It is not known, or may be an index of the table.
    #[default]
    Unknown,
    /// A unique index of the table with this place, or one of another table with its name.
    Index(usize),
    /// No index of the table has the name: a trigger wrote to another table.
    AnotherTable,
}

/// Which index the message of error 1062 names: `… for key 'PRIMARY'`, or `'t.PRIMARY'` from MySQL 8.0.19 on. The value
/// before it is not used, and a value that imitates the end of the message is not taken for it.
pub(crate) fn duplicate_in(message: &str, table: &Table) -> DuplicateIn {
    let named = message.rsplit_once(" key ").and_then(|(_, name)| name.strip_prefix('\'')?.strip_suffix('\''));
    let Some(name) = named.filter(|name| !name.is_empty() && !name.contains('\'')) else { return DuplicateIn::Unknown };
    let is_of = |index: &UniqueIndex| {
        let qualified = format!("{}.{}", table.name.name, index.name);
        name.eq_ignore_ascii_case(&index.name) || name.eq_ignore_ascii_case(&qualified)
    };
    table.unique_indexes.iter().position(is_of).map_or(DuplicateIn::AnotherTable, DuplicateIn::Index)
}

/// The name at the start of a text, without quotes and qualifiers: `` `d`.`t`.`c` at row 1`` is `c`.
fn last_name(text: &str) -> &str {
    let Some(quote) = text.chars().next().filter(|quote| matches!(quote, '\'' | '`')) else { return "" };
    let between = format!("{quote}.{quote}");
    let mut rest = &text[1..];
    while let Some((name, after)) = rest.split_once(quote) {
        match rest.split_once(&between) {
            Some((first, next)) if first == name => rest = next,
            // This also handles `t.c` within one pair of quotes.
            _ => return name.rsplit('.').next().unwrap_or(name),
        }
        debug_assert!(after.len() < text.len());
    }
    ""
}

/// Whether the server's message contains only names and numbers, if no row was sent.
fn is_quotable(code: u16) -> bool {
    matches!(
        code,
        1040 | 1044..=1046 | 1049 | 1053 | 1054 | 1129 | 1130 | 1142 | 1143 | 1203 | 1205 | 1213 | 1226 | 1227
    ) || matches!(code, 1290 | 1364 | 1449 | 1461 | 1471 | 1698 | 1792 | 1836 | 1906 | 3105)
}

fn description(code: u16) -> &'static str {
    match code {
        1022 | 1062 | 1169 | 1586 | 1859 => "a unique index already has this row's key",
        1048 | 1138 | 1263 => "a NOT NULL column got a NULL value",
        1264 => "a number is out of the range of its column",
        1265 => "a value does not fit its column",
        1292 | 1366 | 1367 | 1411 | 1416 | 1525 | 3037 | 8032 | 8033 => "a value is not one that its column can hold",
        1406 => "a value is too long for its column",
        1216 | 1452 => "a foreign key refers to a row that does not exist",
        1217 | 1451 | 1557 | 1761 | 1762 => "another table refers to the row by a foreign key",
        3819 | 4025 => "a CHECK constraint refused the row",
        1300 | 1977 | 3854 | 3988 => "a text has a character that its column's character set does not have",
        1526 | 1748 => "the table has no partition for this row",
        RAISED | 1645 => "a trigger refused this row",
        1172 | 1242 => "an expression or a trigger of the table found more than one row",
        1301 => "the result of an expression of the table is larger than max_allowed_packet",
        1329 => "a trigger of the table found no row",
        1339 => "a trigger of the table has no case for this row",
        1365 | 1441 | 1690 => "a number or a time is out of range in an expression of the table",
        3140 | 3141 | 3144 | 3156 | 3903 | 4038 | 8129 => "a text is not a JSON document that the server accepts",
        1118 | 8025 => "the row is larger than the table's engine allows",
        1054 => "a column was not found; check the table and its triggers",
        1146 => {
            "a table was not found: this one, or one that a trigger or a foreign key of it needs; check the table and \
             its triggers"
        }
        1046 | 1049 => "the database does not exist, or none is named; check the DSN",
        1051 | 1109 | 1347 | 1356 | 1932 => {
            "a table or a view is missing, or cannot be read; check the table, its views and its triggers"
        }
        1064 | 1136 | 1241 => {
            "the server does not accept the statement as it is; check its version, the table and its triggers"
        }
        1099 | 1100 => {
            "the connection came from the pool under LOCK TABLES, and is closed; use UNLOCK TABLES before connections go back to it"
        }
        1288 | 1348 | 1394 | 1471 => {
            "the table accepts no inserts or updates; check whether it is a view that can be updated"
        }
        1305 => "a routine was not found that a trigger or an expression of the table needs; create it",
        1364 => "a column without a default got no value; check the table and its triggers",
        1415 | 1422 | 1424 => "a trigger or function of the table does what none may; change it",
        1442 => {
            "a trigger of the table writes to the table itself, which the server does not allow; change the trigger"
        }
        1814 => "the data file of the table is discarded; import it",
        3098 => {
            "group replication does not take this table; it needs InnoDB, a primary key and no cascading foreign key"
        }
        1142 | 1143 | 1227 | 1370 | 8121 => {
            "the user lacks a right on the table, or on what its triggers use; grant it"
        }
        1449 => "the user who defined a trigger or a view does not exist; create the user, or recreate the trigger",
        1044 | 1045 | 1698 => "the server refused the user; check user, password and rights",
        1129 | 1130 => "the server refuses this host; let it connect, or run FLUSH HOSTS there",
        1251 | 1524 => "the server and this client have no way to log in in common; change the plugin of the user",
        1820 | 1862 => "the password of the user has expired; set another one",
        3118 | 3955 | 4151 => "the user is locked, also after too many wrong passwords; unlock it",
        3159 => "the server accepts only encrypted connections; set ssl-mode",
        1040 | 1203 | 1226 => "the server accepts no more connections; wait, or raise the limit",
        1175 => {
            "the session refuses updates that join rows (sql_safe_updates); set sql_safe_updates = 0 on the connections of \
             the pool"
        }
        1020 => "another transaction has changed the rows meanwhile; the rows are written again",
        1205 => "another transaction held a lock for too long",
        1213 => "the server rolled back the transaction because of a deadlock",
        3101 => "the server rolled back the transaction because of a conflict with another one of the group",
        1412 | 1615 => "the table was changed during the statement, which is sent again",
        1243 => "the session has lost its prepared statements; a new connection prepares them again",
        1206 => "the server's lock table is full; write smaller batches",
        1114 => "the table is full",
        1021 | 1026 | 1030 => "the server's storage failed or is full",
        1034 | 1194 | 1195 => "the table or an index is damaged; repair it (CHECK TABLE, REPAIR TABLE)",
        1036 => "the table is read-only; check its files and its engine",
        1037 | 1038 | 1041 | 1135 | 1637 | 8176 => "the server is out of memory or of other resources",
        1180 => "the server failed during COMMIT, so rows may be committed; its log has the reason",
        1223 => "another session has locked the server for reads only (FLUSH TABLES WITH READ LOCK)",
        1467 | 8059 => "the table has no further number for its AUTO_INCREMENT column; give it a larger type",
        4084 => "a sequence of the table has no further number; restart it with a higher MAXVALUE, or let it CYCLE",
        1598 | 1785 => {
            "the server cannot log the statement as its replication needs; check binlog_format and the engine"
        }
        8252 => "the resource group of the user is used up; wait, or give it more",
        1153 => "the packet is larger than the server's max_allowed_packet; raise it, or write smaller batches",
        1197 => "the transaction is larger than max_binlog_cache_size; raise it, or write smaller batches",
        1390 => "the statement has too many values; write smaller batches",
        8001 | 8175 => {
            "the statement needs more memory than its limit (tidb_mem_quota_query); raise it, or write smaller batches"
        }
        8004 | 9500 => "the transaction is larger than TiDB allows; write smaller batches",
        1461 => "the server has too many prepared statements; raise max_prepared_stmt_count",
        1290 | 1836 | 1874 | 3100 => "the server accepts no writes now: it is read-only, or not the primary",
        1792 => "the session accepts no writes: its transactions are read-only",
        1906 | 3105 => "a generated column got a value; remove it from the schema",
        1969 | 3024 => {
            "the statement took longer than the server allows; raise max_statement_time (MariaDB) or max_execution_time, or \
             write smaller batches"
        }
        1053 | 1317 | 1927 | 3169 => "the server shut down, or ended the session or its statement",
        1152 | 1184 | 4031 => "the server closed the connection; check wait_timeout and the network",
        1154..=1161 => {
            "the connection between the server, or a proxy, and its client failed; check the network and their logs"
        }
        2002 | 2003 | 2005 => "a proxy cannot connect to the server; check that it runs, and the proxy's log",
        2006 | 2013 | 2055 => "the connection to the server was lost",
        1047 | 3032 | 3168 => {
            "the server accepts no statements now: it is offline, or not ready; check its state and its cluster"
        }
        1297 => "the storage engine has a temporary error; its log has the reason",
        1105 => "the server or a proxy gives no reason (unknown error); its log has it",
        8002 | 8005 | 8020 | 8022 | 8027 | 8028 | 8113 | 8120 | 8229 => {
            "TiDB could not commit the transaction, because of another one or a change of a table"
        }
        8501 => "TiDB does not know whether the transaction was committed; check TiKV and the network",
        9007 => "the transaction met a conflict (TiDB), or a proxy cannot reach its server; check the proxy's log",
        9001..=9020 => "TiDB or a proxy cannot reach a server behind it in time; check the servers there, and its log",
        _ => UNKNOWN,
    }
}

/// The message for a number that is classified by its SQLSTATE only.
const UNKNOWN: &str =
    "the server or a proxy refused the statement with a number that is not known here; see its documentation";

#[cfg(test)]
mod tests {
    use batchsql_core::ErrorClass;

    use super::*;
    use crate::catalog::{FoundName, TableColumn};
    use crate::classify::{Stage, class};

    fn table() -> Table {
        let column = |name: &str| TableColumn { name: name.into(), ..TableColumn::default() };
        Table {
            name: FoundName { database: "d".into(), name: "t".into() },
            kind: "BASE TABLE".into(),
            engine: "InnoDB".into(),
            has_savepoints: true,
            columns: vec![column("id"), column("note")],
            unique_indexes: vec![UniqueIndex { name: "PRIMARY".into(), columns: vec![Some("id".into())] }],
            constraints: vec!["PRIMARY".into(), "no_bad".into(), "t_ibfk_1".into()],
        }
    }

    #[test]
    fn of_what_the_server_says_to_rows_only_names_of_the_table_are_left() {
        let check = |code, message: &str, part: Option<&str>| {
            let said = sent(code, message, &table());
            assert!(!said.contains("canary"), "{said}");
            let expected = part.map_or(description(code).to_owned(), |part| format!("{} ({part})", description(code)));
            assert_eq!(said, expected, "{message}");
        };
        check(1048, "Column 'note' cannot be null", Some("column \"note\""));
        check(1406, "Data too long for column 'note' at row 1", Some("column \"note\""));
        check(1366, "Incorrect string value: 'canary' for column `d`.`t`.`note` at row 1", Some("column \"note\""));
        check(
            1292,
            "Incorrect datetime value: 'canary column 'id'' for column 'note' at row 7",
            Some("column \"note\""),
        );
        check(1292, "Truncated incorrect INTEGER value: 'canary'", None);
        check(1062, "Duplicate entry 'canary' for key 'PRIMARY'", Some("index \"PRIMARY\""));
        check(1062, "Duplicate entry 'canary' for key 't.PRIMARY'", Some("index \"PRIMARY\""));
        check(4025, "CONSTRAINT `no_bad` failed for `d`.`t`", Some("constraint \"no_bad\""));
        check(4025, "CONSTRAINT `t.no_bad` failed for `d`.`t`", Some("constraint \"no_bad\""));
        check(3819, "Check constraint 'no_bad' is violated.", Some("constraint \"no_bad\""));
        let foreign = "Cannot add or update a child row: a foreign key constraint fails (`d`.`t`, CONSTRAINT `t_ibfk_1` FOREIGN KEY (`p`) REFERENCES `p` (`id`))";
        check(1452, foreign, Some("constraint \"t_ibfk_1\""));
        // A message of a trigger that imitates the server's.
        check(1452, "bad canary", None);
        check(1452, "CONSTRAINT `canary` fails", None);
        check(1048, "Column 'canary' cannot be null", None);
        check(1146, "Table 'canary' doesn't exist", None);
        for message in ["", "'", "olumn ", "olumn '", "olumn `a`.`", " key ", " key 'x"] {
            for code in [1048, 1062, 4025] {
                check(code, message, None);
            }
        }
    }

    #[test]
    fn the_index_of_a_duplicate_is_compared_with_those_of_the_table() {
        let mut table = table();
        table.unique_indexes.push(UniqueIndex { name: "by note".into(), columns: vec![Some("note".into())] });
        let check = |message: &str, expected| assert_eq!(duplicate_in(message, &table), expected, "{message}");
        check("Duplicate entry '7' for key 'PRIMARY'", DuplicateIn::Index(0));
        check("Duplicate entry '7' for key 't.PRIMARY'", DuplicateIn::Index(0));
        check("Duplicate entry '7' for key 'By Note'", DuplicateIn::Index(1));
        check("Duplicate entry '7' for key 'other.PRIMARY'", DuplicateIn::AnotherTable);
        check("Duplicate entry '7' for key 'elsewhere'", DuplicateIn::AnotherTable);
        check("Duplicate entry ' for key 'PRIMARY'' for key 'elsewhere'", DuplicateIn::AnotherTable);
        for unknown in [
            "",
            "Duplicate entry '7' for key ''",
            "Doppelter Eintrag '7' für Schlüssel 'PRIMARY'",
            "Doppelter Eintrag ' key 'elsewhere'' für Schlüssel 'PRIMARY'",
        ] {
            check(unknown, DuplicateIn::Unknown);
        }
    }

    #[test]
    fn each_number_that_has_a_class_says_what_happened() {
        // Any other number is internal with this SQLSTATE.
        let is_known = |code: &u16| class(*code, "HY000", Stage::Open) != ErrorClass::Internal;
        let bare: Vec<u16> = (1..=u16::MAX).filter(is_known).filter(|code| description(*code) == UNKNOWN).collect();
        assert!(bare.is_empty(), "{bare:?}");
        for code in [1158, 1969, 9001] {
            assert_ne!(sent(code, "canary", &table()), UNKNOWN, "{code}");
            assert!(!sent(code, "canary", &table()).contains("canary"), "{code}");
        }
    }

    #[test]
    fn messages_that_may_hold_values_are_not_quoted_anywhere() {
        for code in [1062, 1292, 1300, 1366, 1526, 1644, 1690, 3140, 4038, 1064, 9999] {
            assert!(!is_quotable(code), "code {code}");
        }
        assert_eq!(asked(1049, "Unknown database 'd'"), "Unknown database 'd'");
    }
}
