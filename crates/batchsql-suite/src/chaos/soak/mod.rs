//! A long run with mixed load and faults in turn, whose memory, files, tasks, connections and disk must stay flat.
//!
//! `turns` decides which fault is next; `run` carries out one `conductor` for each database. The conductor has
//! the stage of chaos (server, proxy, administrator), the tables of the `check`, and one `writer` process for the whole
//! run, which submits the rows of `rows` and notes a `reading` of itself each half second. `trend` judges them, and `results` and
//! `soak_page` show it.

mod check;
mod cli;
mod conductor;
mod job;
mod reading;
mod results;
mod rows;
mod run;
mod sink;
mod soak_page;
mod table;
mod tables;
mod trend;
mod turns;
mod writer;

pub use cli::Options;
pub use run::run;
