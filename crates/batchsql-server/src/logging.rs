//! Owns where the log of the program goes and in which form.
//! Must not know what is logged.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::level;
use crate::config::sections::{Log, LogFormat};
use crate::output;
use crate::words::LogOutput;

/// Writes the log to standard error, as text (with colours only on a terminal) or as one JSON object per line. The variable
/// `RUST_LOG` takes the place of the level of the configuration. What clients of databases and streams say in more detail is left out
/// in any case, because it has values of rows.
///
/// # Errors
/// The level is not a filter.
pub(crate) fn start(log: &Log) -> Result<(), String> {
    // The client of NATS says what this program says too.
    start_at(log, "info,async_nats=warn")
}

/// The same for a command whose result is its output: only warnings, unless a level is given.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_quiet(log: &Log) -> Result<(), String> {
    start_at(log, "warn")
}

fn start_at(log: &Log, default: &str) -> Result<(), String> {
    if log.format == LogFormat::Json {
        output::errors_in_json();
    }
    let level = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    let level = level.or_else(|| log.level.as_ref().map(|level| level.get_ref().clone()));
    let filter = level::filter(level.as_deref().unwrap_or(default))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogOutput);
    // It says them with `eprintln!`, which panics in the task that logs if standard error cannot be written.
    let builder = builder.log_internal_errors(false);
    // A second start, in a test, keeps the first one.
    let _ = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).finish().with(filter_fn(has_no_values)).try_init(),
        LogFormat::Text => {
            let has_colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(has_colors).with_target(false).finish().with(filter_fn(has_no_values)).try_init()
        }
    };
    Ok(())
}

/// Whether it is of this program, or of a level of others at which they log no messages and no rows. The client of NATS logs what it
/// receives as trace, and answers of the server, which may have a message, as debug.
fn has_no_values(of: &Metadata<'_>) -> bool {
    let is_of =
        |name: &str| of.target().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let least = match of.target().starts_with("batchsql") {
        true => Level::TRACE,
        false if is_of("async_nats") => Level::INFO,
        false => Level::DEBUG,
    };
    *of.level() <= least
}
