//! Where the rows of `run` come from, besides HTTP: each kind of source is a module with one function, and `all` runs them until
//! the service ends. `state` is what is said about a source of a stream.

pub(crate) mod all;
pub(crate) mod files;
#[cfg(feature = "nats")]
mod jetstream;
pub(crate) mod loaders;
mod refused_lines;
mod said_files;
pub(crate) mod state;
mod stdin;
