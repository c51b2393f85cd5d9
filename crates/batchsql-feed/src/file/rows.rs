//! Owns how lines become rows: those of one shape that follow each other are a block.
//! Must not know files.

use std::time::SystemTime;

use batchsql_core::{DynRow, FieldRules, JsonRecord, Row, RowBuffer, RowError, Schema};

use super::lines::{At, Line, Text};
use crate::source::{Next, SourceBlock};

/// What some lines are, for a feed.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) next: Next,
    /// The bytes of its lines.
    pub(super) bytes: usize,
    /// Behind its last line.
    pub(super) behind: At,
    /// The fingerprint of the bytes before that, of the last part of a read.
    pub(super) before: Option<u128>,
}

/// Makes an empty buffer for rows of a schema.
pub(super) type Empty<'a> = &'a dyn Fn(&Schema) -> Result<RowBuffer, RowError>;

/// Makes rows of lines, in their order. `is_bad` gets each line that is no row, and why; empty lines are passed.
pub(super) fn parts(
    lines: &[Line],
    schema: &Schema,
    rules: FieldRules,
    empty: Empty<'_>,
    mut is_bad: impl FnMut(&Line, &str),
) -> Vec<Part> {
    let (mut parts, now) = (Parts { done: Vec::new(), open: None }, SystemTime::now());
    for line in lines {
        let pushed = match row_of(line, schema, rules) {
            Ok(None) => Err(None),
            Ok(Some(row)) => parts.push(line, &row, empty, now).map_err(Some),
            Err(reason) => Err(Some(reason)),
        };
        if let Err(reason) = pushed {
            if let Some(reason) = &reason {
                is_bad(line, reason);
            }
            parts.skip(line, now);
        }
    }
    parts.close(now);
    parts.done
}

/// `None`: the line is empty.
fn row_of(line: &Line, schema: &Schema, rules: FieldRules) -> Result<Option<DynRow>, String> {
    let Text::Whole(text) = &line.text else { return Err("the line is too long".to_owned()) };
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let record = JsonRecord::parse(text).map_err(|error| error.to_string())?;
    schema.row_from_with(&record, rules).map(Some).map_err(|error| error.to_string())
}

struct Parts {
    done: Vec<Part>,
    /// Rows of one shape.
    open: Option<Open>,
}

struct Open {
    first: u64,
    rows: RowBuffer,
    bytes: usize,
    behind: At,
}

impl Parts {
    fn push(&mut self, line: &Line, row: &DynRow, empty: Empty<'_>, now: SystemTime) -> Result<(), String> {
        if self.open.as_ref().is_some_and(|open| open.rows.schema() != row.schema()) {
            self.close(now);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let rows = empty(row.schema()).map_err(|error| error.to_string())?;
                Open { first: line.number, rows, bytes: 0, behind: At::default() }
            }
        };
        let pushed = open.rows.push(row).map_err(|error| error.to_string());
        if pushed.is_ok() {
            open.bytes += bytes(line);
            open.behind = behind(line);
        }
        if !open.rows.is_empty() {
            self.open = Some(open);
        }
        pushed
    }

    /// The line needs no write. Those that follow each other are one part: each part may be a transaction, and is held in memory.
    fn skip(&mut self, line: &Line, now: SystemTime) {
        self.close(now);
        if let Some(last) = self.done.last_mut()
            && let Next::Skip(lines) = &mut last.next
        {
            *lines = *lines.start()..=line.number;
            last.bytes += bytes(line);
            last.behind = behind(line);
            return;
        }
        let next = Next::Skip(line.number..=line.number);
        self.done.push(Part { next, bytes: bytes(line), behind: behind(line), before: None });
    }

    fn close(&mut self, now: SystemTime) {
        if let Some(Open { first, rows, bytes, behind }) = self.open.take() {
            let next = Next::Block(SourceBlock::of_rows(first, rows.into_rows(), now));
            self.done.push(Part { next, bytes, behind, before: None });
        }
    }
}

fn behind(line: &Line) -> At {
    At { line: line.number, offset: line.end }
}

fn bytes(line: &Line) -> usize {
    usize::try_from(line.end - line.begin).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, ValueRules};

    use super::*;

    #[test]
    fn lines_of_one_shape_are_a_block() {
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("n", ColumnType::I64).build().unwrap();
        let texts: [&[u8]; 8] = [
            b"{\"id\":1}",
            b"{\"id\":2}\r",
            b"{\"id\":3,\"n\":4}",
            b" ",
            b"{\"id\":\"secret\"}",
            b"[]",
            b"{\"id\":7}",
            b"{\"id\":8}",
        ];
        let mut lines: Vec<Line> = (1..).zip(texts).map(|(number, text)| line(number, text)).collect();
        lines.push(Line { text: Text::TooLong(b"{".to_vec()), ..line(9, b"") });
        let mut bad = Vec::new();
        let empty = |schema: &Schema| Ok(RowBuffer::new(schema, ValueRules::default()));
        let parts = parts(&lines, &schema, FieldRules::default(), &empty, |line, reason| {
            assert!(!reason.contains("secret"), "{reason}");
            bad.push(line.number);
        });
        let kinds: Vec<_> = parts
            .iter()
            .map(|part| match &part.next {
                Next::Block(block) => (block.first, block.last(), true),
                Next::Skip(lines) => (*lines.start(), *lines.end(), false),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [(1, 2, true), (3, 3, true), (4, 6, false), (7, 8, true), (9, 9, false)];
        assert_eq!((kinds, bad), (expected.to_vec(), vec![5, 6, 9]));
        assert_eq!(parts[0].behind, At { line: 2, offset: 200 });
        assert_eq!((parts[2].behind, parts[2].bytes), (At { line: 6, offset: 600 }, 300));
    }

    fn line(number: u64, text: &[u8]) -> Line {
        Line { number, begin: (number - 1) * 100, end: number * 100, text: Text::Whole(text.to_vec()) }
    }
}
