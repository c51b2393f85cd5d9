//! Owns all runs of a command: the servers, the runs of each database one after the other, and the report.
//! Must not know how a run is carried out.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::task::{JoinSet, spawn_blocking};

use super::chaos_page::page;
use super::cli::{Options, Program};
use super::conductor;
use super::disk::SmallDisk;
use super::fault::{Fault, Layer};
use super::plan::{self, Plan, Wishes};
use super::results::{LeftOut, Results, Run, sums};
use super::stage::Servant;
use super::writer;
use crate::database::{DatabaseChoice, DatabaseName};
use crate::tell::tell;

/// Does what the options say; false if a row did not end as it was reported, or a run was not carried out.
///
/// # Errors
/// The report cannot be written. A run that cannot be carried out is part of the report.
pub async fn run(options: Options) -> Result<bool> {
    if let Some(Program::Writer { job }) = &options.program {
        return writer::run(job).await.map(|()| true);
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..u64::from(u32::MAX)));
    let command = options.command(seed);
    tell(format_args!("seed {seed}; to repeat: {command}"));
    let faults = if options.fault.is_empty() { Fault::value_variants() } else { &options.fault };
    let wishes = Wishes {
        seed,
        runs: options.runs(),
        pool: options.pool,
        is_durable: options.durable || options.exactly_once,
        exactly_once: options.exactly_once,
        at_least_once: options.at_least_once,
        sabotage: options.sabotage,
        in_namespace: options.namespace,
        is_mixed: options.mixed,
    };
    let databases = DatabaseChoice::names_of(&options.db);
    let mut left_out = Vec::new();
    let mut all = JoinSet::new();
    for (at, database) in databases.iter().enumerate() {
        if options.exactly_once && *database == DatabaseName::Redis {
            let reason = "Redis keeps no positions, so nothing can be written exactly once".to_owned();
            left_out.push(LeftOut { database: *database, fault: "every one".to_owned(), reason });
            continue;
        }
        for fault in faults {
            let reason = fault.missing_on(*database);
            left_out.extend(reason.map(|reason| LeftOut {
                database: *database,
                fault: fault.name(),
                reason: reason.to_owned(),
            }));
        }
        let plans = plan::runs(*database, faults, &wishes);
        let rows_per_second = options.rows_per_second();
        let database = *database;
        all.spawn(async move { (at, of_database(database, plans, rows_per_second).await) });
    }
    let mut finished = all.join_all().await;
    finished.sort_by_key(|(at, _)| *at);
    let mut runs = Vec::new();
    for (_, (of_database, without)) in finished {
        runs.extend(of_database);
        left_out.extend(without);
    }
    let results =
        Results { seed, command, durable: options.durable || options.exactly_once, results: sums(&runs), left_out };
    let folder = &options.report_dir;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    results.write(folder)?;
    page(&results, &runs).write(&folder.join("chaos.html"))?;
    println!("{results}");
    println!("report: {}", folder.join("chaos.html").display());
    Ok(results.passed())
}

/// The runs of a database, and what this machine cannot do.
async fn of_database(database: DatabaseName, plans: Vec<Plan>, rows_per_second: u32) -> (Vec<Run>, Vec<LeftOut>) {
    let (mut runs, mut left_out) = (Vec::new(), Vec::new());
    // Those that need a small disk have a server of their own.
    let needs_disk = |plan: &Plan| plan.timeline.iter().any(|timed| timed.fault.layer() == Layer::Disk);
    let (on_disk, others): (Vec<_>, Vec<_>) = plans.into_iter().partition(needs_disk);
    for (plans, needs_disk) in [(others, false), (on_disk, true)] {
        let Some(first) = plans.first() else { continue };
        let disk = match needs_disk.then(SmallDisk::mount).transpose() {
            Ok(disk) => disk.map(Arc::new),
            Err(error) => {
                left_out.push(LeftOut { database, fault: first.name.clone(), reason: format!("{error:#}") });
                continue;
            }
        };
        let servant = match Servant::start(database, disk.clone(), first.exactly_once).await {
            Ok(servant) => servant,
            Err(error) => {
                let error = format!("{error:#}");
                runs.extend(plans.into_iter().map(|plan| Run { plan, outcome: Err(error.clone()) }));
                continue;
            }
        };
        if servant.is_some() && disk.as_ref().is_some_and(|disk| !disk.has_server()) {
            let reason = "the server is in a container, and not on the small disk".to_owned();
            left_out.push(LeftOut { database, fault: first.name.clone(), reason });
            continue;
        }
        for plan in plans {
            let begin = Instant::now();
            let outcome = conductor::run(&plan, rows_per_second, servant.clone(), disk.clone()).await;
            let run = Run { plan, outcome: outcome.map_err(|error| format!("{error:#}")) };
            say(&run, begin);
            runs.push(run);
        }
        // It waits for the end of the server, and unmounts the disk after it.
        let _ = spawn_blocking(move || drop((servant, disk))).await;
    }
    (runs, left_out)
}

fn say(run: &Run, begin: Instant) {
    let Plan { database, name, number, .. } = &run.plan;
    let verdict = if run.passed() { "passed" } else { "FAILED" };
    let seconds = begin.elapsed().as_secs_f64();
    tell(format_args!("{verdict} {} {name} run {number} ({seconds:.1} s)", database.name()));
    run.complaints().iter().for_each(|complaint| tell(format_args!("  {complaint}")));
}
