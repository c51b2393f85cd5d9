//! Rows over HTTP. `server` accepts connections (`tls`, `write_limit`), `routes` has the paths, `rows` answers a request with
//! rows: `coding` decompresses and `items` splits what is sent, `ingest` makes rows of it and submits them, `progress` is what became of
//! them, `answer` the response. `access` knows tokens, `idempotency` keys of requests, `openapi` describes all of it.

mod access;
mod answer;
mod idempotency;
mod ingest;
pub(crate) mod items;
mod openapi;
mod progress;
pub(crate) mod routes;
mod rows;
pub(crate) mod server;
pub(crate) mod shared;
pub(crate) mod tls;
mod write_limit;
