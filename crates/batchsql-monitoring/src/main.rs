//! `batchsql-monitoring lint` checks the files; `batchsql-monitoring panels` asks a Prometheus for every panel.

use clap::{Parser, Subcommand};

/// Checks of what BatchSQL ships for Prometheus and Grafana.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {}

fn main() {
    match Cli::parse().verb {}
}
