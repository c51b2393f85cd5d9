//! The sink on real databases, in memory and in files.

mod conflicts;
mod errors;
mod files;
mod support;
mod types;
