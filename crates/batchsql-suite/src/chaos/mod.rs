//! Faults on real servers under load, and the check of every row.
//!
//! `plan` decides which runs there are, from the options (`cli`) and the seed; `run` carries them out, those of
//! different databases at the same time; `conductor` carries one out, by its `moments`. The conductor owns the server, the proxy before it, the
//! disk and the administrator (`stage`, `admin`, `disk`, `namespace`) and a `process` of a `writer`, which submits rows (`load`)
//! and notes on disk what it does (`ledger`). `check` compares that with the tables, and `results` and `chaos_page`
//! show it. `fault` has the table of faults.

mod admin;
mod chaos_page;
mod check;
mod cli;
mod command;
mod conductor;
mod disk;
mod fault;
mod job;
mod job_file;
mod ledger;
mod letters;
mod load;
mod moments;
mod namespace;
mod plan;
mod process;
mod results;
mod run;
mod sabotaged;
mod sample;
pub mod scale;
mod sinks;
pub mod soak;
mod stage;
mod writer;

pub use cli::Options;
pub use command::exit_code;
pub use run::run;
