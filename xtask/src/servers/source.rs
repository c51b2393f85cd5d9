//! Where a server comes from.
//! Must not know how it is started there.

use anyhow::Context;

use super::{Kind, Purpose, Server, mysql, pgbouncer, postgres, random, redis};

pub(crate) fn start(kind: Kind, arguments: &[String], purpose: Purpose) -> anyhow::Result<Server> {
    match kind {
        Kind::Postgres => {
            postgres::start(&postgres::Programs::find().context("missing")?, arguments, purpose, &random::password()?)
        }
        Kind::PgBouncer => pgbouncer::start(&pgbouncer::Programs::find().context("missing")?, arguments, purpose),
        Kind::MySql => mysql::start(&mysql::Programs::find().context("missing")?, arguments, purpose),
        Kind::Redis => redis::start(&redis::Programs::find().context("missing")?, arguments),
        Kind::RedisCluster => redis::start_cluster(&redis::Programs::find().context("missing")?, arguments),
    }
}
