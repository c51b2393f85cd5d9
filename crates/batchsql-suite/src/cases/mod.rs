//! The cases: what each writes, and what must be in the database afterwards.

mod all;
mod case;
mod change;
mod contention;
mod dataset;
mod load;
mod name;
mod pressure;
mod settings;
mod throughput;
mod upsert;

pub use case::{Case, Expected};
pub use load::Load;
pub use name::CaseName;
pub use settings::{MemoryBound, Settings};
