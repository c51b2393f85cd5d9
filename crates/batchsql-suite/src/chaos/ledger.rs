//! Owns the ledger of a writer: lines on disk that survive its kill, and how they are read.
//! Must not know what they should say.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use batchsql::OutcomeKind;

use super::letters::Letters;
use super::load::{RowId, Table};

/// Appends lines. A line that was written survives a kill of the process: the system has it.
#[derive(Debug)]
pub(super) struct LedgerWriter {
    file: File,
}

impl LedgerWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// It cannot be created, or exists.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        Ok(Self { file: file.with_context(|| format!("cannot create {}", path.display()))? })
    }

    /// Appends lines with one write.
    ///
    /// # Errors
    /// The disk refuses them. The writer must end then: its ledger would not say what it did.
    pub(super) fn append(&self, lines: &Lines) -> Result<()> {
        (&self.file).write_all(lines.0.as_bytes()).context("cannot write the ledger")
    }
}

/// Lines that are written together.
#[derive(Debug, Default)]
pub(super) struct Lines(String);

impl Lines {
    fn row(&mut self, what: &str, table: Table, row: RowId, rest: &str) {
        let _ = writeln!(self.0, "{what} {} {} {}{rest}", table.letter(), row.producer, row.sequence);
    }

    /// The row is submitted next.
    pub(super) fn intend(&mut self, table: Table, row: RowId) {
        self.row("i", table, row, "");
    }

    /// `submit` has returned `Ok`.
    pub(super) fn accepted(&mut self, table: Table, row: RowId) {
        self.row("a", table, row, "");
    }

    /// `submit` has returned an error: nothing of the row is kept.
    pub(super) fn refused(&mut self, table: Table, row: RowId) {
        self.row("r", table, row, "");
    }

    /// The outcome of an accepted row.
    pub(super) fn ended(&mut self, table: Table, row: RowId, outcome: OutcomeKind) {
        self.row("o", table, row, &format!(" {}", outcome.name()));
    }

    /// The last balance of the pipeline.
    pub(super) fn balance(&mut self, outcome: &str, rows: u64) {
        let _ = writeln!(self.0, "b {outcome} {rows}");
    }

    /// A counter of the metrics.
    pub(super) fn metric(&mut self, outcome: &str, rows: u64) {
        let _ = writeln!(self.0, "m {outcome} {rows}");
    }

    /// Rows that the durable intake left in its log, at the end.
    pub(super) fn left(&mut self, rows: u64) {
        let _ = writeln!(self.0, "l {rows}");
    }

    /// The writer ends as it should.
    pub(super) fn end(&mut self) {
        self.0.push_str("end\n");
    }
}

/// What a ledger says of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// `submit` returned `Ok`.
    pub(super) accepted: bool,
    /// `submit` returned an error.
    pub(super) refused: bool,
    /// Its outcomes: one, if all is well.
    pub(super) outcomes: Vec<OutcomeKind>,
}

/// A ledger that was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// Every row that was intended.
    pub(super) rows: HashMap<(Table, RowId), Fate>,
    /// The balance at the end: outcomes, and `accepted`.
    pub(super) balance: HashMap<String, u64>,
    /// The counters of the metrics at the end, by outcome.
    pub(super) metrics: HashMap<String, u64>,
    /// Rows that a durable intake left in its log.
    pub(super) left: Option<u64>,
    /// The dead letters of the writer, which are in a file of their own.
    pub(super) letters: Letters,
    /// The writer ended as it should.
    pub(super) is_complete: bool,
}

impl Ledger {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or has a line that no writer writes.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a ledger", path.display()))
    }

    /// Reads the text of a ledger. A last line without its end was cut off by a kill.
    ///
    /// # Errors
    /// A line that no writer writes.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut ledger = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            ledger.line(line).with_context(|| format!("the line {line:?} has no meaning"))?;
        }
        Ok(ledger)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [what @ ("i" | "a" | "r"), table, producer, sequence] => {
                let fate = self.fate(table, producer, sequence)?;
                fate.accepted |= what == "a";
                fate.refused |= what == "r";
            }
            ["o", table, producer, sequence, outcome] => {
                let outcome = OutcomeKind::ALL.into_iter().find(|kind| kind.name() == outcome)?;
                self.fate(table, producer, sequence)?.outcomes.push(outcome);
            }
            ["b", outcome, rows] => drop(self.balance.insert(outcome.to_owned(), rows.parse().ok()?)),
            ["m", outcome, rows] => drop(self.metrics.insert(outcome.to_owned(), rows.parse().ok()?)),
            ["l", rows] => self.left = Some(rows.parse().ok()?),
            ["end"] => self.is_complete = true,
            _ => return None,
        }
        Some(())
    }

    fn fate(&mut self, table: &str, producer: &str, sequence: &str) -> Option<&mut Fate> {
        let row = RowId { producer: producer.parse().ok()?, sequence: sequence.parse().ok()? };
        Some(self.rows.entry((Table::of_letter(table)?, row)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let row = RowId { producer: 3, sequence: 7 };
        let mut lines = Lines::default();
        lines.intend(Table::Keyed, row);
        lines.accepted(Table::Keyed, row);
        lines.refused(Table::Plain, row);
        for outcome in OutcomeKind::ALL {
            lines.ended(Table::Keyed, row, outcome);
        }
        lines.balance("accepted", 1);
        lines.metric("written", 2);
        lines.left(3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let file = LedgerWriter::create(&path).unwrap();
        file.append(&lines).unwrap();
        let mut end = Lines::default();
        end.end();
        file.append(&end).unwrap();
        let ledger = Ledger::read(&path).unwrap();
        let fate = Fate { accepted: true, refused: false, outcomes: OutcomeKind::ALL.to_vec() };
        assert_eq!(ledger.rows[&(Table::Keyed, row)], fate);
        assert!(ledger.rows[&(Table::Plain, row)].refused);
        assert_eq!((ledger.balance["accepted"], ledger.metrics["written"], ledger.left), (1, 2, Some(3)));
        assert!(ledger.is_complete);
        assert!(LedgerWriter::create(&path).is_err(), "a ledger is never continued");
    }

    #[test]
    fn only_the_last_line_may_be_cut_off() {
        let ledger = Ledger::parse("i p 1 2\na p 1 2\no p 1 2 writ").unwrap();
        assert!(ledger.rows.values().next().unwrap().outcomes.is_empty());
        assert!(Ledger::parse("").unwrap().rows.is_empty());
        for wrong in ["i p 1\n", "o p 1 2 good\n", "x\n", "i q 1 2\n"] {
            assert!(Ledger::parse(wrong).is_err(), "{wrong}");
        }
    }
}
