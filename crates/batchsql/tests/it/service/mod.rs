//! The example service as people run it, alone and in the production stack: programs in, what they say and do out.

mod app;
mod compose;
mod image;
mod production;
mod program;
mod secrets;
#[path = "../../../examples/monitored_app/tasks.rs"]
mod tasks;
mod together;
