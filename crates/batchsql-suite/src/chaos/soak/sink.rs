//! Owns the sink of the writer of a soak: that of chaos, with a command for the counters on Redis.
//! Must not know rows.

use anyhow::Result;
use batchsql::DynSink;
use batchsql::redis::{Command, RedisSink};

use super::job::Job;
use crate::chaos::sinks::{self, Target, UserPool};
use crate::database::DatabaseName;

/// The pool that the program makes, if the job asks for one.
pub(super) fn user_pool(job: &Job) -> Result<Option<UserPool>> {
    sinks::user_pool(target(job))
}

/// The sink of a job.
pub(super) fn open(job: &Job, pool: Option<&UserPool>) -> Result<DynSink> {
    if job.database == DatabaseName::Redis {
        let options = sinks::redis_options(&job.dsn, &job.tables)?;
        let options = options.command(job.counter.as_str(), Command::raw("INCRBY"));
        return Ok(DynSink::new(RedisSink::with_options_lazy(&options)?));
    }
    sinks::open(target(job), pool)
}

fn target(job: &Job) -> Target<'_> {
    Target { database: job.database, dsn: &job.dsn, pool: job.pool, tables: &job.tables }
}
