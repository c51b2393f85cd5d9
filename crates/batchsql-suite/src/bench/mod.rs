//! Benchmarks: contenders measured in interleaved rounds, so that noise of the machine affects all of
//! them equally.

mod arrow;
mod busy_producer;
mod distance;
mod distance_page;
mod durable;
mod figures;
mod load;
mod load_files;
mod load_peers;
mod mysql;
mod outage;
mod overhead;
mod paced;
mod page;
mod poison;
mod postgres;
mod redis;
mod rules;
mod scale;
mod scale_page;
mod scrape;
mod server;
mod sqlite;
mod target;
mod workload;

pub use arrow::arrow;
pub use distance::{Distance, DistancePlan, distance};
pub use durable::durable;
#[cfg(feature = "chaos")]
pub(crate) use figures::median;
pub use figures::{Figure, Plan, table};
pub use load::load;
pub use load_peers::Place;
pub use mysql::mysql;
pub use outage::{Outage, OutagePlan, outage};
pub use overhead::overhead;
pub use page::Page;
#[cfg(feature = "chaos")]
pub(crate) use page::{Axis, Line, Panel, Section, Sheet, Stroke, eyebrow};
pub use poison::poison;
pub use postgres::postgres;
pub use redis::redis;
pub use rules::rules;
pub use scale::{Scale, ScalePlan, scale};
pub use scrape::scrape;
pub use sqlite::sqlite;
