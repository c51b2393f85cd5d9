//! Owns the measurement of `batchsql load`: against the tools that load a file into the same database.
//! Must not know how the tools are called, or what is in the files.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::figures::{Figure, Measurement, Plan, summarise};
use super::load_files::Files;
use super::load_peers::{Place, Tool, tools};

/// Measures the program `program` and every tool that is on this machine. The first contender of each kind of file is the
/// program.
///
/// # Errors
/// A tool fails, or rows are missing.
pub async fn load(plan: Plan, program: PathBuf, places: &[Place]) -> Result<Vec<Figure>> {
    let files = Files::make(plan.rows)?;
    let mut figures = Vec::new();
    for place in places {
        let tools: Vec<Tool> = tools(place, &program, &files).into_iter().filter(Tool::is_there).collect();
        let mut rounds = Vec::new();
        for round in 0..plan.rounds {
            let mut measured = vec![Measurement::default(); tools.len()];
            // Another one is the first in each round.
            for index in (0..tools.len()).map(|index| (index + round) % tools.len()) {
                let tool = &tools[index];
                eprintln!("load into {}, {}, round {} of {}", place.name(), tool.name, round + 1, plan.rounds);
                measured[index].rate = measure(tool, place, plan.rows, round).await?;
            }
            rounds.push(measured);
        }
        let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
        figures.extend(summarise(&format!("load, {}", place.name()), &names, &rounds));
        place.clear().await?;
    }
    Ok(figures)
}

/// Rows per second, from the start of the tool to its end; of a script, from the time that it says.
async fn measure(tool: &Tool, place: &Place, rows: usize, round: usize) -> Result<f64> {
    place.make_table().await?;
    let mut command = tool.command(round);
    let begin = Instant::now();
    let ran = tokio::task::spawn_blocking(move || command.output()).await?;
    let took = begin.elapsed();
    let ran = ran.with_context(|| format!("{} cannot be started", tool.name))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{} failed: {said}", tool.name);
    let count = place.count().await?;
    ensure!(count == rows as u64, "{}: {count} of {rows} rows are in the table\n{said}", tool.name);
    // A script measures itself, without the start of its interpreter.
    let own: Option<f64> =
        String::from_utf8_lossy(&ran.stdout).trim().strip_prefix("took ").and_then(|t| t.parse().ok());
    Ok(rows as f64 / own.unwrap_or(took.as_secs_f64()))
}
