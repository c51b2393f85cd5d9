//! Rows over HTTP. `server` accepts connections (`tls`), `routes` has the paths, `rows` answers a request with
//! rows: `coding` decompresses and splits what is sent, `reading` makes rows of it: `ingest` submits them to memory as they
//! come, with keys in `idempotency`; `held` keeps them, within `held_bytes` (`held_line`: which `client` is next), and stores them with their key
//! in the durable intake. `progress` is what became of them, `answer` the response. `access` knows tokens, `openapi` describes all of
//! it, and `docs` is that description as a page.

mod access;
mod answer;
mod client;
mod docs;
mod held;
mod held_bytes;
mod held_line;
mod held_order;
mod idempotency;
mod ingest;
mod openapi;
mod progress;
mod reading;
pub(crate) mod routes;
mod rows;
pub(crate) mod server;
pub(crate) mod shared;
pub(crate) mod tls;
