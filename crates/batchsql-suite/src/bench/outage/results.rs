//! Owns what an outage has shown: its table, and whether it is as it must be.
//! Must not know how it was measured.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::database::DatabaseName;

/// What the program may take while the log is filled, and while it is drained.
pub(super) const MEMORY_LIMIT: u64 = 128 << 20;

/// The figures of an outage.
#[derive(Debug, Clone, Serialize)]
pub struct Outage {
    /// The database.
    pub database: DatabaseName,
    /// How its rows are written.
    pub exactly_once: bool,
    /// Bytes of the log when the database came back.
    pub log_bytes: u64,
    /// Rows that were accepted meanwhile.
    pub rows: u64,
    /// Rows that are in the table more often than once. Exactly once, it is 0.
    pub doubled: u64,
    /// Seconds until the log had its bytes.
    pub fill_s: f64,
    /// Seconds from the first connection that the database accepts to the last outcome.
    pub drain_s: f64,
    /// The most memory of the process while the log was filled and while it was drained, in bytes; `None` if the system does not
    /// report it.
    pub memory: [Option<u64>; 2],
    /// What it may be, in bytes.
    pub memory_limit: u64,
}

impl Outage {
    /// What is wrong, if something is.
    pub fn wrong(&self) -> Option<String> {
        let phases = ["was filled", "was drained"].into_iter().zip(self.memory);
        let mut too_much = phases.filter_map(|(phase, bytes)| Some((phase, bytes.filter(|b| *b > self.memory_limit)?)));
        if let Some((phase, bytes)) = too_much.next() {
            let (mib, limit) = (bytes >> 20, self.memory_limit >> 20);
            return Some(format!(
                "the process has taken {mib} MiB while the log {phase}; at most {limit} MiB are allowed"
            ));
        }
        (self.exactly_once && self.doubled > 0).then(|| format!("{} rows were written more than once", self.doubled))
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.exactly_once { "exactly once" } else { "at least once" };
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header([format!("outage, {}, {mode}", self.database.name()), "filled".into(), "drained".into()]);
        let both = |figure: &dyn Fn(f64) -> String| [self.fill_s, self.drain_s].map(figure);
        let mib = self.log_bytes as f64 / f64::from(1 << 20);
        let [filled, drained] = both(&|seconds| format!("{:.1}", Duration::from_secs_f64(seconds).as_secs_f64()));
        table.add_row(["seconds".to_owned(), filled, drained]);
        let [filled, drained] = both(&|seconds| format!("{:.0}", self.rows as f64 / seconds));
        table.add_row(["rows per second".to_owned(), filled, drained]);
        let [filled, drained] = both(&|seconds| format!("{:.1}", mib / seconds));
        table.add_row(["MiB of the log per second".to_owned(), filled, drained]);
        let [filled, drained] =
            self.memory.map(|bytes| bytes.map_or("not known".to_owned(), |bytes| (bytes >> 20).to_string()));
        let limit = self.memory_limit >> 20;
        table.add_row([format!("memory, MiB (at most {limit})"), filled, drained]);
        for column in 1..3 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{table}")?;
        write!(f, "{mib:.0} MiB of log, {} rows, {} of them doubled", self.rows, self.doubled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_memory_and_doubled_rows_are_wrong() {
        let sound = Outage {
            database: DatabaseName::Sqlite,
            exactly_once: true,
            log_bytes: 10 << 20,
            rows: 10_000,
            doubled: 0,
            fill_s: 2.0,
            drain_s: 4.0,
            memory: [Some(60 << 20), None],
            memory_limit: MEMORY_LIMIT,
        };
        assert_eq!(sound.wrong(), None);
        assert_eq!(Outage { exactly_once: false, doubled: 3, ..sound.clone() }.wrong(), None);
        assert!(Outage { doubled: 3, ..sound.clone() }.wrong().is_some());
        let wrong = Outage { memory: [None, Some(129 << 20)], ..sound.clone() }.wrong().unwrap();
        assert_eq!(wrong, "the process has taken 129 MiB while the log was drained; at most 128 MiB are allowed");
        let text = sound.to_string();
        assert!(text.contains("5000") && text.contains("2500") && text.contains("not known"), "{text}");
    }
}
