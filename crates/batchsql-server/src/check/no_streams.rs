//! Owns what a check finds about NATS in a program that was built without it: a configuration with streams was refused.
//! Must not know NATS.

use batchsql::BatchSql;

use crate::check::finding::Finding;
use crate::config::settings::{Publish, Settings};

/// The configuration has none.
pub(super) async fn of_publish(_: &Publish) -> Vec<Finding> {
    Vec::new()
}

/// The configuration has none.
pub(super) async fn of_sources(_: &Settings, _: Option<&BatchSql>) -> Vec<Finding> {
    Vec::new()
}
