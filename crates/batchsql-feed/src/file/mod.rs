//! A file of JSON lines as a source. `feed` is what a program uses: a pipeline, the source and its task. `source` is the file as
//! a [`Source`](crate::Source), and `opening` finds it. `lines` reads it, `rows` makes rows of lines, `reader` does both, `mark` is what it remembers on
//! disk. `identity` says which file it is, `name` whether its name still leads to it. `bad_lines` has the lines that are no rows.
//! `monitor` tells the observers how far it is.

mod bad_lines;
mod blocking;
mod error;
mod feed;
mod identity;
mod lines;
mod mark;
mod monitor;
mod name;
mod opening;
mod options;
mod reader;
mod rows;
mod source;

pub use error::FileError;
pub use feed::{FileFeed, FileReport};
pub use options::{FileOptions, TakeOver, WhenReplaced};
pub use source::FileSource;
