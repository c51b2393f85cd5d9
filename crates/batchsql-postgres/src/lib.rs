//! The PostgreSQL sink of BatchSQL: COPY BINARY, UNNEST, multi-row inserts or a staging table, chosen for each batch,
//! with an exact outcome for every row. For PostgreSQL 12 and later.
//!
//! ```no_run
//! use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
//! use batchsql_postgres::PostgresSink;
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let sink = PostgresSink::connect("postgres://app:secret@db.example.org/app?sslmode=verify-full").await?;
//! let db = BatchSql::builder(sink).start()?;
//!
//! let events = Schema::builder("events")
//!     .column("id", ColumnType::I64)
//!     .nullable("body", ColumnType::Text)
//!     .on_conflict(Conflict::ignore(["id"]))
//!     .build()?;
//! db.submit(&events.row().set("id", 1_i64)?.set("body", "hi")?.finish()?).await?;
//! let report = db.close(Duration::from_secs(10)).await;
//! assert!(report.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An existing pool can be used too: [`PostgresSink::new`].
//!
//! # Types
//!
//! | BatchSQL | column |
//! |---|---|
//! | bool | `boolean` |
//! | i16, i32, i64, u64 | `smallint`, `integer`, `bigint`, `numeric`; a number that the column cannot hold rejects its row. i16 and i32 also `double precision`, i16 also `real` |
//! | f32 | `real`, `double precision` |
//! | f64 | `double precision` |
//! | decimal | `numeric`, `text`, `varchar`, `char`; never by way of floating point |
//! | text | `text`, `varchar`, `char`, `name`, `citext`, enums, `json`, `jsonb`; and, read by the server, any type that has no column type of its own: `inet`, `interval`, `xml`, `uuid`, ranges, arrays as `{1,2}`, … |
//! | bytes | `bytea` |
//! | uuid | `uuid` |
//! | json | `json`, `jsonb`, `text`; in an array column a JSON array becomes an array of one dimension, whose elements stay JSON in `json[]` and `jsonb[]`, and must not be arrays or objects in others |
//! | date, time, timestamp, timestamptz | `date`, `time`, `timestamp`, `timestamptz`; instants are never turned into local times or back |
//!
//! Text for a `date`, `timestamp` or `timestamptz` column is ISO 8601, with an offset for `timestamptz`
//! (`2026-01-31T12:00:00Z`), or `infinity` or `-infinity`, which the calendar types do not have. Other text rejects its row
//! (22007).
//!
//! COPY sends the plain spellings of `inet`, `cidr`, `macaddr`, `bit`, `varbit`, `timetz`, `interval`, `int4range`,
//! `int8range`, `numrange`, `daterange`, `tsrange` and `tstzrange` in binary form (`10.0.0.0/8`, `1 day 02:00:00`, `[1,5)`); a batch with
//! another spelling is sent as text. JSON lists for arrays of these types and of all types in the table are also sent in
//! binary form; a batch with an element in another spelling (`1e3` for an integer) is sent as JSON.
//!
//! The server parses text with the settings of its session: `TimeZone` and `DateStyle` for arrays and ranges of dates
//! and times and for `timetz`, `IntervalStyle` for `interval`, `lc_monetary` for `money`. So write instants with
//! their zone (`2026-01-31T12:00:00Z`) and dates with the year first. In arrays and ranges of types that do not store
//! a zone, a date or a time of day, only plain spellings are accepted (`2026-01-31 12:00:00.5`, `31 Jan 2026`),
//! because the server silently drops the rest; `money` accepts a plain number, or the server's own output format.
//!
//! A domain is treated as its base type. A column that would change values is rejected when its table is first read;
//! text with a NUL character is rejected when the row is submitted. If it depends on the value (digits beyond
//! `numeric(p,s)` or `timestamp(p)`, spaces beyond `varchar(n)`; also in attributes of composite types and bounds of
//! ranges), its row is rejected and the other rows are written, unless [`LossyValues::LetDatabaseConvert`] is set.
//!
//! # Outcomes
//!
//! One batch is one transaction. Rows that `ON CONFLICT DO NOTHING` leaves out are found by the keys that the insert
//! returns. If a key is not returned as it was sent (`char(n)`, `numeric(p,s)`, floating point, text that is parsed
//! as another type), or if a `BEFORE` trigger of the table may drop rows, the insert returns the numbers of its rows. A
//! row that a trigger drops ends as `Ignored`, even if the trigger stored it elsewhere.
//!
//! With `only_if_newer` (`ON CONFLICT DO UPDATE … WHERE`), `update_only` (`UPDATE … FROM`) and `delete` (`DELETE … USING`)
//! the statement returns the keys that it changed, and the other rows end as `Ignored`: the stored version is not older, or
//! there is no row of this key. In a table that others inherit from (`INHERITS`), `update_only` and `delete` change the rows of the key in all of
//! them, and the statement returns the numbers of the submitted rows that were found. An update only or a delete with keys that are not returned as they were sent is written
//! by one statement for all rows or none. If rows are ignored, the batch is written in parts, which takes more statements: a
//! part of 256 rows is halved until each piece is uniform, so if ignored rows are scattered, one row may take several
//! statements. Use small batches on such tables, or a long `statement_timeout`.
//!
//! A timeout or a lost connection means `Unknown` only after the message that makes rows durable was sent: a
//! statement that commits itself, the end of the data of a COPY, a COMMIT. Before that the rows are retried.
//!
//! An error of a write whose code is about the table (`42P01`, `42501`, `55000`) may come from a trigger, or from the
//! function that parses one value (`ltree` returns `42601`). The sink reads the table again before it reports a table
//! error, and the message contains the result.
//!
//! # Keys that are equal only to the server
//!
//! Rows of one key are written in the order in which they were submitted. The pipeline identifies a key by comparing
//! values. If the server treats more keys as equal (`citext`, nondeterministic collations, trailing spaces in
//! `char(n)`, values that floating point, `json`, a `BEFORE` trigger or, with [`LossyValues::LetDatabaseConvert`],
//! `numeric(p,s)` and `timestamp(p)` make equal), rows of such keys may be in different batches at the same time,
//! and inside a batch they are sorted by key. So the last submitted row is not always the one that remains. Send
//! such keys in one form (for example in lower case), or use `Ordering::PerTable`, which keeps the order of
//! submission.
//!
//! # The table
//!
//! Its definition is read once for all schemas that need it within a second, again after 30 seconds of use
//! ([`table_check_interval`](Settings::table_check_interval)), and after an error or a count of rows that points to a
//! change. If a trigger, rule or policy is added in the meantime, the rows of the first batch may end as `Unknown` if
//! that batch was a statement that commits itself; then the table is read again. A table that is replaced by a view in the
//! meantime is seen only then: if an `INSTEAD OF` trigger of the view stores nothing but returns the row, the server counts it,
//! and it ends as `Written`. When the table is read, views are refused.
//!
//! Until then, a column that gets another type may silently change values, with every strategy: the server converts
//! values as in an assignment (`numeric` to `double precision`, `timestamp` to `timestamptz`), and with COPY it
//! interprets the binary form of another type of the same width as its own (`bigint` to `timestamptz`). Stop writing
//! to a table while the type of one of its columns changes.
//!
//! # Abandoned writes
//!
//! A write that is abandoned (`statement_timeout` of the pipeline, a lost connection) after its commit may have been
//! sent can still take effect: the server may still wait for a lock, and the system keeps sending unacknowledged
//! data, even after the connection was closed. So an ordered lane writes again only after the session of that write
//! is known to have ended:
//!
//! - Before the first ordered batch of a connection that was taken from the pool, the sink queries the name of its
//!   session: process id, start of the process, server and its start. That is one round trip, a simple query of about
//!   0.2 ms at the server. A busy pipeline keeps a connection for up to a second, so this is one query per second and
//!   connection. `sqlx` does not expose the process id that the server sent when connecting.
//! - With the first one it opens a separate connection, with the options of the pool, to end sessions. This
//!   connection counts against `max_connections` of the server: one more per sink with ordered rows. If it is lost
//!   and no other can be opened, a connection of the pool is used.
//! - A session that still exists is ended by `pg_terminate_backend`, if process id, start and user are those of the
//!   write. It has ended if its process is gone, its id belongs to another process, or the server was restarted at
//!   the same address. The state of a server at another address is not known.
//!
//! Rights: every user may see and end its own sessions; nothing more is required. This uses EXECUTE on
//! `pg_terminate_backend`, `pg_stat_get_activity` and, for the identifier of the server if it may be read,
//! `pg_control_system`. If `after_connect` runs `SET ROLE`, the user may be hidden; its sessions then have no
//! name.
//!
//! If a session cannot be ended (missing rights, a pooler, another server), the lane waits for
//! [`Settings::late_write_limit`]. Without one it continues at once, with a warning, and the order of rows after such
//! a write is not guaranteed; use a rule of the table that compares versions.
//!
//! `sqlx` 0.8 sets neither TCP keepalive nor a user timeout, and has no option for them. Set `tcp_keepalives_idle`,
//! `tcp_user_timeout` and `client_connection_check_interval` at the server, and the limits of the system at the client.
//!
//! # Poolers
//!
//! Behind PgBouncer in transaction mode, and similar poolers, use
//! [`prepared_statements(false)`](PostgresOptions::prepared_statements), and see [`Settings::prepared_statements`]
//! for the settings of the server. If the pooler itself abandons a COMMIT or a COPY that was sent (PgBouncer:
//! `query_timeout`), the outcome is not known, and its rows end as `Unknown`.
//!
//! A pooler shares one session of the server between many clients, so with `prepared_statements(false)`, or without a
//! statement cache, no session is named or ended. An undeclared pooler is detected if two connections have the same
//! session, or if one connection changes its session; from then on no session is ended. Do not rely on this
//! detection: if other programs share the pooler, it may come too late, and a session that belongs to another program
//! by then could be ended. Declare the pooler with `prepared_statements(false)`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod calendar;
mod catalog;
mod catalog_row;
mod choice;
mod classify;
mod commit_stage;
mod conn;
mod copy_form;
mod digits;
mod dsn;
mod encode;
mod field;
mod find_written;
mod fit;
mod geometry;
mod guard;
mod hosts;
mod intervals;
mod libpq;
mod list;
mod live_session;
mod open_error;
mod options;
mod outcome_source;
mod params;
mod parsed;
mod part;
mod part_fit;
mod plan;
mod position;
mod read_schema;
mod real_type;
mod refused_column;
mod returned_fit;
mod returned_keys;
mod round_trip;
mod seen;
mod servers;
mod session;
mod session_end;
mod session_names;
mod settings;
mod sink;
mod source;
mod statements;
mod table_fit;
mod tables;
mod text_parts;
mod times;
mod transaction;
mod types;
mod user_types;
mod value_fit;
mod value_limit;
mod wire;
mod write;
mod write_copy;
mod write_insert;
mod write_returning;

/// The PostgreSQL client of this sink, for [`PostgresSink::new`] and [`PostgresSink::pg_pool`].
pub use sqlx;

pub use batchsql_core::OpenError;
pub use conn::PostgresConn;
pub use options::PostgresOptions;
pub use plan::PostgresPlan;
pub use servers::TargetSession;
pub use settings::{LossyValues, Settings, Strategy};
pub use sink::PostgresSink;
