//! `cargo xtask scale`: workers on a JetStream. The program starts its servers with the verb `server`.
//! Must not know faults, or the arguments of the program.

use std::process::ExitCode;

use crate::{
    chaos,
    servers::Kind,
    suite::{self, Binary},
};

/// With optimizations: it measures rows per second.
const PROGRAM: Binary = Binary { name: "batchsql-scale", profile: "release", features: None };

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    chaos::run_program(&PROGRAM, &[Kind::Nats], arguments)
}
