//! Owns how a command of faults ends: its exit status, and an interrupt.
//! Must not know what the command does.

use std::process::ExitCode;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

const INTERRUPTED: u8 = 130;

/// The exit status of a command: 0 or 1 for what it has found, 2 without a result, 130 when it was interrupted.
pub async fn exit_code(outcome: impl Future<Output = Result<bool>>) -> ExitCode {
    // A log of the library belongs to the writer, whose output the conductor keeps.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let outcome = tokio::select! {
        outcome = outcome => outcome,
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
