//! What is sent with a request, in parts: `coding` decompresses it, `items` splits it into lines or elements. Nothing here
//! holds more than a part and one line.

pub(crate) mod coding;
pub(crate) mod items;
mod zstd_frames;
