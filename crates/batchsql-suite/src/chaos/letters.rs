//! Owns the reading of dead-letter files: which rows they have, and how often.
//! Must not know which rows they should have.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::job::Names;
use super::load::{RowId, Table};

/// How often each row is in a file.
pub(super) type Letters = HashMap<(Table, RowId), u64>;

/// The members of a line that matter here.
#[derive(Deserialize)]
struct Line {
    table: String,
    row: Row,
}

#[derive(Deserialize)]
struct Row {
    producer: u32,
    seq: u64,
}

/// Reads a file; a missing one has no rows.
///
/// # Errors
/// A line cannot be read. The last one may have been cut off by a kill.
pub(super) fn read(path: &Path, names: &Names) -> Result<Letters> {
    if !path.exists() {
        return Ok(Letters::default());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, names).with_context(|| format!("{} is not a file of dead letters", path.display()))
}

fn parse(text: &str, names: &Names) -> Result<Letters> {
    let mut letters = Letters::default();
    for line in text.lines() {
        // The next writer begins a new line after one that was cut off.
        let is_whole = line.ends_with('}');
        let line: Line = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(_) if !is_whole => continue,
            Err(error) => return Err(error).context("a line cannot be read"),
        };
        let table = Table::ALL.into_iter().zip(names.written()).find(|(_, name)| *name == line.table);
        let (table, _) = table.with_context(|| format!("there is no table {}", line.table))?;
        let row = RowId { producer: line.row.producer, sequence: line.row.seq };
        *letters.entry((table, row)).or_default() += 1;
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_and_torn_lines_left_out() {
        let names = Names::new("x");
        let line = r#"{"version":1,"outcome":"rejected","table":"x_keyed","row":{"id":1,"producer":2,"seq":3}}"#;
        let text = format!("{line}\n{}\n{line}\n", &line[..30]);
        let letters = parse(&text, &names).unwrap();
        assert_eq!(letters, Letters::from([((Table::Keyed, RowId { producer: 2, sequence: 3 }), 2)]));
        assert!(parse(&line.replace("x_keyed", "y"), &names).is_err());
        assert!(parse("{\"table\":1}", &names).is_err());
    }
}
