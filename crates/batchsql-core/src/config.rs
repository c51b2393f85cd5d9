//! Owns the settings of a pipeline and their validation, one message per mistake.
//! Must not know what the settings are used for.

use std::time::Duration;

use crate::error::StartError;

/// Settings of a pipeline. Every size must be above zero; [`start`](crate::BatchSqlBuilder::start)
/// checks them all.
///
/// ```
/// use batchsql_core::PipelineConfig;
/// use std::time::Duration;
/// let config = PipelineConfig { flush_size: 1_000, flush_interval: Duration::from_millis(50), ..Default::default() };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Rows that may wait or be on their way at once, over all tables; default 10,000. `submit`
    /// waits beyond it.
    pub buffer_size: usize,
    /// Bytes that those rows may take, at most 4 GiB; default 32 MiB.
    pub buffer_bytes: usize,
    /// Rows after which a batch is written; default 500, at most `buffer_size`.
    pub flush_size: usize,
    /// Bytes after which a batch is written; default 4 MiB, at most `buffer_bytes`. A batch is
    /// larger only by its last row.
    pub flush_bytes: usize,
    /// Age of its oldest row after which a batch is written; default 100 ms. With
    /// [`Duration::ZERO`] a batch is written as soon as a permit is free (eager flushing).
    pub flush_interval: Duration,
    /// Batches that may be written at once, over all tables; default 4. A sink with fewer
    /// connections lowers it.
    pub max_concurrency: usize,
    /// Which rows keep their order; default [`Ordering::Auto`].
    pub ordering: Ordering,
    /// How long a batch is retried after its first passing error, over all of its rows; default 60 s.
    /// Then its rows end as `Expired`.
    pub retry_for: Duration,
    /// Time for one attempt to write a batch; default 30 s. What the database made of it is then
    /// not known, see [`Outcome::Unknown`](crate::Outcome::Unknown).
    pub statement_timeout: Duration,
    /// Statements that may be spent on finding the bad rows of one batch; default 256. Beyond it
    /// the remaining rows are rejected together.
    pub isolation_budget: usize,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            buffer_size: 10_000,
            buffer_bytes: 32 << 20,
            flush_size: 500,
            flush_bytes: 4 << 20,
            flush_interval: Duration::from_millis(100),
            max_concurrency: 4,
            ordering: Ordering::Auto,
            retry_for: Duration::from_secs(60),
            statement_timeout: Duration::from_secs(30),
            isolation_budget: 256,
        }
    }
}

/// Which rows of one table are written in the order of their submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ordering {
    /// [`PerKey`](Self::PerKey) for tables with a conflict rule, [`None`](Self::None) for plain
    /// inserts.
    #[default]
    Auto,
    /// Rows with equal keys keep their order; others may be written side by side. Dynamic rows that
    /// leave out different columns are written by different statements, which are not ordered among
    /// each other: flush between them where that matters.
    PerKey,
    /// All rows of the table that carry the same columns keep their order: one batch at a time.
    PerTable,
    /// No order.
    None,
}

impl PipelineConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that cannot work, with what to do about it.
    pub fn validate(&self) -> Result<(), StartError> {
        let Self { buffer_size, buffer_bytes, flush_size, flush_bytes, .. } = *self;
        let positive = [
            ("buffer_size", buffer_size),
            ("buffer_bytes", buffer_bytes),
            ("flush_size", flush_size),
            ("flush_bytes", flush_bytes),
            ("max_concurrency", self.max_concurrency),
            ("isolation_budget", self.isolation_budget),
        ];
        let limit = u32::MAX as usize;
        let problem = if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            format!("{name} is 0; set it to at least 1")
        } else if buffer_size > limit || buffer_bytes > limit {
            format!("buffer_size and buffer_bytes may be at most {limit}; lower them")
        } else if flush_size > buffer_size {
            format!("flush_size {flush_size} is above buffer_size {buffer_size}; raise buffer_size or lower flush_size")
        } else if flush_bytes > buffer_bytes {
            format!(
                "flush_bytes {flush_bytes} is above buffer_bytes {buffer_bytes}; raise buffer_bytes or lower flush_bytes"
            )
        } else if self.statement_timeout.is_zero() {
            "statement_timeout is 0, so that no write could succeed; set it to seconds".to_owned()
        } else {
            return Ok(());
        };
        Err(StartError::new(problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_has_its_message() {
        let check = |change: fn(&mut PipelineConfig), part: &str| {
            let mut config = PipelineConfig::default();
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        };
        check(|c| c.buffer_size = 0, "buffer_size is 0");
        check(|c| c.buffer_bytes = 0, "buffer_bytes is 0");
        check(|c| c.flush_size = 0, "flush_size is 0");
        check(|c| c.flush_bytes = 0, "flush_bytes is 0");
        check(|c| c.max_concurrency = 0, "max_concurrency is 0");
        check(|c| c.isolation_budget = 0, "isolation_budget is 0");
        check(|c| c.buffer_size = usize::MAX, "at most");
        check(|c| c.flush_size = 10_001, "above buffer_size 10000");
        check(|c| c.flush_bytes = 64 << 20, "above buffer_bytes");
        check(|c| c.statement_timeout = Duration::ZERO, "statement_timeout");
        assert_eq!(PipelineConfig::default().validate(), Ok(()));
    }
}
