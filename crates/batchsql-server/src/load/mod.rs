//! Files into a table. `file` says what a file is, `stripes` reads its records in stripes (`csv_end` finds an open quote, `csv_quotes` text behind a closed one, `batches` reads
//! those of Parquet and Arrow files), `parse` makes rows of a stripe,
//! `writer` writes the stripes of a partition in order, and says with each how far it is written: `exactly` in the database in
//! the transaction of the rows (`patience` says how long rows are tried), `marked` in a file beside it (`mark`) where the database has no transactions. `layout` says which record
//! is in which partition, `claims` takes their positions, which have the name of the table that `found_name` asks for. `rejects` has the records that
//! were not written (`reject_lines` finds its lines), `tally` counts. `loading` puts them
//! together: `opened` has the writers and what earlier runs have done, `reader` reads the file, `incomplete` says why it was not
//! loaded to its end, `stop` is how it is ended early. `command` is `batchsql load`.

#[cfg(feature = "arrow")]
mod batches;
mod claims;
pub(crate) mod command;
mod csv_end;
mod csv_quotes;
mod csv_records;
mod exactly;
pub(crate) mod file;
mod found_name;
mod incomplete;
mod layout;
pub(crate) mod loading;
#[cfg(test)]
mod loading_tests;
pub(crate) mod mark;
pub(crate) mod marked;
mod opened;
mod parse;
mod patience;
mod reader;
mod reject_lines;
pub(crate) mod rejects;
pub(crate) mod stop;
mod stripes;
mod tally;
mod writer;
