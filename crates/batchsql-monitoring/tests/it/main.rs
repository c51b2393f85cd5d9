//! The checks from outside: the shipped files pass, each mistake is found, and a Prometheus gets Grafana's queries.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod broken;
mod panels;
mod program;
mod shipped;
mod tree;
