//! Benchmarks: contenders measured in interleaved rounds, so that the noise of the machine meets all
//! of them alike.

mod figures;
mod overhead;
mod poison;
mod sqlite;

pub use figures::{Figure, Plan, table};
pub use overhead::overhead;
pub use poison::poison;
pub use sqlite::database;
