//! Owns how the records of a stripe become rows: in runs of one shape, which can be written together.
//! Must not know files or databases.

use crate::load::csv_end::not_closed;
use crate::load::csv_quotes::MISQUOTED;
use crate::load::stripes::{Line, Records, Stripe};
use crate::table::csv_record::Header;
use crate::table::csv_values::Like;
use crate::table::target::Target;
use batchsql::{BatchSql, Row, RowBuffer, SharedRows};

/// A stripe with its rows.
pub(crate) struct Parsed {
    pub(crate) stripe: Stripe,
    pub(crate) runs: Vec<Run>,
    /// Records that are no rows, with the reason.
    pub(crate) refused: Vec<(u64, String)>,
}

impl Parsed {
    /// The wanted ones of the records that are no rows: line, record, reason, text.
    pub(crate) fn refused(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64, String, String)> {
        let wanted = self.refused.iter().filter(|(record, _)| is_wanted(*record));
        let told = wanted.map(|(record, reason)| {
            let (line, text) = self.stripe.text(*record);
            (line, *record, reason.clone(), text)
        });
        told.collect()
    }
}

/// Rows of one shape that follow each other.
pub(crate) struct Run {
    pub(crate) rows: SharedRows,
    /// The record of each row.
    pub(crate) records: Vec<u64>,
}

/// What a file says of all of its records.
#[derive(Debug)]
pub(crate) enum Shape {
    /// The header of a CSV file.
    Header(Header),
    #[cfg(feature = "arrow")]
    Mapping(batchsql::arrow::Mapping),
}

/// Makes rows of the records behind `after`, as `db` takes them. NDJSON has no shape.
pub(crate) fn parse(stripe: Stripe, target: &Target, shape: Option<&Shape>, after: u64, db: &BatchSql) -> Parsed {
    let most = db.max_step_rows(&target.schema);
    let header = match shape {
        #[cfg(feature = "arrow")]
        Some(Shape::Mapping(mapping)) => return map(stripe, mapping, after, db, most),
        Some(Shape::Header(header)) => Some(header),
        None => None,
    };
    let mut runs = Runs { db, most, runs: Vec::new() };
    let mut refused = Vec::new();
    let first = stripe.first;
    match &stripe.records {
        Records::Lines(lines) => {
            for (record, (_, line)) in (first..).zip(lines).filter(|(record, _)| *record > after) {
                let row = match line {
                    Line::Text(text) => target.row_of_json(text),
                    Line::TooLong => Err("the line is too long".to_owned()),
                };
                let pushed = row.and_then(|row| runs.push(record, &row));
                refused.extend(pushed.err().map(|reason| (record, reason)));
            }
        }
        Records::Csv(records) => {
            let header = header.expect("a CSV file has a header");
            let mut like: Option<Like> = None;
            // A record with an open quote has the rest of the file in it.
            let whole = records.len() - usize::from(records.open_quote.is_some());
            let misquoted = records.misquoted.iter().map(|(index, _)| first + *index as u64);
            let mut misquoted = misquoted.filter(|record| *record > after).peekable();
            for (record, fields) in (first..).zip(records.iter().take(whole)).filter(|(record, _)| *record > after) {
                if misquoted.next_if_eq(&record).is_some() {
                    refused.push((record, MISQUOTED.to_owned()));
                    continue;
                }
                if let Some(row) = like.as_ref().and_then(|like| like.row(fields.fields())) {
                    refused.extend(runs.push(record, &row).err().map(|reason| (record, reason)));
                    continue;
                }
                let text = fields.to_text().ok_or_else(|| "it is not UTF-8".to_owned());
                let row = text.and_then(|text| target.row_of_csv(header, &text));
                let pushed = row.and_then(|row| {
                    runs.push(record, &row)?;
                    like.get_or_insert_with(|| Like::new(header, &row));
                    Ok(())
                });
                refused.extend(pushed.err().map(|reason| (record, reason)));
            }
            let last = stripe.last();
            refused.extend(records.open_quote.filter(|_| last > after).map(|line| (last, not_closed(line))));
        }
        #[cfg(feature = "arrow")]
        Records::Rows(_) => unreachable!("such a file has a mapping"),
    }
    Parsed { stripe, runs: runs.finish(), refused }
}

/// Rows that are gathered in runs of one shape.
struct Runs<'a> {
    db: &'a BatchSql,
    /// Rows of a run.
    most: usize,
    runs: Vec<(RowBuffer, Vec<u64>)>,
}

impl Runs<'_> {
    fn push<R: Row>(&mut self, record: u64, row: &R) -> Result<(), String> {
        let has_room =
            |(rows, records): &&mut (RowBuffer, Vec<u64>)| rows.schema() == row.schema() && records.len() < self.most;
        match self.runs.last_mut().filter(has_room) {
            Some((rows, records)) => {
                rows.push(row).map_err(|error| error.to_string())?;
                records.push(record);
            }
            None => {
                let mut rows = self.db.row_buffer(row.schema()).map_err(|error| error.to_string())?;
                rows.push(row).map_err(|error| error.to_string())?;
                self.runs.push((rows, vec![record]));
            }
        }
        Ok(())
    }

    fn finish(self) -> Vec<Run> {
        self.runs.into_iter().map(|(rows, records)| Run { rows: rows.into_rows(), records }).collect()
    }
}

/// Makes rows of a batch.
#[cfg(feature = "arrow")]
fn map(stripe: Stripe, mapping: &batchsql::arrow::Mapping, after: u64, db: &BatchSql, most: usize) -> Parsed {
    let Records::Rows(batch) = &stripe.records else { unreachable!("a mapping is of batches") };
    let record = |row: usize| stripe.first + row as u64;
    let skipped = usize::try_from(after.saturating_sub(stripe.first - 1)).unwrap_or(usize::MAX).min(batch.num_rows());
    // A schema without rules has too many columns for the database, and each row is refused below.
    let rules = db.value_rules(mapping.schema()).unwrap_or_default();
    let mapped = mapping.rows_for(batch, skipped..batch.num_rows(), rules);
    let mapped = mapped.expect("the batches of a file have the same fields");
    let mut refused: Vec<(u64, String)> =
        mapped.refused.iter().map(|refused| (record(refused.row), refused.error.to_string())).collect();
    // What the database cannot hold.
    let (mut good, mut begin) = (Vec::new(), 0);
    let rows = mapped.rows.rows();
    while begin < rows.len() {
        let end = match db.validate_rows(rows.slice(begin..rows.len())) {
            Ok(()) => rows.len(),
            Err(found) => {
                refused.push((record(mapped.numbers[begin + found.row]), found.error.to_string()));
                begin + found.row
            }
        };
        good.extend(begin..end);
        begin = end + 1;
    }
    refused.sort_unstable_by_key(|(record, _)| *record);
    let rows = if good.len() == rows.len() {
        mapped.rows.clone()
    } else {
        rows.gather(&good.iter().map(|row| *row as u32).collect::<Vec<_>>())
    };
    let numbers: Vec<u64> = good.iter().map(|row| record(mapped.numbers[*row])).collect();
    let run = |(index, records): (usize, &[u64])| {
        let begin = index * most;
        let rows = rows.rows().slice(begin..begin + records.len()).to_shared();
        Run { rows, records: records.to_vec() }
    };
    let runs = numbers.chunks(most).enumerate().map(run).collect();
    Parsed { stripe, runs, refused }
}
