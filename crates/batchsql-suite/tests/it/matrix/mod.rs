//! What every database does with every rule and every value: the product against models, through the suite's
//! own view of databases.

mod canary;
mod conflicts;
mod guilt;
mod runs;
mod servers;
mod types;
