//! `cargo xtask soak`: mixed load and faults for a long time. The program starts its servers with the verb `server`.
//! Must not know faults, or the arguments of the program.

use std::process::ExitCode;

use crate::{
    chaos,
    suite::{self, Binary},
};

/// Built as that of the verb `chaos`.
const PROGRAM: Binary = Binary { name: "batchsql-soak", profile: "dev", features: None };

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    chaos::run_program(&PROGRAM, &[], arguments)
}
