//! Owns all soaks of a command, those of different databases at the same time, and the report.
//! Must not know how a soak is carried out.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::cli::{Options, Program};
use super::conductor::{self, Wishes};
use super::job::Mode;
use super::results::{Results, judge};
use super::soak_page::page;
use super::writer;
use crate::database::{DatabaseChoice, DatabaseName};
use crate::tell::tell;

/// Does what the options say; false if a figure rises, rows are missing, or a soak was not carried out.
///
/// # Errors
/// The report cannot be written, or the options contradict each other. A soak that cannot be carried out is part of the report.
pub async fn run(options: Options) -> Result<bool> {
    if let Some(Program::Writer { job }) = &options.program {
        return writer::run(job).await.map(|()| true);
    }
    let mode = match (options.exactly_once, options.durable) {
        (true, _) => Mode::ExactlyOnce,
        (false, true) => Mode::Durable,
        (false, false) => Mode::Memory,
    };
    let wishes = Wishes { duration: options.duration, mode, pool: options.pool, leak: options.leak };
    let mut databases = DatabaseChoice::names_of(&options.db);
    if mode == Mode::ExactlyOnce && databases.contains(&DatabaseName::Redis) {
        tell("redis is left out: it has no transactions, so rows cannot be written exactly once");
        databases.retain(|database| *database != DatabaseName::Redis);
        anyhow::ensure!(!databases.is_empty(), "no database is left; leave out --exactly-once, or name another one");
    }
    let mut all = JoinSet::new();
    for (at, database) in databases.into_iter().enumerate() {
        all.spawn(async move { (at, database, conductor::run(database, wishes).await) });
    }
    let mut finished = all.join_all().await;
    finished.sort_by_key(|(at, ..)| *at);
    let (mut outcomes, mut errors) = (Vec::new(), BTreeMap::new());
    for (_, database, outcome) in finished {
        match outcome {
            Ok(outcome) => outcomes.push((database, outcome)),
            Err(error) => drop(errors.insert(database.name().to_owned(), format!("{error:#}"))),
        }
    }
    let results = outcomes.iter().map(|(database, outcome)| judge(*database, outcome)).collect();
    let results = Results { mode: mode.name(), duration_s: options.duration.as_secs(), results, errors };
    let folder = &options.report_dir;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    results.write(folder)?;
    page(&results, &outcomes).write(&folder.join("soak.html"))?;
    println!("{results}");
    println!("report: {}", folder.join("soak.html").display());
    Ok(results.passed())
}
