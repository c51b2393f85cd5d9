//! The MySQL and MariaDB sink of BatchSQL: prepared multi-row inserts over the binary protocol, one transaction per
//! batch, and an exact outcome for every row. MySQL 8 and MariaDB 10.6 or later.
//!
//! ```no_run
//! use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
//! use batchsql_mysql::MySqlSink;
//! use std::time::Duration;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let sink = MySqlSink::connect("mysql://app:secret@localhost/shop").await?;
//! let db = BatchSql::builder(sink).start()?;
//! let events = Schema::builder("events")
//!     .column("id", ColumnType::I64)
//!     .nullable("body", ColumnType::Text)
//!     .on_conflict(Conflict::ignore(["id"]))
//!     .build()?;
//! db.submit(&events.row().set("id", 1_i64)?.set("body", "hi")?.finish()?).await?;
//! let report = db.close(Duration::from_secs(10)).await;
//! assert_eq!(report.balance.written(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Conflicts
//!
//! | rule | statement |
//! |---|---|
//! | none | `INSERT`; a duplicate is an error of that row |
//! | ignore | `INSERT`; after a duplicate the existing keys are read, and the other rows are inserted |
//! | update, replace, expressions | `INSERT … ON DUPLICATE KEY UPDATE` |
//! | only if newer | `SELECT … FOR UPDATE` of the keys and versions; then `INSERT` of the new keys and `INSERT … ON DUPLICATE KEY UPDATE` of those that win |
//! | update only | `UPDATE … JOIN`, row by row for text keys |
//! | delete | `DELETE` |
//!
//! For update only and delete, keys that are not in the table are found by a first statement of which the total says that
//! a key is missing: it is undone, and the keys are read `FOR UPDATE`. `on_constraint` and `on_partial_index` are refused.
//!
//! **MySQL has no conflict target: a duplicate in any unique index of the table counts**, not only in the one over
//! the key. With ignore such a row ends as `Ignored`; with update and replace it overwrites the existing row,
//! which has another key. If a table has further unique indexes, the sink logs one warning.
//!
//! [`IgnoreWith::InsertIgnore`] and [`ReplaceWith::ReplaceInto`] use MySQL's own statements, with their side effects.
//!
//! The server decides which values are equal: if the collation of a key treats `a` and `A` as equal, so do these
//! rules. The order per key does not: rows of such keys are written in any order, also within a batch, unless the
//! pipeline uses `Ordering::PerTable`.
//!
//! # Types
//!
//! | BatchSQL | column |
//! |---|---|
//! | bool | BOOLEAN, BIT(1), integers |
//! | i16, i32, i64, u64 | integers, DECIMAL, BIT(n), YEAR; a number that the column cannot hold is an error of its row |
//! | f32 | FLOAT, DOUBLE |
//! | f64 | DOUBLE; `NaN` and infinity are refused at admission, and MariaDB stores `-0.0` as `0.0` |
//! | decimal | DECIMAL, or text; more fraction digits than the column has are an error of their row |
//! | text | CHAR, VARCHAR, TEXT, ENUM, SET (`a,b`), YEAR (four digits), BIT(n) (`0101`), TIME (`[-]hhh:mm:ss`, to 838:59:59), geometries (`POINT(1 2)`, SRID 0), MariaDB's INET4, INET6, UUID; text that is none of these is an error of its row |
//! | bytes | VARBINARY, BLOB, BINARY(n) for values of exactly n bytes |
//! | uuid | BINARY(16), CHAR(36) and other text, MariaDB's UUID |
//! | json | JSON, or text |
//! | date, time | DATE, TIME |
//! | timestamp | DATETIME |
//! | timestamptz | DATETIME, which then holds UTC, or TIMESTAMP (1970 to 2038) in a session in UTC |
//!
//! Declare TIME, DATETIME and TIMESTAMP with `(6)`: a value with finer fractions of a second than its column is an
//! error of its row, as is everything else that even a strict server would silently change: digits of a decimal,
//! trailing spaces of a CHAR, white space beyond the length of a text column, zeros that pad a BINARY. A column that
//! does not fit its type is rejected when its table is first read.
//!
//! # Statements
//!
//! A batch that fits into one statement is one round trip, in autocommit. A larger batch (more than 65,535
//! values, the server's `max_allowed_packet` or 16 MiB) is split, inside one transaction.
//!
//! A statement is prepared for one row count. About 20 stay prepared per table and connection: small counts, and
//! those that repeat. For other counts the round trip to the server decides:
//!
//! | server | the rows are |
//! |---|---|
//! | near (a round trip below 0.3 ms) | cut into powers of two, whose statements stay prepared too |
//! | farther away | in the text of one statement: one round trip, see [`ValuesInText`] |
//! | farther away, with a pool of yours | in a statement that is prepared for them and then closed: two round trips, because `sqlx` may log the texts of your pool |
//!
//! From a round trip of 5 ms on, batches grow while they wait for a connection. A connection of the sink's own pool
//! keeps up to 256 statements prepared (`statement-cache-capacity`), enough for about ten tables; each takes about
//! 500 bytes of server memory per value. Tables need an engine with transactions (InnoDB).
//!
//! Values in the text of a statement also appear in the statement logs of the server or a proxy.
//! `values_in_text=never` prevents that.
//!
//! # Abandoned writes
//!
//! A write that takes longer than `statement_timeout`, or longer than `close` may wait, is abandoned, and its
//! connection is closed. The server does not notice this before the statement ends, and the network may deliver the
//! statement later. A transaction of several statements is then rolled back, and its rows are known not to be
//! written. A statement in autocommit may still be executed: its rows end as `Unknown` unless they are retried.
//!
//! So that such a statement does not overwrite newer rows, the next write of that lane (rows with a declared key, or
//! `Ordering::PerTable`) waits until the old session is gone: the sink ends it with `KILL` and checks the process
//! list.
//!
//! - It uses its own connection outside the pool, with the pool's connect options and none of its hooks. This
//!   connection is opened when it is first needed, and kept. If the server accepts no further connection, one of the
//!   pool is used.
//! - It kills only its own session: the connection id, on the same server (host name, port, `server_uuid` or
//!   `server_id` and data directory) that was not restarted since, with the same user and client host. After a
//!   restart nothing is killed, because the session ended with the server.
//! - It costs one round trip each time a connection is taken from the pool, and two more once per sink.
//! - It needs no further right: users can see and kill their own sessions.
//!
//! Some servers and proxies end sessions in another way: TiDB, Vitess, ProxySQL, Amazon RDS Proxy and some others are
//! detected, with one warning. **Behind any other proxy that shares sessions between clients, or routes each
//! statement separately, set [`AbandonedWrites::Wait`]**: nothing is killed then. If nothing can be killed, the lane
//! waits for [`MySqlOptions::late_write_limit`]; without that setting it continues at once, and the order of its rows
//! is not guaranteed after such a write. No session is ended when this process crashes.
//!
//! Sessions of [`MySqlSink::connect`] wait for a lock for 20 s at most; the timeout is a transient error. If
//! `statement_timeout` is shorter, or the pool is yours, set `innodb_lock_wait_timeout` and `lock_wait_timeout` below
//! it, so that fewer writes are abandoned.
//!
//! Tested with MariaDB 10.11. MySQL 8 support follows its documentation and is not tested.
//!
//! # Tables that change
//!
//! The definition of a table is read before its first row, after an error that may come from a change, and every 60 s
//! ([`Settings::table_check_interval`]). Connections notice a smaller `max_allowed_packet` that applies to them;
//! only the next sink uses a larger one.
//!
//! # Rights
//!
//! The user needs INSERT; for ignore also SELECT on the key columns, and for update UPDATE.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod all_exist;
mod bind;
mod catalog;
mod change;
mod checks;
mod classify;
mod conn;
mod doubles;
mod dsn;
mod find_written;
mod guard;
mod holder;
mod in_use;
mod insert;
mod keys;
mod learned;
mod link;
mod listed;
mod literals;
mod locks;
mod members;
mod options;
mod piece;
mod plan;
mod position;
mod quoted;
mod read_schema;
mod refusal;
mod returning;
mod seen;
mod session;
mod session_names;
mod set_up;
mod settings;
mod sink;
mod statements;
mod tables;
mod types;
mod watcher;
mod way;
mod wkt;
mod words;
mod write;
mod write_by_key;
mod write_ignore;
mod write_returning;

/// The client of this sink, for [`MySqlSink::mysql_pool`].
pub use sqlx;

pub use batchsql_core::{AbandonedWrites, OpenError};
pub use conn::MySqlConn;
pub use options::MySqlOptions;
pub use plan::MySqlPlan;
pub use settings::{IgnoreWith, ReplaceWith, Settings, ValuesInText};
pub use sink::MySqlSink;
