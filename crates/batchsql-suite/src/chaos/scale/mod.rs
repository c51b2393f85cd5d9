//! Workers on a stream: how many rows per second they write together, and whether every row is written once while workers,
//! the broker and the database are killed.
//!
//! `run` carries out the measurements and the runs with faults of one database after the other. `measure` fills a stream and
//! lets workers empty it; `conductor` publishes under load and causes the `faults`. Each `worker` is a process of its own, as
//! the writers of chaos are. `publish` fills the stream, the checker of chaos compares the tables with what was published,
//! and `results` shows it. `unfenced` is a defect on purpose, which the
//! checker must find.

mod cli;
mod conductor;
mod faults;
mod job;
mod measure;
mod publish;
mod results;
mod run;
mod servers;
mod unfenced;
mod worker;
mod workers;

pub use cli::Options;
pub use run::run;
