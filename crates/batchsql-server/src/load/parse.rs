//! Owns how the records of a stripe become rows: in runs of one shape, which can be written together.
//! Must not know files or databases.

use batchsql::{DynRow, RowBuffer, SharedRows};
use csv::StringRecord;

use crate::load::stripes::{Line, Records, Stripe};
use crate::table::csv_record::Header;
use crate::table::target::Target;

/// A stripe with its rows.
pub(crate) struct Parsed {
    pub(crate) stripe: Stripe,
    pub(crate) runs: Vec<Run>,
    /// Records that are no rows, with the reason.
    pub(crate) refused: Vec<(u64, String)>,
}

/// Rows of one shape that follow each other.
pub(crate) struct Run {
    pub(crate) rows: SharedRows,
    /// The record of each row.
    pub(crate) records: Vec<u64>,
}

/// Makes a buffer for rows of the shape of this one.
type Empty<'a> = &'a dyn Fn(&DynRow) -> Result<RowBuffer, String>;

/// Makes rows of the records behind `after`. `empty` makes a buffer for the shape of a row, `most` rows are in a run.
pub(crate) fn parse(
    stripe: Stripe,
    target: &Target,
    header: Option<&Header>,
    after: u64,
    (empty, most): (Empty<'_>, usize),
) -> Parsed {
    let mut runs: Vec<(RowBuffer, Vec<u64>)> = Vec::new();
    let mut refused = Vec::new();
    let rows: Vec<Result<DynRow, String>> = match &stripe.records {
        Records::Lines(lines) => {
            let row = |(_, line): &(u64, Line)| match line {
                Line::Text(text) => target.row_of_json(text),
                Line::TooLong => Err("the line is too long".to_owned()),
            };
            lines.iter().map(row).collect()
        }
        Records::Csv(records) => {
            let row = |(_, record): &(u64, csv::ByteRecord)| {
                let record =
                    StringRecord::from_byte_record(record.clone()).map_err(|_| "it is not UTF-8".to_owned())?;
                target.row_of_csv(header.expect("a CSV file has a header"), &record)
            };
            records.iter().map(row).collect()
        }
    };
    for (record, row) in (stripe.first..).zip(rows) {
        if record <= after {
            continue;
        }
        let pushed = row.and_then(|row| {
            let has_room = |(rows, records): &&mut (RowBuffer, Vec<u64>)| {
                rows.schema() == row_schema(&row) && records.len() < most
            };
            match runs.last_mut().filter(has_room) {
                Some((rows, records)) => {
                    rows.push(&row).map_err(|error| error.to_string())?;
                    records.push(record);
                }
                None => {
                    let mut rows = empty(&row)?;
                    rows.push(&row).map_err(|error| error.to_string())?;
                    runs.push((rows, vec![record]));
                }
            }
            Ok(())
        });
        if let Err(reason) = pushed {
            refused.push((record, reason));
        }
    }
    let runs = runs.into_iter().map(|(rows, records)| Run { rows: rows.into_rows(), records }).collect();
    Parsed { stripe, runs, refused }
}

fn row_schema(row: &DynRow) -> &batchsql::Schema {
    batchsql::Row::schema(row)
}
