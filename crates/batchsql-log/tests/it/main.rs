//! Tests of the log on a simulated disk that crashes, and on the real one.

mod behaviour;
mod complaints;
mod crash;
mod damage;
mod full_disk;
mod golden;
mod groups;
mod model;
mod sim;
