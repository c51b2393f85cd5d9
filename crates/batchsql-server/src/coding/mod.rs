//! Compressed bodies, messages and files, in parts of bounded size: `part` decompresses what has arrived (`gzip_members` has those
//! of gzip, `zstd_frames` puts the blocks of zstd together), `reader` does it for a file. `items` splits a body or a message into lines or elements.

mod gzip_members;
pub(crate) mod items;
pub(crate) mod part;
pub(crate) mod reader;
mod zstd_frames;
