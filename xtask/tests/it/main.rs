//! The verbs that start servers, from outside. Needs the servers' programs, which `cargo xtask test` installs.

mod docker;
mod place;
mod server;
mod verbs;
