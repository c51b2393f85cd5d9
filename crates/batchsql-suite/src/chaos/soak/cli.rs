//! Owns the command line of a soak.
//! Must not know how a run is carried out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::chaos::job::Pool;
use crate::database::DatabaseChoice;

/// The shortest time that can be judged: the windows of the trend test are then a second long.
const SHORTEST: Duration = Duration::from_secs(12);

/// Mixed load and faults in turn for a long time; fails if memory, files, tasks, connections or disk rise.
#[derive(Debug, Clone, Parser)]
#[command(name = "batchsql-soak", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub(super) program: Option<Program>,

    /// How long the figures are measured, for example 30m or 8h; at least 12s. A warm-up with every fault once comes before
    #[arg(long, value_parser = duration, default_value = "30m", value_name = "TIME")]
    pub duration: Duration,

    /// Databases, separated by commas; all means every one
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAME")]
    pub db: Vec<DatabaseChoice>,

    /// Rows are accepted by the durable intake
    #[arg(long)]
    pub durable: bool,

    /// Rows are accepted by the durable intake and written exactly once; not on Redis
    #[arg(long)]
    pub exactly_once: bool,

    /// Whose pool is used
    #[arg(long, value_enum, default_value = "own")]
    pub pool: Pool,

    /// A leak on purpose, in bytes of each row, to see that it is found
    #[arg(long, hide = true, default_value_t = 0)]
    pub leak: usize,

    /// Folder for soak.html and soak.json
    #[arg(long, default_value = "soak-report", value_name = "DIR")]
    pub report_dir: PathBuf,
}

/// What this program is besides the conductor.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Program {
    /// A writer; started by the conductor
    #[command(hide = true)]
    Writer {
        /// The file with its job
        job: PathBuf,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < SHORTEST {
        return Err(format!("at least {} s are needed to see a trend", SHORTEST.as_secs()));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_too_short_ones_refused() {
        let check = |text: &str| Options::try_parse_from(["soak", "--duration", text]).map(|options| options.duration);
        assert_eq!(check("8h").unwrap(), Duration::from_secs(8 * 3_600));
        assert_eq!(check("12s").unwrap(), Duration::from_secs(12));
        for wrong in ["11s", "30", "soon"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
