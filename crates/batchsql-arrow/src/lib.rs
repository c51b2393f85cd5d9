//! Arrow record batches as rows of [BatchSQL](batchsql_core).
//!
//! A [`Mapping`] is made once for the batches of a schema: it finds the column of each field, and checks the types. Then
//! [`SubmitBatch::submit_batch`] copies the values of each batch column by column. Nothing is rounded: a value that its
//! column cannot hold exactly refuses its batch, with the column and the row.
//!
//! # Types
//!
//! | Arrow | column types |
//! |---|---|
//! | Boolean | bool |
//! | Int8 to Int64, UInt8 to UInt64 | integers, floats and decimals; a number that does not fit is refused |
//! | Float16, Float32, Float64 | f64; f32 for numbers that it holds exactly, or that have the same shortest digits (0.1) |
//! | Decimal32, 64, 128, 256 | decimal; with scale 0 also integers, if the number fits |
//! | Utf8, LargeUtf8, Utf8View, a dictionary of them | text; the others by their text: decimal, uuid, json, date, time, timestamp (ISO 8601), timestamptz (RFC 3339) |
//! | Binary, LargeBinary, BinaryView, FixedSizeBinary | bytes; FixedSizeBinary(16) also uuid |
//! | Date32, Date64 | date; milliseconds that are not a whole day are refused |
//! | Time32, Time64 | time; nanoseconds that are not a whole microsecond are refused |
//! | Timestamp without a zone, in every unit | timestamp; nanoseconds as above |
//! | Timestamp with a zone, in every unit | timestamptz; nanoseconds as above |
//! | List, LargeList, FixedSizeList of scalars | json, which array columns of PostgreSQL take too; NaN and infinities are the texts `"NaN"`, `"Infinity"` and `"-Infinity"` there, and are refused where the database cannot hold them as a number |
//! | Null | `NULL` in a nullable column |
//!
//! Structs, maps, unions, lists of lists, durations, intervals, run-end encoded columns and dictionaries of other values are
//! refused when the mapping is made. So is a timestamp without a zone for a timestamptz column, and the other way round:
//! which instant is meant is not known.
//!
//! # Memory
//!
//! A batch is converted in parts of 8,192 rows, each of which is in the budget of the pipeline before the next one is made. So
//! a batch may have any number of rows.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod convert;
mod decimal;
mod element;
mod error;
mod mapping;
mod refused_text;
mod submit;
mod types;

pub use error::{MappingError, SubmitBatchError};
pub use mapping::{MappedRows, Mapping};
pub use submit::SubmitBatch;

/// The README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
