//! The soak command: mixed load and faults for a long time, with flat figures of the process.
//!
//! Exit status: 0 when every figure is flat and no row is missing, 1 when that is not so or a soak could not be carried out, 2
//! when there is no report, 130 when it was interrupted.

use std::process::ExitCode;

use batchsql_suite::chaos::soak::{Options, run};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

// Its count of live bytes is exact, and it gives unused memory back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    // A log of the library belongs to the writer, whose output the conductor keeps.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let options = Options::parse();
    let outcome = tokio::select! {
        outcome = run(options) => outcome,
        // What is dropped then stops the servers and the writers, and removes their files.
        () = interruption() => return ExitCode::from(INTERRUPTED),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn interruption() {
    let signals = signal(SignalKind::interrupt()).and_then(|first| Ok((first, signal(SignalKind::terminate())?)));
    match signals {
        Ok((mut interrupt, mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        },
        // Then a signal ends this program at once.
        Err(_) => std::future::pending().await,
    }
}
