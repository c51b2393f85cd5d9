//! Owns the translation of server codes into error classes, and what of an error may be repeated.
//! Must not know statements: the code decides, never the message.
//!
//! Codes: <https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html> and
//! <https://mariadb.com/kb/en/mariadb-error-code-reference/>.

use batchsql_core::{ErrorClass, SinkError};
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

/// A duplicate in a unique index.
pub(crate) const DUPLICATE: u16 = 1062;

/// What had been sent when an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing that could have become durable.
    Open,
    /// A statement that is a transaction of its own.
    Statement,
    /// `COMMIT`.
    Commit,
}

/// A failed statement.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: SinkError,
    /// Whether the connection can take the next statement.
    pub(crate) usable: bool,
    /// The server's code; 0 without one.
    pub(crate) code: u16,
}

impl Failed {
    /// An error that was found before anything was sent.
    pub(crate) fn unsent(error: SinkError) -> Self {
        Self { error, usable: true, code: 0 }
    }

    /// Whether a row is refused for what it holds, rather than for its key.
    pub(crate) fn is_about_values(&self) -> bool {
        self.error.class() == ErrorClass::Row && self.code != DUPLICATE && self.usable
    }

    /// What a statement's error means.
    pub(crate) fn of(error: sqlx::Error, stage: Stage) -> Self {
        if let sqlx::Error::Database(error) = &error {
            let code = number(error.as_ref());
            let class = class(code, error.code().as_deref().unwrap_or_default(), stage);
            let error = SinkError::with_code(class, code, describe(error.as_ref()));
            let usable = !ends_the_connection(code) && class != ErrorClass::Unknown;
            return Self { error, usable, code };
        }
        Self { error: client_error(error, stage), usable: false, code: 0 }
    }
}

/// The error of a pool that gives no connection, or of a connection that fails while it is opened.
pub(crate) fn acquire_error(error: sqlx::Error) -> SinkError {
    match error {
        sqlx::Error::PoolTimedOut => {
            let text =
                "the pool gave no connection in time; the server is not reachable, or every connection is in use";
            SinkError::new(ErrorClass::Transient, text)
        }
        sqlx::Error::PoolClosed => {
            SinkError::new(ErrorClass::Internal, "the pool was closed; close the pipeline first")
        }
        error => Failed::of(error, Stage::Open).error,
    }
}

fn client_error(error: sqlx::Error, stage: Stage) -> SinkError {
    let class = match stage {
        Stage::Open => ErrorClass::Transient,
        Stage::Statement | Stage::Commit => ErrorClass::Unknown,
    };
    match error {
        sqlx::Error::Io(error) => SinkError::new(class, "the link to the server was lost").caused_by(error),
        sqlx::Error::Tls(_) => SinkError::new(class, "the TLS link to the server failed"),
        // The packet could not be understood: what the server did is as unknown as after a lost link.
        sqlx::Error::Protocol(_) => SinkError::new(class, "the server's answer could not be understood"),
        // Everything else is the client's own; its text may quote a value, so it is not repeated.
        _ => SinkError::new(ErrorClass::Internal, "the mysql client failed"),
    }
}

/// The server's number of an error.
pub(crate) fn number(error: &dyn DatabaseError) -> u16 {
    error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number)
}

/// The server's message where it names only tables, columns, constraints and users; otherwise our own words,
/// because the server's may quote the row.
pub(crate) fn describe(error: &dyn DatabaseError) -> String {
    let code = number(error);
    match code {
        // It names the table, of the rows or of a trigger, and leaves open what to do.
        1146 => format!("{}; create it before rows are submitted", error.message()),
        _ if is_quotable(code) => error.message().to_owned(),
        _ => description(code).to_owned(),
    }
}

/// Whether the server may have carried out what this code is the answer to.
fn may_be_done(code: u16, stage: Stage) -> bool {
    // The link to the server was lost, in the words of a proxy before it: MaxScale says 1927, ProxySQL 2006 or 2013,
    // Vitess 1105.
    let is_lost_link = matches!(code, 1105 | 1158..=1161 | 1927 | 2006 | 2013 | 2055);
    // MySQL looks for a KILL or its own shutdown also when the statement is done, and then says this instead. 1180 is
    // "got error during COMMIT": the engine does not say on which side of it.
    let is_perhaps_late = matches!(code, 1053 | 1180 | 1317 | 3169);
    match stage {
        Stage::Open => false,
        // A statement that is out of time is undone before the server says so.
        Stage::Statement => is_lost_link || is_perhaps_late,
        Stage::Commit => is_lost_link || is_perhaps_late || matches!(code, 1969 | 3024),
    }
}

/// After these the server closes the connection.
fn ends_the_connection(code: u16) -> bool {
    matches!(code, 1053 | 1153..=1161 | 1184 | 1243 | 1317 | 1927 | 2006 | 2013 | 2055 | 3169 | 4031)
}

/// The class of a server code. A code that is not listed is judged by its SQLSTATE.
fn class(code: u16, state: &str, stage: Stage) -> ErrorClass {
    match code {
        _ if may_be_done(code, stage) => ErrorClass::Unknown,
        // Too many connections, of the server or of the user.
        1040 | 1203 | 1226 => ErrorClass::Transient,
        // Shutdown, offline, killed, out of time, network, deadlock, lock timeout, row, table or statement changed
        // meanwhile. 9001 is ProxySQL's word for no server that answers.
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
        | 4031
        | 9001 => ErrorClass::Transient,
        1022 | 1048 | 1062 | 1118 | 1169 | 1216 | 1217 | 1264 | 1265 | 1292 | 1300 | 1301 | 1365 | 1366 | 1367
        | 1406 | 1411 | 1416 | 1441 | 1451 | 1452 | 1525 | 1526 | 1557 | 1586 | 1644 | 1645 | 1690 | 1748 | 1761
        | 1762 | 1859 | 1977 | 3140 | 3141 | 3144 | 3156 | 3819 | 3854 | 3903 | 3988 | 4025 | 4038 => ErrorClass::Row,
        // Also what a trigger does that it may not do.
        1046 | 1049 | 1051 | 1054 | 1064 | 1100 | 1109 | 1136 | 1146 | 1288 | 1305 | 1347 | 1348 | 1356 | 1364
        | 1394 | 1415 | 1422 | 1424 | 1442 | 1471 | 1814 | 1906 | 1932 | 3098 | 3105 => ErrorClass::Schema,
        1044 | 1045 | 1129 | 1130 | 1142 | 1143 | 1227 | 1251 | 1370 | 1449 | 1524 | 1698 | 1820 | 1862 | 3118
        | 3159 | 3955 | 4151 => ErrorClass::Permission,
        // A packet, the placeholders, or a transaction that is larger than the binary log's cache.
        1153 | 1197 | 1390 => ErrorClass::Size,
        // Disk, memory, table or lock table full, a damaged table, numbers that are used up, too many prepared
        // statements, and servers that are read-only, perhaps until they have failed over.
        1021 | 1026 | 1030 | 1034 | 1036 | 1037 | 1038 | 1041 | 1114 | 1135 | 1180 | 1194 | 1195 | 1206 | 1223
        | 1290 | 1461 | 1467 | 1598 | 1637 | 1785 | 1792 | 1836 | 1874 | 3100 => ErrorClass::Resource,
        _ => match state.get(..2) {
            Some("22" | "23" | "44" | "45") => ErrorClass::Row,
            Some("08") if stage != Stage::Open => ErrorClass::Unknown,
            Some("08" | "40") => ErrorClass::Transient,
            Some("28") => ErrorClass::Permission,
            Some("42") => ErrorClass::Schema,
            // Nobody knows what stands behind a COMMIT that fails for a reason that nobody knows.
            _ if stage == Stage::Commit => ErrorClass::Unknown,
            _ => ErrorClass::Internal,
        },
    }
}

/// Whether the server's message holds names and numbers only.
fn is_quotable(code: u16) -> bool {
    matches!(
        code,
        1040 | 1044
            ..=1046
                | 1048
                | 1049
                | 1053
                | 1054
                | 1114
                | 1118
                | 1129
                | 1130
                | 1136
                | 1142
                | 1143
                | 1146
                | 1153
                | 1203
                | 1205
                | 1206
                | 1213
                | 1226
                | 1227
                | 1264
                | 1265
                | 1290
                | 1364
                | 1406
                | 1449
                | 1451
                | 1452
                | 1461
                | 1471
                | 1698
                | 1792
                | 1836
                | 1906
                | 3105
                | 3819
                | 4025
    )
}

/// For codes whose message may quote a value.
fn description(code: u16) -> &'static str {
    match code {
        1022 | 1062 | 1169 | 1586 | 1859 => "a unique index has this row's key already",
        1292 | 1366 | 1367 | 1411 | 1525 => "a value is not one that its column can hold",
        1300 | 1977 | 3854 | 3988 => "a text has a character that its column's character set does not have",
        1526 | 1748 => "the table has no partition for this row",
        1644 | 1645 => "a trigger refused this row",
        1690 => "a number is out of range in an expression of the table",
        3140 | 3141 | 3144 | 3156 | 4038 => "a text is not a JSON document that the server accepts",
        _ => "the server refused the statement; see its documentation for the code",
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
        check(&[1205, 1213, 1020, 1040, 1203, 1226, 1615, 3032, 3101], ErrorClass::Transient);
        // The last ones are of MySQL 8: check constraint, JSON text, conversion of characters.
        check(&[1062, 1048, 1452, 4025, 1406, 1264, 1366, 1292, 1526, 1644, 3819, 3140, 3988], ErrorClass::Row);
        // 1364: a column that rows do not carry has no default. 3105 is MySQL's word for a generated column, 1906
        // MariaDB's.
        check(&[1146, 1054, 1049, 1364, 1442, 3105, 1906], ErrorClass::Schema);
        check(&[1142, 1143, 1044, 1045, 1227], ErrorClass::Permission);
        check(&[1290, 1792, 1836, 1874, 1036, 1206, 1021, 1114, 1030, 3100], ErrorClass::Resource);
        check(&[1153, 1197, 1390], ErrorClass::Size);
    }

    #[test]
    fn what_is_not_listed_is_judged_by_its_state() {
        let check = |state, expected| assert_eq!(class(9999, state, Stage::Open), expected, "{state:?}");
        check("23000", ErrorClass::Row);
        check("22032", ErrorClass::Row);
        check("45000", ErrorClass::Row);
        check("40001", ErrorClass::Transient);
        check("42S99", ErrorClass::Schema);
        check("28000", ErrorClass::Permission);
        check("HY000", ErrorClass::Internal);
        check("", ErrorClass::Internal);
    }

    #[test]
    fn what_may_have_happened_is_unknown() {
        let check = |code, state, classes: [ErrorClass; 3]| {
            let stages = [Stage::Open, Stage::Statement, Stage::Commit];
            assert_eq!(stages.map(|stage| class(code, state, stage)), classes, "code {code}");
        };
        check(1180, "HY000", [ErrorClass::Resource, ErrorClass::Unknown, ErrorClass::Unknown]);
        for (late, state) in [(1053, "08S01"), (1317, "70100"), (3169, "HY000")] {
            check(late, state, [ErrorClass::Transient, ErrorClass::Unknown, ErrorClass::Unknown]);
        }
        for (late, state) in [(1969, "70100"), (3024, "HY000")] {
            check(late, state, [ErrorClass::Transient, ErrorClass::Transient, ErrorClass::Unknown]);
        }
        // Lost links as proxies report them.
        for (code, state) in [(1927, "70100"), (2013, "HY000"), (2006, "HY000"), (1160, "08S01"), (9999, "08S01")] {
            check(code, state, [ErrorClass::Transient, ErrorClass::Unknown, ErrorClass::Unknown]);
        }
        check(9999, "HY000", [ErrorClass::Internal, ErrorClass::Internal, ErrorClass::Unknown]);
        // The server had hung up before it got the statement.
        check(4031, "HY000", [ErrorClass::Transient; 3]);
        check(1153, "08S01", [ErrorClass::Size; 3]);
    }

    #[test]
    fn a_lost_link_is_judged_by_what_was_sent() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        for stage in [Stage::Open, Stage::Statement, Stage::Commit] {
            let class = if stage == Stage::Open { ErrorClass::Transient } else { ErrorClass::Unknown };
            let failed = Failed::of(lost(), stage);
            assert_eq!((failed.error.class(), failed.usable), (class, false));
        }
    }

    #[test]
    fn messages_that_may_hold_values_are_not_quotable() {
        for code in [1062, 1292, 1300, 1366, 1526, 1644, 1690, 3140, 4038, 1064, 9999] {
            assert!(!is_quotable(code), "code {code}");
        }
    }
}
