//! The example service as users run it, alone and in the production stack, checked by its output.

mod app;
mod compose;
mod image;
mod production;
pub(crate) mod program;
mod secrets;
#[path = "../../../examples/monitored_app/tasks.rs"]
mod tasks;
mod together;
