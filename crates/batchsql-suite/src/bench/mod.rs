//! Benchmarks: contenders measured in interleaved rounds, so that the noise of the machine meets all
//! of them alike.

mod delay_proxy;
mod figures;
mod mysql;
mod overhead;
mod poison;
mod postgres;
mod redis;
mod scrape;
mod server;
mod sqlite;
mod workload;

pub use delay_proxy::DelayProxy;
pub use figures::{Figure, Plan, table};
pub use mysql::mysql;
pub use overhead::overhead;
pub use poison::poison;
pub use postgres::postgres;
pub use redis::redis;
pub use scrape::scrape;
pub use sqlite::sqlite;
