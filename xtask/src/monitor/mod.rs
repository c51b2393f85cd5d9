//! `cargo xtask monitor`: Prometheus and Grafana for the suite, with Docker or with programs of this machine.
//!
//! [`Stack`] is the running stack, [`State`] is its state in a file for other processes; each verb has a file.

mod annotate;
mod api;
mod arguments;
mod background;
mod check;
mod compose;
mod down;
mod links;
mod listener;
mod logs;
mod options;
mod preflight;
mod stack;
mod state;
mod status;
mod up;
mod way;

pub(crate) use annotate::{annotate, report};
pub(crate) use arguments::Arguments;
pub(crate) use links::tell;
pub(crate) use options::Options;
pub(crate) use stack::{Stack, Started};
pub(crate) use state::{State, running};
pub(crate) use up::{run, stay};
