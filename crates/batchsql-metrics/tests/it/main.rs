//! Owns the proof that real pipelines show the right numbers through an exporter that is not Prometheus.
//! Must not know how handles are registered.

mod pipeline;
mod snapshot;
mod tests_of_users;
