//! The Redis sink of BatchSQL: a row is a command, a batch is one pipeline, and every reply is the outcome of its
//! row. For one server or a cluster.
//!
//! ```no_run
//! use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
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
//!     .on_conflict(Conflict::replace(["id"]))
//!     .build()?;
//! db.submit(&sessions.row().set("id", "session:7")?.set("token", vec![1_u8, 2, 3])?.finish()?).await?;
//! let report = db.close(Duration::from_secs(10)).await;
//! assert_eq!(report.balance.written(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`RedisOptions::command`] sets which command the rows of a table become; see [`Command`] for what each one
//! writes, and [`Key`] for how keys are built. Rows of a table without a command become hashes when its schema
//! declares a key: `table:key` with a field for each other column.
//!
//! # Types
//!
//! | BatchSQL | text |
//! |---|---|
//! | bool | `1`, `0` |
//! | i16, i32, i64, u64 | digits |
//! | f32, f64 | the shortest digits that identify the number, `1e300`, `inf`, `-inf`, `nan` |
//! | decimal, text, json | as given |
//! | bytes | unchanged |
//! | uuid | hyphenated, lower case |
//! | date, time, timestamp, timestamptz | ISO 8601 with microseconds, `timestamptz` with `+00:00` |
//! | `NULL` | Redis has no `NULL`; see [`Command`] for the effect in each command |
//!
//! # Batches
//!
//! There is no transaction: each row has the outcome of its own command. Rows that the server rejects with a
//! transient error (no memory, loading, a failover) are retried later, even if other rows of their batch were written
//! in the meantime. A row that a later row of its batch has overwritten is not retried: it ends as rejected, with the
//! error of the server. Elements of lists, entries of streams and messages do not overwrite each other, so a retried
//! row may come after later rows. The server then rejects an entry of a stream with its own id, because its id is not
//! above the last one.
//!
//! `Isolation::AtomicBatch` is rejected when the pipeline starts, because Redis cannot roll back a part of a
//! batch; with `flush_size` 1 every batch is one row.
//!
//! # Order and retries
//!
//! **Declare the key of rows that overwrite each other** (`Conflict::replace`, `Conflict::ignore`). Then rows of one
//! key keep their order, and an older row never overwrites a newer one, even with retries. Without a declared key
//! batches are independent of each other: two of them may be written in any order, and a later one may be written
//! before one that waits for memory. `Ordering::PerTable` then keeps the order, one batch at a time.
//!
//! If a connection breaks, rows whose replies were received have their outcomes. Of the others, strings, hashes,
//! documents and members of sorted sets with a declared key, and members of sets in any case, are retried, because
//! that is harmless. With `Conflict::ignore` a row that the first attempt wrote is then reported as ignored, because
//! the server reports only that its key exists. All other rows end as unknown.
//!
//! # Errors
//!
//! An unknown error, for example of a proxy or a module, is retried for `retry_for`, for its row only. A value above
//! the limits of the server (`proto-max-bulk-len`, `client-query-buffer-limit`) rejects only its row.
//!
//! A row of a hash with `NULL` is two commands in a `MULTI`. If the server rejects transactions, tables with
//! nullable fields are rejected. If it starts to reject them later, the replies of the two commands decide; a row
//! with only one executed command is unknown.
//!
//! # Abandoned writes
//!
//! A batch that is abandoned after `statement_timeout` or [`node_timeout`](RedisOptions::node_timeout), or whose
//! connection breaks, may still be executed: the server may stall, or the network may deliver the commands later. So
//! that it does not overwrite newer rows, the next batch of that lane (rows with a declared key, or
//! `Ordering::PerTable`) waits until its connections are gone: the sink ends the interrupted ones with `CLIENT KILL
//! ID`, from another connection to the same server, and checks `CLIENT LIST`. If the `run_id` of the server has
//! changed, it was restarted or replaced, and its old connections no longer matter.
//!
//! - It costs one round trip for each new connection, none per batch.
//! - It needs the rights to `CLIENT ID`, `CLIENT KILL`, `CLIENT LIST` and `INFO`. Without them the sink logs one
//!   warning when ordered rows are written.
//! - If connections cannot be ended, the lane waits for [`RedisOptions::late_write_limit`]; without that setting it
//!   continues at once, and the order of its rows is not guaranteed after such a batch. Behind a proxy that shares
//!   connections between clients, set [`AbandonedWrites::Wait`]: nothing is killed then.
//! - If a proxy reports that it lost the server (`upstream failure`, `Connection timed out`), nothing can be ended
//!   either: the command may still arrive from a connection of the proxy.
//! - Behind sentinels the lane waits for an unreachable master until a majority of the sentinels (at least two) name
//!   the same other server, or a named server itself reports that it is the master.
//! - In a cluster the lane waits for an unreachable node until the other nodes report that its slots have moved.
//! - No connection is ended when this process crashes.
//!
//! # Rights
//!
//! A user needs rights to the keys and to the commands of its tables: those of [`Command`]'s table, `MULTI` and
//! `EXEC` for hashes with nullable fields, `SELECT` for a database other than 0, `CLUSTER SLOTS` for a cluster. For
//! the order after abandoned writes, `CLIENT` and `INFO`, see above. `CONFIG GET` reads the limits; without it, large
//! commands are sent alone. `ROLE` is used behind sentinels. `COMMAND INFO` is used for raw commands; without it, or
//! if it is renamed, their first argument counts as the key.
//!
//! # Servers
//!
//! For Redis 6 and later, tested with 7. Older servers, which support only version 2 of the protocol, cost a
//! `PING` per batch, because without version 3 the client does not report a lost connection.
//!
//! If a server reports that it is a replica (`READONLY`), the next attempt opens a new connection, so that it follows
//! a failover behind one name. In a cluster, a node that stalls delays the others for at most
//! [`node_timeout`](RedisOptions::node_timeout).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod classify;
mod client;
mod cluster;
mod command;
mod command_info;
mod connect;
mod dsn;
mod encode;
mod err;
mod fan_out;
mod limits;
mod link;
mod lookup;
mod memory;
mod options;
mod packed;
mod persistence;
mod plan;
mod pool;
mod replies;
mod reply;
mod score;
mod sentinel;
mod session;
mod shape;
mod sink;
mod slot;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod types;
mod wire;
mod write;

pub use batchsql_core::{AbandonedWrites, OpenError};
pub use command::{Command, Document, Hash, Key, Publish, Push, Raw, SAdd, Set, Ttl, XAdd, ZAdd};
pub use options::RedisOptions;
pub use plan::RedisPlan;
pub use sink::{RedisConn, RedisSink};
