//! `batchsql check`: everything that can be known before the first row. `checks` and `streams` find it out, `print` shows it to a person or
//! to a script.

mod checks;
mod finding;
mod print;
#[cfg(feature = "nats")]
mod streams;
#[cfg(not(feature = "nats"))]
#[path = "no_streams.rs"]
mod streams;

use std::path::Path;

use crate::config::read;
use crate::exit::Exit;

/// Checks a configuration, and what it names unless `offline`. Prints what was found, and returns the exit code.
pub(crate) async fn run(path: &Path, offline: bool, json: bool) -> Exit {
    let (findings, exit) = match read::read(path) {
        Ok(settings) => {
            let findings = checks::all(&settings, path, offline).await;
            let exit = finding::exit(&findings);
            (findings, exit)
        }
        Err(problems) => (finding::of_problems(&problems), Exit::Mistake),
    };
    if json {
        print::json(&findings, exit);
    } else {
        print::text(&findings, exit);
    }
    exit
}
