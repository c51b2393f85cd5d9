//! The Redis sink of BatchSQL: a row is a command, a batch is one pipeline, and every reply is the outcome of its
//! row. For one server or a cluster.
//!
//! ```no_run
//! use batchsql_core::{BatchSql, ColumnType, Schema};
//! use batchsql_redis::{Command, RedisOptions, RedisSink};
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let options = "redis://localhost"
//!     .parse::<RedisOptions>()?
//!     .command("sessions", Command::set("id", "token").ttl(Duration::from_secs(3600)));
//! let db = BatchSql::builder(RedisSink::with_options(&options).await?).start()?;
//!
//! let sessions = Schema::builder("sessions")
//!     .column("id", ColumnType::Text)
//!     .column("token", ColumnType::Bytes)
//!     .build()?;
//! db.submit(&sessions.row().set("id", "session:7")?.set("token", vec![1_u8, 2, 3])?.finish()?).await?;
//! let report = db.close(Duration::from_secs(10)).await;
//! assert_eq!(report.balance.written(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Which command the rows of a table become is said by [`RedisOptions::command`]; see [`Command`] for what each one
//! writes, and [`Key`] for how keys are made. Rows of a table without a command become hashes when its schema
//! declares a key: `table:key` with a field for each other column.
//!
//! # Types
//!
//! | BatchSQL | text |
//! |---|---|
//! | bool | `1`, `0` |
//! | i16, i32, i64, u64 | digits |
//! | f32, f64 | the shortest digits that give the same number back, `1e300`, `inf`, `-inf`, `nan` |
//! | decimal, text, json | as given |
//! | bytes | as they are |
//! | uuid | hyphenated, lower case |
//! | date, time, timestamp, timestamptz | ISO 8601 with microseconds, `timestamptz` with `+00:00` |
//! | `NULL` | Redis has none; see [`Command`] for what each command does with it |
//!
//! # What a batch is
//!
//! There is no transaction: each row has the outcome of its own command, and the other rows of its batch have theirs.
//! Rows that the server refuses for a reason that will pass (no memory, loading, a failover) are written again later,
//! also when other rows of their batch were written meanwhile. One thing is never done: to write a row after a later
//! one with the same key. Such a row ends as rejected, with the error of the server. Elements of lists, entries
//! of streams and messages do not overwrite each other, so a row that is written again may come after its
//! successors.
//!
//! `Isolation::AtomicBatch` is refused when the pipeline is started, because Redis cannot undo a part of a batch;
//! with `flush_size` 1 every batch is one row.
//!
//! When a connection breaks before the replies came, strings, hashes, documents and members of sets are
//! written again, because that is harmless. With `Conflict::ignore`, a row that the first attempt wrote is then told
//! as ignored: its key is there. All other rows end as unknown.
//!
//! Rows of one key keep their order when the schema declares the key (`Conflict::replace`), or with
//! `Ordering::PerTable`.
//!
//! # Servers
//!
//! Made for Redis 6 and later, and tested with 7. Older servers, which know only version 2 of the protocol, cost a
//! `PING` for each batch, because without version 3 the client does not tell when a connection was lost.

mod classify;
mod cluster;
mod command;
mod encode;
mod link;
mod options;
mod plan;
mod replies;
mod sink;
mod slot;
mod types;
mod words;
mod write;

pub use command::{Command, Document, Hash, Key, Publish, Push, Raw, SAdd, Set, Ttl, XAdd, ZAdd};
pub use options::{OpenError, RedisOptions};
pub use plan::RedisPlan;
pub use sink::{RedisConn, RedisSink};
