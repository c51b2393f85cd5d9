//! Owns the mapping of server codes to error classes, and which parts of an error may appear in our messages.
//! Must not know statements or message texts: only the code decides.
//!
//! Codes: <https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html> and
//! <https://mariadb.com/kb/en/mariadb-error-code-reference/>.

use batchsql_core::{ErrorClass, SinkError};
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use crate::catalog::Table;
use crate::words::{DuplicateIn, RAISED, asked, duplicate_in, sent};

/// A duplicate in a unique index.
pub(crate) const DUPLICATE: u16 = 1062;
/// The table does not exist.
pub(crate) const NO_TABLE: u16 = 1146;
/// A lock was not given in time.
pub(crate) const LOCK_TIMEOUT: u16 = 1205;
/// There is no savepoint, routine or function of this name.
pub(crate) const NO_SAVEPOINT: u16 = 1305;

/// What had been sent when an error occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing that could be durable.
    Open,
    /// A statement that is its own transaction.
    Statement,
    /// `COMMIT`.
    Commit,
}

/// A failed statement.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: SinkError,
    /// Whether the connection can be used for the next statement.
    pub(crate) usable: bool,
    /// The server's code. It is 0 without one, and for an error that a trigger raised with SIGNAL, whatever its
    /// number.
    pub(crate) code: u16,
    /// Of a duplicate.
    pub(crate) duplicate_in: DuplicateIn,
    /// The class if the server itself has refused the statement, where that is not known.
    pub(crate) if_refused: Option<ErrorClass>,
}

impl Failed {
    /// An error that was found before anything was sent.
    pub(crate) fn unsent(error: SinkError) -> Self {
        Self { error, usable: true, code: 0, duplicate_in: DuplicateIn::Unknown, if_refused: None }
    }

    /// Whether nothing was sent and the connection is unchanged.
    pub(crate) fn is_unsent(&self) -> bool {
        self.usable && self.code == 0
    }

    /// Whether a row is rejected because of its values, not because of a duplicate key.
    pub(crate) fn is_about_values(&self) -> bool {
        self.error.class() == ErrorClass::Row && self.code != DUPLICATE && self.usable
    }

    /// Classifies an error of a request without row values: connect, catalog, prepare.
    pub(crate) fn asked(error: sqlx::Error) -> Self {
        Self::of(error, Stage::Open, |error| asked(number(error), error.message()))
    }

    /// Classifies an error of a statement without row values that may have been executed.
    pub(crate) fn after(error: sqlx::Error, stage: Stage) -> Self {
        Self::of(error, stage, |error| asked(number(error), error.message()))
    }

    /// Classifies an error of a statement with row values. The server's message is not included because it may
    /// contain values, even if its code promises that it does not: a trigger can combine any message with any code.
    pub(crate) fn sent(error: sqlx::Error, stage: Stage, table: &Table) -> Self {
        let mut place = DuplicateIn::Unknown;
        let failed = Self::of(error, stage, |error| {
            let code = if is_raised(state(error)) { RAISED } else { number(error) };
            if code == DUPLICATE {
                place = duplicate_in(error.message(), table);
            }
            sent(code, error.message(), table)
        });
        Self { duplicate_in: place, ..failed }
    }

    fn of(error: sqlx::Error, stage: Stage, words: impl FnOnce(&dyn DatabaseError) -> String) -> Self {
        if let sqlx::Error::Database(error) = &error {
            let (code, state) = (number(error.as_ref()), state(error.as_ref()));
            let class = class(code, state, stage);
            let error = SinkError::with_code(class, code, words(error.as_ref()));
            let error = if matches!(code, 1216 | 1452) { error.of_foreign_key() } else { error };
            let usable = is_raised(state) || (!ends_the_connection(code) && class != ErrorClass::Unknown);
            let if_refused = if_refused(code, state, stage).filter(|_| class == ErrorClass::Unknown);
            let code = if is_raised(state) { 0 } else { code };
            return Self { error, usable, code, duplicate_in: DuplicateIn::Unknown, if_refused };
        }
        let (error, duplicate_in) = (client_error(error, stage), DuplicateIn::Unknown);
        Self { error, usable: false, code: 0, duplicate_in, if_refused: None }
    }
}

/// The error if the pool provides no connection, or if a connection fails while it is opened.
pub(crate) fn acquire_error(error: sqlx::Error) -> SinkError {
    match error {
        sqlx::Error::PoolTimedOut => {
            let text = "the pool gave no connection in time: every connection is in use; raise max_connections, or close what holds them";
            SinkError::new(ErrorClass::Transient, text)
        }
        sqlx::Error::PoolClosed => {
            SinkError::new(ErrorClass::Internal, "the pool was closed; close the pipeline first")
        }
        error => Failed::asked(error).error,
    }
}

fn client_error(error: sqlx::Error, stage: Stage) -> SinkError {
    let class = match stage {
        Stage::Open => ErrorClass::Transient,
        Stage::Statement | Stage::Commit => ErrorClass::Unknown,
    };
    match error {
        sqlx::Error::Io(error) => SinkError::new(class, "the connection to the server was lost").caused_by(error),
        sqlx::Error::Tls(_) => SinkError::new(class, "the TLS connection to the server failed"),
        // The packet could not be parsed: the outcome is as unknown as after a lost connection.
        sqlx::Error::Protocol(_) => SinkError::new(class, "the server's answer could not be understood"),
        // All other errors come from the client. Their text may quote a value, so it is not included.
        _ => SinkError::new(ErrorClass::Internal, "the mysql client failed"),
    }
}

/// The server's error number.
pub(crate) fn number(error: &dyn DatabaseError) -> u16 {
    error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number)
}

fn state(error: &dyn DatabaseError) -> &str {
    error.try_downcast_ref::<MySqlDatabaseError>().and_then(MySqlDatabaseError::code).unwrap_or_default()
}

/// Whether a trigger or a routine raised the error by `SIGNAL`. The server itself never uses this SQLSTATE class.
fn is_raised(state: &str) -> bool {
    state.starts_with("45")
}

/// Whether the server may have executed the statement that this code answers.
fn may_be_done(code: u16, stage: Stage) -> bool {
    // A proxy lost its connection to the server: MaxScale reports 1927, ProxySQL 2006 or 2013, Vitess 1105.
    let is_lost_link = matches!(code, 1105 | 1158..=1161 | 1927 | 2006 | 2013 | 2055);
    // MySQL also checks for a KILL or its own shutdown after the statement is done, and then returns these codes.
    // 1180 is "got error during COMMIT": the engine does not report whether the commit happened. TiDB returns 8501 if
    // the outcome is undetermined.
    let is_perhaps_late = matches!(code, 1053 | 1180 | 1317 | 3169 | 8501);
    match stage {
        Stage::Open => false,
        // A statement that exceeds its time limit is rolled back before the server reports it.
        Stage::Statement => is_lost_link || is_perhaps_late,
        Stage::Commit => is_lost_link || is_perhaps_late || matches!(code, 1969 | 3024),
    }
}

/// The class of a code of a statement if the server's own list of errors has it: then the server has refused the statement and
/// rolled it back. A trigger can raise the number of a lost connection. `None` if this shows nothing: the server may tell
/// of a KILL or a shutdown after the statement is done, with its own SQLSTATE, while that of a trigger may be another one.
fn if_refused(code: u16, state: &str, stage: Stage) -> Option<ErrorClass> {
    let is_of_server = match code {
        1053 => state == "08S01",
        1317 => state == "70100",
        // 8501 is of TiDB, whose list is not asked for.
        1180 | 3169 => state == "HY000",
        _ => false,
    };
    (stage == Stage::Statement && !is_of_server).then(|| class(code, state, Stage::Open))
}

/// After these codes the connection is closed, by the server or by us: a server that became read-only stays so for
/// its connections, while a new connection may reach the new primary.
fn ends_the_connection(code: u16) -> bool {
    is_read_only(code)
        || is_under_locks(code)
        || matches!(
            code,
            1047 | 1053 | 1153..=1161 | 1184 | 1243 | 1317 | 1927 | 2006 | 2013 | 2055 | 3032 | 3169 | 4031
        )
}

/// The application has left LOCK TABLES on the connection. Another one has no locks.
fn is_under_locks(code: u16) -> bool {
    matches!(code, 1099 | 1100)
}

/// Read-only by option, transaction, start mode or engine; a replication plugin that refuses writes.
fn is_read_only(code: u16) -> bool {
    matches!(code, 1290 | 1792 | 1836 | 1874 | 3100)
}

/// Transient errors of proxies and of other servers with this protocol. TiDB: 8002 to 8028, 8113, 8120, 8229 and 9001
/// to 9013, without a write (<https://docs.pingcap.com/tidb/stable/error-codes>; an undetermined outcome is 8501).
/// ProxySQL: 9001 to 9020 (`PROXYSQL_MYSQL_ERR`). Vitess: 1105 for every error without its own number
/// (`go/mysql/sqlerror`), also for an unavailable shard. Proxies that cannot reach a server: 2002, 2003, 2005.
fn is_passing_elsewhere(code: u16) -> bool {
    matches!(
        code,
        1105 | 2002 | 2003 | 2005 | 8002 | 8005 | 8020 | 8022 | 8027 | 8028 | 8113 | 8120 | 8229 | 8501 | 9001..=9020
    )
}

/// The class of a server code. A code that is not listed is classified by its SQLSTATE. If one value may be the
/// reason (a trigger that needs a table, a right or a routine), the class follows the code, and the pipeline searches
/// for a bad row.
pub(crate) fn class(code: u16, state: &str, stage: Stage) -> ErrorClass {
    match code {
        _ if is_raised(state) => ErrorClass::Row,
        _ if may_be_done(code, stage) => ErrorClass::Unknown,
        // Too many connections, of the server or of the user.
        1040 | 1203 | 1226 => ErrorClass::Transient,
        // Shutdown, offline, killed, time limit exceeded, network, deadlock, lock timeout, concurrent change of a
        // row, table or statement.
        1020
        | 1047
        | 1053
        | 1152
        | 1158..=1161
        | 1184
        | 1205
        | 1213
        | 1243
        | 1297
        | 1317
        | 1412
        | 1615
        | 1927
        | 1969
        | 2006
        | 2013
        | 2055
        | 3024
        | 3032
        | 3101
        | 3168
        | 3169
        | 4031 => ErrorClass::Transient,
        _ if is_passing_elsewhere(code) || is_under_locks(code) => ErrorClass::Transient,
        // The last ones are TiDB codes: a year, a key of a JSON object, a row that is too large.
        1022 | 1048 | 1062 | 1118 | 1138 | 1169 | 1172 | 1216 | 1217 | 1242 | 1263 | 1264 | 1265 | 1292 | 1300
        | 1301 | 1329 | 1339 | 1365 | 1366 | 1367 | 1406 | 1411 | 1416 | 1441 | 1451 | 1452 | 1525 | 1526 | 1557
        | 1586 | 1644 | 1645 | 1690 | 1748 | 1761 | 1762 | 1859 | 1977 | 3140 | 3141 | 3144 | 3156 | 3819 | 3854
        | 3903 | 3988 | 4025 | 4038 | 8025 | 8032 | 8033 | 8129 => ErrorClass::Row,
        1046 | 1049 | 1051 | 1054 | 1064 | 1109 | 1136 | 1146 | 1241 | 1288 | 1305 | 1347 | 1348 | 1356 | 1364
        | 1394 | 1415 | 1422 | 1424 | 1442 | 1471 | 1814 | 1906 | 1932 | 3098 | 3105 => ErrorClass::Schema,
        1044 | 1045 | 1129 | 1130 | 1142 | 1143 | 1227 | 1251 | 1370 | 1449 | 1524 | 1698 | 1820 | 1862 | 3118
        | 3159 | 3955 | 4151 | 8121 => ErrorClass::Permission,
        // A packet is too large, a statement has too many placeholders, or a transaction exceeds the binary log
        // cache; in TiDB also the transaction or memory limit.
        1153 | 1197 | 1390 | 8001 | 8004 | 8175 | 9500 => ErrorClass::Size,
        _ if is_read_only(code) => ErrorClass::Resource,
        // Disk, memory, table or lock table full, a damaged table, exhausted numbers, too many prepared
        // statements.
        1021 | 1026 | 1030 | 1034 | 1036 | 1037 | 1038 | 1041 | 1114 | 1135 | 1180 | 1194 | 1195 | 1206 | 1223
        | 1461 | 1467 | 1598 | 1637 | 1785 | 4084 | 8059 | 8176 | 8252 => ErrorClass::Resource,
        _ => match state.get(..2) {
            // No data, no matching case, more than one row, a bad value, a constraint.
            Some("02" | "20" | "21" | "22" | "23" | "44") => ErrorClass::Row,
            Some("08") if stage != Stage::Open => ErrorClass::Unknown,
            Some("08" | "40") => ErrorClass::Transient,
            Some("28") => ErrorClass::Permission,
            Some("42") => ErrorClass::Schema,
            // A COMMIT that fails for an unknown reason has an unknown outcome.
            _ if stage == Stage::Commit => ErrorClass::Unknown,
            _ => ErrorClass::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_class() {
        let check = |codes: &[u16], expected| {
            for code in codes {
                for stage in [Stage::Open, Stage::Statement, Stage::Commit] {
                    assert_eq!(class(*code, "HY000", stage), expected, "code {code} {stage:?}");
                }
            }
        };
        check(&[1205, 1213, 1020, 1040, 1099, 1100, 1203, 1226, 1615, 3032, 3101], ErrorClass::Transient);
        // Codes of TiDB, ProxySQL and other proxies.
        check(&[2003, 8002, 8005, 8022, 8027, 8028, 9001, 9002, 9003, 9004, 9005, 9006, 9007], ErrorClass::Transient);
        // From expressions and triggers.
        check(&[1242, 1172, 1329, 1339, 1365, 1690], ErrorClass::Row);
        // The last ones are MySQL 8 codes: check constraint, JSON text, conversion of characters.
        check(&[1062, 1048, 1452, 4025, 1406, 1264, 1366, 1292, 1526, 1644, 3819, 3140, 3988], ErrorClass::Row);
        // 1364: a column that the rows lack has no default. A generated column is 3105 in MySQL, 1906 in MariaDB.
        check(&[1146, 1054, 1049, 1364, 1442, 3105, 1906], ErrorClass::Schema);
        check(&[1142, 1143, 1044, 1045, 1227], ErrorClass::Permission);
        check(&[1290, 1792, 1836, 1874, 1036, 1206, 1021, 1114, 1030, 3100, 4084], ErrorClass::Resource);
        check(&[1153, 1197, 1390], ErrorClass::Size);
        check(&(9001..=9020).collect::<Vec<u16>>(), ErrorClass::Transient);
    }

    /// The numbers in backticks of a cell, with ranges (`9002`–`9005`), and the SQLSTATE that it gives.
    fn codes_of(cell: &str) -> (Vec<u16>, &str) {
        let mut codes: Vec<u16> = Vec::new();
        let (mut state, mut before) = ("HY000", "");
        for (number, part) in cell.split('`').enumerate() {
            match (number % 2, part.parse()) {
                (1, Ok(last)) if before == "–" => codes.extend(codes[codes.len() - 1] + 1..=last),
                (1, Ok(code)) if part.len() == 4 => codes.push(code),
                (1, _) => state = part,
                _ => before = part,
            }
        }
        (codes, state)
    }

    #[test]
    fn the_page_about_other_servers_says_what_this_code_does() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/other-servers.md")).unwrap();
        let (_, page) = page.split_once("\n## MySQL protocol\n").unwrap();
        let (page, _) = page.split_once("\n## ").unwrap();
        let stages = [Stage::Open, Stage::Statement, Stage::Commit];
        let mut seen = Vec::new();
        let mut is_table_of_classes = false;
        for line in page.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            match cells.as_slice() {
                [_] => is_table_of_classes = false,
                [_, .., "class in BatchSQL"] => is_table_of_classes = true,
                [first, .., said] if is_table_of_classes && first.starts_with('`') => {
                    let (codes, state) = codes_of(first);
                    assert!(!codes.is_empty(), "{line}");
                    for code in codes {
                        let classes = stages.map(|stage| class(code, state, stage).name());
                        let text = match classes {
                            [open, statement, commit] if open == statement && open == commit => open.to_owned(),
                            [open, "unknown", "unknown"] => format!("{open}; unknown after a statement or COMMIT"),
                            [open, _, last] => format!("{open}; {last} after COMMIT"),
                        };
                        assert_eq!(*said, text, "code {code}");
                        seen.push(code);
                    }
                }
                _ => {}
            }
        }
        for code in [1205, 8004, 8025, 8501, 9003, 1105, 1235] {
            assert!(seen.contains(&code), "the page has no line about {code}: {seen:?}");
        }
    }

    /// Its server may stay read-only, while a new connection reaches the new primary; another one has no LOCK TABLES.
    #[test]
    fn a_connection_to_a_server_that_refuses_writes_is_closed() {
        for code in [1290, 1792, 1836, 1874, 3100, 1099, 1100] {
            assert!(ends_the_connection(code), "code {code}");
        }
        for code in [1036, 1062, 1146, 1205, 1213] {
            assert!(!ends_the_connection(code), "code {code}");
        }
    }

    #[test]
    fn what_is_not_listed_is_judged_by_its_state() {
        let check = |state, expected| assert_eq!(class(9999, state, Stage::Open), expected, "{state:?}");
        check("23000", ErrorClass::Row);
        check("22032", ErrorClass::Row);
        check("45000", ErrorClass::Row);
        check("20000", ErrorClass::Row);
        check("21000", ErrorClass::Row);
        check("40001", ErrorClass::Transient);
        check("42S99", ErrorClass::Schema);
        check("28000", ErrorClass::Permission);
        check("HY000", ErrorClass::Internal);
        check("", ErrorClass::Internal);
    }

    #[test]
    fn what_a_trigger_raises_is_about_its_row_whatever_number_it_gives() {
        for code in [1062, 1146, 1213, 1290, 1644, 2013, 9999] {
            for stage in [Stage::Open, Stage::Statement, Stage::Commit] {
                assert_eq!(class(code, "45000", stage), ErrorClass::Row, "code {code}");
            }
        }
    }

    #[test]
    fn what_may_have_happened_is_unknown() {
        let check = |code, state, classes: [ErrorClass; 3]| {
            let stages = [Stage::Open, Stage::Statement, Stage::Commit];
            assert_eq!(stages.map(|stage| class(code, state, stage)), classes, "code {code}");
        };
        for code in [1105, 8501] {
            check(code, "HY000", [ErrorClass::Transient, ErrorClass::Unknown, ErrorClass::Unknown]);
        }
        check(1180, "HY000", [ErrorClass::Resource, ErrorClass::Unknown, ErrorClass::Unknown]);
        for (late, state) in [(1053, "08S01"), (1317, "70100"), (3169, "HY000")] {
            check(late, state, [ErrorClass::Transient, ErrorClass::Unknown, ErrorClass::Unknown]);
        }
        for (late, state) in [(1969, "70100"), (3024, "HY000")] {
            check(late, state, [ErrorClass::Transient, ErrorClass::Transient, ErrorClass::Unknown]);
        }
        // Lost connections as proxies report them.
        for (code, state) in [(1927, "70100"), (2013, "HY000"), (2006, "HY000"), (1160, "08S01"), (9999, "08S01")] {
            check(code, state, [ErrorClass::Transient, ErrorClass::Unknown, ErrorClass::Unknown]);
        }
        check(9999, "HY000", [ErrorClass::Internal, ErrorClass::Internal, ErrorClass::Unknown]);
        // The server had closed the connection before it received the statement.
        check(4031, "HY000", [ErrorClass::Transient; 3]);
        check(1153, "08S01", [ErrorClass::Size; 3]);
    }

    #[test]
    fn what_the_server_may_tell_of_a_statement_that_is_done_shows_no_refusal() {
        let check =
            |code, state, stage, expected| assert_eq!(if_refused(code, state, stage), expected, "{code} {state}");
        let raised =
            [(2013, "HY000"), (2006, "HY000"), (1158, "08S01"), (1317, "HY000"), (1053, "HY000"), (8501, "HY000")];
        for (code, state) in raised {
            check(code, state, Stage::Statement, Some(ErrorClass::Transient));
            check(code, state, Stage::Commit, None);
        }
        check(1180, "99001", Stage::Statement, Some(ErrorClass::Resource));
        for (code, state) in [(1317, "70100"), (1053, "08S01"), (3169, "HY000"), (1180, "HY000")] {
            check(code, state, Stage::Statement, None);
        }
    }

    #[test]
    fn a_lost_link_is_judged_by_what_was_sent() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        for stage in [Stage::Open, Stage::Statement, Stage::Commit] {
            let class = if stage == Stage::Open { ErrorClass::Transient } else { ErrorClass::Unknown };
            let failed = Failed::of(lost(), stage, |_| String::new());
            assert_eq!((failed.error.class(), failed.usable), (class, false));
        }
    }
}
