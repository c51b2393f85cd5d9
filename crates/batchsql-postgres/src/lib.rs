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
//! A pool that you have works too: [`PostgresSink::new`].
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
//! COPY sends the plain spellings of `inet`, `cidr`, `macaddr`, `bit`, `varbit`, `timetz`, `interval`, `int4range`,
//! `int8range`, `numrange` and `daterange` in binary form (`10.0.0.0/8`, `1 day 02:00:00`, `[1,5)`); a batch with another spelling is
//! sent as text.
//!
//! Text that the server reads is read with the settings of its session: `TimeZone` and `DateStyle` for arrays and ranges
//! of dates and times and for `timetz`, `IntervalStyle` for `interval`, `lc_monetary` for `money`. So write instants with
//! their zone (`2026-01-31T12:00:00Z`) and dates with the year first. In arrays and ranges of types that have no place
//! for a zone, a date or a time of day, only plain spellings are taken (`2026-01-31 12:00:00.5`, `31 Jan 2026`), because
//! the server leaves out the rest without a word; `money` takes a plain number, or what the server writes itself.
//!
//! A domain is taken as the type it is based on. A column that would change values is refused when its table is first
//! read; text with a NUL character when the row is submitted. Where it depends on the value (digits beyond
//! `numeric(p,s)` or `timestamp(p)`, spaces beyond `varchar(n)`), its row is rejected and the rows beside it are
//! written, unless [`LossyValues::LetDatabaseConvert`] is set.
//!
//! # Outcomes
//!
//! One batch is one transaction. Rows that `ON CONFLICT DO NOTHING` leaves out are found by the keys that the insert
//! returns. Where a key does not come back as it was sent (`char(n)`, `numeric(p,s)`, floating point, text that is
//! read as another type), and where a `BEFORE` trigger of the table may drop rows, the batch is written by one
//! statement that takes all rows or none. When rows are ignored, it is written in parts that are inserted whole or not at
//! all, which takes further statements: a part of 256 rows is halved until each piece is uniform, so where rows are dropped here and there, one row may take
//! several statements. Keep batches small on such tables, or `statement_timeout` long.
//! A row that a trigger drops ends as `Ignored`, also when the trigger put it somewhere else.
//!
//! A timeout, or a link that is lost, means `Unknown` only after the message was sent that makes rows durable: a
//! statement that commits itself, the end of the data of a COPY, a COMMIT. Before that the rows are written again.
//!
//! An error of a write whose code speaks of the table (`42P01`, `42501`, `55000`) may come from a trigger, or from the
//! function that reads one value (`ltree` answers `42601`). The table is read again before it is blamed, and the text
//! says what was found.
//!
//! # Keys that are equal only to the server
//!
//! Rows of one key are written in the order in which they were submitted. What one key is, the pipeline decides by
//! comparing values. Where the server sees more of them as equal (`citext`, nondeterministic collations, trailing
//! spaces in `char(n)`, values that floating point, `json`, a `BEFORE` trigger or, with
//! [`LossyValues::LetDatabaseConvert`], `numeric(p,s)` and `timestamp(p)` make equal), rows of such keys
//! may be in different batches on their way at the same time, and inside a batch they are sorted by key. So the last
//! one that was submitted need not be the one that stays. Send such keys in one form (for example in lower case), or use
//! `Ordering::PerTable`, which keeps the order of submission.
//!
//! # The table
//!
//! Its definition is read once for the schemas that come within a second, again after 30 seconds of use
//! ([`table_check_interval`](Settings::table_check_interval)), and after an error or a count of rows that points to a change.
//! A trigger, rule or policy that comes meanwhile may cost the first batch its outcomes (`Unknown`) where that batch was
//! a statement that commits itself; after it the table is read again.
//!
//! A column that gets another type may change values silently until then, with every strategy: the server converts what
//! it is sent as an assignment does (`numeric` to `double precision`, `timestamp` to `timestamptz`), and with COPY takes
//! the binary form of another type of the same width as its own (`bigint` to `timestamptz`). Stop the rows of a table
//! while the type of one of its columns changes.
//!
//! # Abandoned writes
//!
//! A write that is given up (`statement_timeout` of the pipeline, a lost link) after its commit may have been sent is not
//! over: the server may still wait for a lock, and the system goes on sending what was not acknowledged, also after the
//! connection was closed. So a lane whose rows keep an order writes again only when the session of that write was seen
//! to have ended:
//!
//! - Before the first ordered batch of a connection that was taken from the pool, the sink asks for the name of its
//!   session: process id, start of the process, server and its start. That is one round trip, a simple query of about
//!   0.2 ms at the server. A busy pipeline keeps a connection for up to a second, so it asks once a second for each.
//!   `sqlx` does not show the process id that the server sent when connecting.
//! - With the first one it opens a connection of its own, with the options of the pool, from which sessions are ended.
//!   It counts against `max_connections` of the server: one more for each sink with ordered rows. When it is lost and no
//!   other can be opened, a connection of the pool does it.
//! - A session that is still there is ended by `pg_terminate_backend`, if process id, start and user are those of the
//!   write. It has ended when its process is gone, its id belongs to another process, or the server was restarted at the
//!   same address. Of a server at another address nothing is known.
//!
//! Rights: none beyond what every user has, who may see and end its own sessions. Needed are EXECUTE on
//! `pg_terminate_backend`, `pg_stat_get_activity` and, for the identifier of the server, where it may be read,
//! `pg_control_system`. A user that hides itself by `SET ROLE` in `after_connect` has no name for its sessions.
//!
//! Where a session cannot be ended (rights are missing, a pooler, another server), the lane waits for
//! [`Settings::late_write_limit`]. Without one it goes on at once, with a warning, and the order of rows after such a
//! write is not promised; a rule of the table that compares versions is the answer there.
//!
//! `sqlx` 0.8 sets neither TCP keepalive nor a user timeout, and has no option for them. Set `tcp_keepalives_idle`,
//! `tcp_user_timeout` and `client_connection_check_interval` at the server, and the limits of the system at the client.
//!
//! # Poolers
//!
//! Behind PgBouncer in transaction mode, and poolers like it, use
//! [`prepared_statements(false)`](PostgresOptions::prepared_statements), and see [`Settings::prepared_statements`] for
//! what to set on the server. When the pooler itself gives up a COMMIT or a COPY that was sent (PgBouncer:
//! `query_timeout`), the outcome is not known, and its rows are `Unknown`.
//!
//! A pooler gives one session of the server to many clients, so with `prepared_statements(false)`, or without a statement
//! cache, no session is named or ended. A pooler that was not declared is found out when two connections have one session, or
//! one connection changes it; then none is ended from then on. That is a safety net: where other programs share the
//! pooler it may come late, and a session that is theirs by then could be ended. Declare it.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod catalog;
mod choice;
mod classify;
mod commit_stage;
mod conn;
mod digits;
mod dsn;
mod encode;
mod field;
mod fit;
mod guard;
mod hosts;
mod libpq;
mod live_session;
mod open_error;
mod options;
mod outcome_source;
mod params;
mod parsed;
mod plan;
mod real_type;
mod returned_keys;
mod round_trip;
mod servers;
mod session;
mod session_end;
mod settings;
mod sink;
mod source;
mod statements;
mod table_fit;
mod tables;
mod times;
mod types;
mod value_limit;
mod wire;
mod write;
mod write_copy;
mod write_insert;

/// The PostgreSQL client of this sink, for [`PostgresSink::new`] and [`PostgresSink::pg_pool`].
pub use sqlx;

pub use conn::PostgresConn;
pub use open_error::OpenError;
pub use options::PostgresOptions;
pub use plan::PostgresPlan;
pub use servers::TargetSession;
pub use settings::{LossyValues, Settings, Strategy};
pub use sink::PostgresSink;
