//! BatchSQL gathers rows from many tasks into batches per table and writes each batch to a database in
//! the fastest way that database offers. Every accepted row ends in exactly one [`Outcome`], and
//! everything it does can be seen in Prometheus.
//!
//! This crate is a facade: it re-exports the pipeline ([`BatchSql`]) and, behind features, the drivers
//! and the metrics.
//!
//! | feature | gives |
//! |---|---|
//! | `derive` (default) | `#[derive(Row)]`, `#[derive(RowColumns)]` and `#[derive(Encode)]` |
//! | `sqlite` | [`sqlite`]: `SqliteSink`, with the SQLite that comes with rusqlite |
//! | `sqlite-system` | [`sqlite`] with the SQLite of the system instead; `sqlite` switches it on as well |
//! | `postgres` | [`postgres`]: `PostgresSink` |
//! | `mysql` | [`mysql`]: `MySqlSink`, also for MariaDB |
//! | `redis` | [`redis`]: `RedisSink`, also for clusters |
//! | `tls` (default) | TLS for the drivers and the scrape endpoint that are switched on |
//! | `durable` | [`durable`]: accepted rows survive the process and a long outage of the database |
//! | `feed` | [`feed`]: a file of JSON lines that grows, or a source of your own, into a database |
//! | `nats` | [`nats`]: rows go through NATS JetStream, and many machines write them |
//! | `arrow` | [`arrow`]: Arrow record batches as rows, copied column by column |
//! | `metrics` | [`metrics`]: a reporter over the `metrics` crate |
//! | `prometheus` | [`prometheus`]: `PrometheusMetrics` with its own scrape endpoint |
//! | `test-metrics` | the metrics that a test records about itself: `TestResult`, `set_current_test_case` |
//! | `chrono`, `time`, `jiff`, `uuid`, `rust_decimal`, `bigdecimal`, `bytes`, `ipnetwork` | row fields and values of these crates |
//! | `sink` | `RowSink`: the pipeline as a `futures::Sink` of rows |
//!
#![cfg_attr(
    all(feature = "derive", feature = "sqlite", feature = "prometheus"),
    doc = "# Example",
    doc = include_str!("../example.md")
)]
//! # Where to go on
//!
//! - [`connect`]: a driver chosen by the scheme of a DSN, at run time. [`connect_lazy`]: before the server is up. [`check_dsn`]: only the DSN.
//! - [`PipelineConfig`]: sizes, times and limits, with their defaults; [`TableConfig`]: those of one table.
//! - [`BatchSql`]: `submit`, `try_submit`, `submit_timeout`, `submit_all`, `try_submit_all`, and with outcomes
//!   `submit_tracked`, `try_submit_tracked`, `submit_all_tracked`; `submit_rows` for columns; `validate`, `pressure`, `ready`, `flush`,
//!   `close`; and which of them wait for what.
//! - [`Outcome`]: the possible outcomes of a row, and [`DeadLetters`]: consumers of every row that was not written. The
//!   guide `docs/outcomes.md` of the repository describes them all.
//! - [`Schema`] and [`Conflict`]: tables and what happens when a key is already there.
//! - [`Sink`]: write a driver of your own.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// The examples of the guides are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../docs/outcomes.md")]
#[doc = include_str!("../../../docs/databases.md")]
#[doc = include_str!("../../../docs/how-to-add-a-driver.md")]
struct Guides;

/// The examples of the user guides are tested: one module per page, with the features that the page needs.
#[cfg(doctest)]
mod guides {
    #[cfg(all(feature = "derive", feature = "sqlite"))]
    #[doc = include_str!("../../../docs/guides/conflict-rules.md")]
    mod conflict_rules {}

    #[cfg(all(feature = "durable", feature = "feed", feature = "sqlite"))]
    #[doc = include_str!("../../../docs/guides/durability.md")]
    mod durability {}

    #[cfg(all(feature = "derive", feature = "sqlite"))]
    #[doc = include_str!("../../../docs/guides/failures-and-dead-letters.md")]
    mod failures_and_dead_letters {}

    #[cfg(all(feature = "durable", feature = "nats", feature = "sqlite"))]
    #[doc = include_str!("../../../docs/guides/from-one-machine-to-many.md")]
    mod from_one_machine_to_many {}

    #[cfg(all(feature = "derive", feature = "mysql"))]
    #[doc = include_str!("../../../docs/guides/getting-started-mysql.md")]
    mod getting_started_mysql {}

    #[cfg(all(feature = "derive", feature = "postgres"))]
    #[doc = include_str!("../../../docs/guides/getting-started-postgres.md")]
    mod getting_started_postgres {}

    #[cfg(all(feature = "derive", feature = "redis"))]
    #[doc = include_str!("../../../docs/guides/getting-started-redis.md")]
    mod getting_started_redis {}

    #[cfg(all(feature = "derive", feature = "sqlite"))]
    #[doc = include_str!("../../../docs/guides/getting-started-sqlite.md")]
    mod getting_started_sqlite {}

    #[cfg(all(feature = "prometheus", feature = "sqlite", feature = "tls"))]
    #[doc = include_str!("../../../docs/guides/monitoring.md")]
    mod monitoring {}

    #[cfg(all(feature = "derive", feature = "sqlite", feature = "prometheus", feature = "test-metrics"))]
    #[doc = include_str!("../../../docs/monitoring-guide.md")]
    mod monitoring_guide {}

    #[cfg(all(feature = "prometheus", feature = "sqlite"))]
    #[doc = include_str!("../../../docs/guides/moving-from-go.md")]
    mod moving_from_go {}

    #[cfg(all(feature = "derive", feature = "postgres"))]
    #[doc = include_str!("../../../docs/guides/moving-from-sqlx-loop.md")]
    mod moving_from_sqlx_loop {}

    #[cfg(feature = "postgres")]
    #[doc = include_str!("../../../docs/guides/production-checklist.md")]
    mod production_checklist {}

    #[cfg(all(feature = "derive", feature = "sqlite"))]
    #[doc = include_str!("../../../docs/guides/rows.md")]
    mod rows {}

    #[cfg(feature = "derive")]
    #[doc = include_str!("../../../docs/guides/testing.md")]
    mod testing {}

    #[cfg(feature = "derive")]
    #[doc = include_str!("../../../docs/guides/tracing.md")]
    mod tracing {}

    #[doc = include_str!("../../../docs/guides/troubleshooting.md")]
    mod troubleshooting {}

    #[doc = include_str!("../../../docs/guides/tuning.md")]
    mod tuning {}

    #[cfg(feature = "derive")]
    #[doc = include_str!("../../../docs/guides/writing-a-sink.md")]
    mod writing_a_sink {}
}

mod connect;

pub use batchsql_core::*;
#[cfg(feature = "derive")]
pub use batchsql_derive::{Encode, Row, RowColumns};
pub use connect::{check_dsn, connect, connect_lazy};

#[cfg(feature = "arrow")]
pub use batchsql_arrow as arrow;
#[cfg(feature = "durable")]
pub use batchsql_durable as durable;
#[cfg(feature = "feed")]
pub use batchsql_feed as feed;
#[cfg(feature = "metrics")]
pub use batchsql_metrics as metrics;
#[cfg(feature = "mysql")]
pub use batchsql_mysql as mysql;
#[cfg(feature = "nats")]
pub use batchsql_nats as nats;
#[cfg(feature = "postgres")]
pub use batchsql_postgres as postgres;
#[cfg(feature = "prometheus")]
pub use batchsql_prometheus as prometheus;
#[cfg(feature = "redis")]
pub use batchsql_redis as redis;
#[cfg(feature = "sqlite-system")]
pub use batchsql_sqlite as sqlite;
