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
//! also when other rows of their batch were written meanwhile. A row that a later row of its batch has overwritten is
//! not written again: it ends as rejected, with the error of the server. Elements of lists, entries of streams and
//! messages do not overwrite each other, so a row that is written again may come after its successors. An entry of a
//! stream with an id of its own is then refused by the server, as its id is not above the last one.
//!
//! `Isolation::AtomicBatch` is refused when the pipeline is started, because Redis cannot undo a part of a batch;
//! with `flush_size` 1 every batch is one row.
//!
//! # Order, and what is repeated
//!
//! **Declare the key of what is overwritten** (`Conflict::replace`, `Conflict::ignore`). Then rows of one key keep their
//! order, and an older row is never written over a newer one, whatever is written again. Without a declared key
//! batches are independent of each other: two of them may be written in any order, and one that waits for memory
//! may be overtaken. `Ordering::PerTable` keeps the order then, one batch at a time.
//!
//! When a connection breaks, rows whose replies came have their outcomes. Of the others, strings, hashes, documents and
//! members of sorted sets with a declared key, and members of sets in any case, are written again, because that is
//! harmless. With `Conflict::ignore` a row that the first attempt wrote is then reported as ignored, because the server
//! says only that its key is there. All other rows end as unknown.
//!
//! # Errors
//!
//! An error that is not known here, as a proxy or a module may send, is tried again for `retry_for`, for its row alone. A
//! value above the limits of the server (`proto-max-bulk-len`, `client-query-buffer-limit`) rejects its row alone.
//!
//! A row of a hash with `NULL` is two commands in a `MULTI`. Where the server refuses transactions, tables with
//! nullable fields are refused. If it begins to refuse them later, the replies of the two commands decide; a row of
//! which only one was executed is unknown.
//!
//! # Abandoned writes
//!
//! A batch that is given up after `statement_timeout` or [`node_timeout`](RedisOptions::node_timeout), or whose
//! connection breaks, may still be executed: the server may stall, or the network deliver the commands later. So that it
//! does not overwrite newer rows, the next batch of that lane (rows with a declared key, or `Ordering::PerTable`) waits
//! until its connections are gone: the sink ends those that were left in the middle with `CLIENT KILL ID`, from another
//! connection to the same server, and looks at `CLIENT LIST`. Where the `run_id` of the server is another one, it was
//! started again or replaced, and its old connections count for nothing.
//!
//! - It costs one round trip for each connection that is made, none for a batch.
//! - It needs the rights to `CLIENT ID`, `CLIENT KILL`, `CLIENT LIST` and `INFO`. Without them there is one warning when
//!   rows with an order are written.
//! - Where connections cannot be ended, the lane waits for [`RedisOptions::late_write_limit`]; without that, it goes on
//!   at once, and the order of its rows is not promised after such a batch. Behind a proxy that shares connections
//!   between clients, set [`AbandonedWrites::Wait`]: nothing is killed then.
//! - Where a proxy says that it lost the server (`upstream failure`, `Connection timed out`), nothing can be ended either: the
//!   command may still come from a connection of the proxy.
//! - Behind sentinels a master that cannot be reached is waited for until most of the sentinels (at least two) name the same
//!   other server, or one that is named says itself that it is the master.
//! - In a cluster a node that cannot be reached is waited for until the other nodes say that its slots went elsewhere.
//! - No connection is ended when this process crashes.
//!
//! # Rights
//!
//! A user needs the right to the keys and to the commands of its tables: those of [`Command`]'s table, `MULTI` and
//! `EXEC` for hashes with nullable fields, `SELECT` for a database other than 0, `CLUSTER SLOTS` for a cluster. For the
//! order after abandoned writes, `CLIENT` and `INFO`, see above. `CONFIG GET` is asked for the limits; without it, large
//! commands are sent alone. `ROLE` is asked for behind sentinels.
//! `COMMAND INFO` is asked for about raw commands; without it, or when it is renamed, their first argument
//! counts as the key.
//!
//! # Servers
//!
//! Made for Redis 6 and later, and tested with 7. Older servers, which know only version 2 of the protocol, cost a
//! `PING` for each batch, because without version 3 the client does not report when a connection was lost.
//!
//! A server that says that it is a replica (`READONLY`) is connected to anew for the next attempt, so that a failover
//! behind one name is followed. In a cluster, a node that stalls holds the others up for
//! [`node_timeout`](RedisOptions::node_timeout) and no longer.

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
mod options;
mod packed;
mod plan;
mod pool;
mod replies;
mod reply;
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

pub use command::{Command, Document, Hash, Key, Publish, Push, Raw, SAdd, Set, Ttl, XAdd, ZAdd};
pub use options::{AbandonedWrites, OpenError, RedisOptions};
pub use plan::RedisPlan;
pub use sink::{RedisConn, RedisSink};
