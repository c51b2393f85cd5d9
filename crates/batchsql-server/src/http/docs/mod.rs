//! The description of the interface as a page for people. `page` puts it together, `operation` has a method of a path, `schema` the
//! forms of values, `text` escapes. It is one document without a script, and needs nothing else.

mod operation;
mod page;
mod schema;
mod text;

pub(super) use page::get;
