//! A file of JSON lines as a source. `feed` is what a program uses: a pipeline, the source and its task. `source` is the file as
//! a [`Source`](crate::Source); `lines` reads it, `rows` makes rows of lines, `mark` is what it remembers on disk, `identity`
//! says which file it is, `bad_lines` has the lines that are no rows.

mod bad_lines;
mod error;
mod feed;
mod identity;
mod lines;
mod mark;
mod options;
mod rows;
mod source;

pub use error::FileError;
pub use feed::{FileFeed, FileReport};
pub use options::{FileOptions, TakeOver, WhenReplaced};
pub use source::FileSource;
