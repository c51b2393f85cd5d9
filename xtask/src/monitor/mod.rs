//! `cargo xtask monitor`: Prometheus and Grafana beside the suite, by Docker or from programs of this machine.
//!
//! [`Stack`] is what runs, [`State`] is what others know of it, by a file; each verb has a room.

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
