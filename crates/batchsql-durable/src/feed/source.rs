//! Owns the log as a source: its blocks and gaps, what is settled, and how a position in the database fits it.
//! Must not know how rows are written.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use batchsql_core::{Claim, ClaimFrom, StopReason};
use batchsql_feed::{Begin, Next, NotClaimed, Refusal, Source, SourceBlock, SourceError, SourceGap};
use batchsql_log::{From, Gap, Log, LogError, Reader, StoredBlock};
use tokio::sync::watch;

use crate::feed::claimed::Claims;
use crate::feed::recent::RecentBlock;
use crate::feed::stream::Stream;

/// What all partitions of a log use.
#[derive(Debug)]
pub(crate) struct FromLog {
    pub(crate) log: Log,
    pub(crate) accepts_gaps: bool,
    /// `None`: at least once.
    pub(crate) claims: Option<Arc<Claims>>,
}

/// One partition of the log.
#[derive(Debug)]
pub(crate) struct LogSource {
    from: Arc<FromLog>,
    stream: Arc<Stream>,
    appended: watch::Receiver<u64>,
    /// `None` until it is opened, while a thread reads with it, and after a panic of it.
    reader: Option<Reader>,
    /// The row behind the last one that was read.
    next: u64,
    /// Its rows move to other files, and those that it reads are removed.
    is_aside: bool,
}

impl LogSource {
    pub(crate) fn new(from: Arc<FromLog>, stream: Arc<Stream>) -> Self {
        let (appended, next) = (stream.appended.subscribe(), stream.state.settled() + 1);
        Self { from, stream, appended, reader: None, next, is_aside: false }
    }

    fn reader(&mut self) -> Result<Reader, SourceError> {
        match self.reader.take() {
            Some(reader) => Ok(reader),
            None => {
                let reader = self.from.log.reader(self.stream.table, self.stream.state.partition(), From::Unsettled);
                // It does not depend on the disk.
                reader.map_err(|error| SourceError::stop(StopReason::Unreadable, error.to_string()))
            }
        }
    }

    /// The next rows, if they were appended just now.
    fn take_recent(&mut self) -> Result<Option<RecentBlock>, SourceError> {
        let mut reader = self.reader()?;
        let may_take = |block: &RecentBlock| reader.pass(block.first, block.last(), block.bytes() as u64);
        let block = self.stream.recent.take(self.next, may_take);
        self.reader = Some(reader);
        Ok(block)
    }

    /// Its file may be removed before it reads again.
    fn release(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.release();
        }
    }

    /// Reads on a thread that may block. `None`: the runtime ends.
    async fn read(&mut self) -> Result<Option<batchsql_log::Next>, SourceError> {
        let failed = |error: LogError| SourceError::again(error.to_string());
        let mut reader = self.reader()?;
        let is_aside = self.is_aside;
        let read = tokio::task::spawn_blocking(move || {
            let next = reader.next();
            if is_aside {
                reader.release();
            }
            (reader, next)
        });
        match read.await {
            Ok((reader, next)) => {
                self.reader = Some(reader);
                next.map(Some).map_err(failed)
            }
            Err(error) if error.is_cancelled() => Ok(None),
            Err(error) => {
                let text = format!("the reader of the log has failed ({error}); start the program again");
                Err(SourceError::stop(StopReason::Defect, text))
            }
        }
    }

    fn claims(&self) -> Result<&Arc<Claims>, Refusal> {
        let refused = || Refusal::Stop(StopReason::Settings, "the intake writes at least once".to_owned());
        self.from.claims.as_ref().ok_or_else(refused)
    }

    /// Writes to the file of claims.
    async fn note(
        &self,
        write: impl FnOnce(&Claims, &str, u32) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Refusal> {
        let (claims, stream) = (Arc::clone(self.claims()?), Arc::clone(&self.stream));
        let write = move || write(&claims, stream.state.table(), stream.state.partition());
        let written = tokio::task::spawn_blocking(write).await;
        // Without a result the runtime ends.
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| {
            Refusal::Wait(format!(
                "the file POSITIONS in the folder of the intake cannot be written: {error}; trying again"
            ))
        })
    }
}

impl Source for LogSource {
    async fn next(&mut self) -> Result<Next, SourceError> {
        if self.next > *self.stream.appended.borrow() {
            // The log may have rows that were not reported yet: they are about to come from memory.
            self.release();
            return Ok(Next::Nothing);
        }
        // Rows that the process before has settled behind others. If others follow, the reader leaves them out, or has them at the
        // front of a block: it comes as a whole.
        if self.from.claims.is_none() && self.next <= self.stream.recovered {
            let (first, partition) = (self.next, self.stream.state.partition());
            let settled = self.from.log.settled_from(self.stream.table, partition, first);
            if let Some(last) = settled.filter(|last| *last >= self.stream.recovered) {
                self.next = last + 1;
                return Ok(Next::Skip(first..=last));
            }
        }
        if let Some(block) = self.take_recent()? {
            self.next = block.last() + 1;
            return Ok(Next::Block(SourceBlock::of_rows(block.first, block.rows, block.time)));
        }
        Ok(match self.read().await? {
            Some(batchsql_log::Next::Block(block)) => {
                self.next = block.last() + 1;
                let ended = if self.from.claims.is_none() && block.first <= self.stream.recovered {
                    let partition = self.stream.state.partition();
                    self.from.log.settled(self.stream.table, partition, block.first..=block.last())
                } else {
                    Vec::new()
                };
                let StoredBlock { first, count, schema_bytes, bytes, time, .. } = block;
                Next::Block(SourceBlock::new(first, count, schema_bytes, bytes, time).with_ended(ended))
            }
            Some(batchsql_log::Next::Gap(gap)) => {
                self.next = gap.last + 1;
                Next::Gap(source_gap(&gap))
            }
            // The end, a full window, and what a later version may add.
            _ => Next::Nothing,
        })
    }

    async fn ready(&mut self) {
        // Its sender is in the stream.
        let _ = self.appended.changed().await;
    }

    async fn settle(&mut self, rows: RangeInclusive<u64>) -> Result<(), SourceError> {
        let settled = self.from.log.settle(self.stream.table, self.stream.state.partition(), rows);
        settled.map_err(|error| SourceError::again(error.to_string()))
    }

    async fn settle_behind(&mut self, rows: Vec<RangeInclusive<u64>>) -> Result<(), SourceError> {
        for rows in rows {
            self.settle(rows).await?;
        }
        Ok(())
    }

    /// The rows of a table that cannot be written leave the segments that they share with other tables.
    fn set_aside(&mut self, is_aside: bool) {
        self.is_aside = is_aside;
        if is_aside {
            self.release();
        }
        self.from.log.set_aside(self.stream.table, self.stream.state.partition(), is_aside);
    }

    async fn claim(&mut self) -> Result<Claim, Refusal> {
        let claims = Arc::clone(self.claims()?);
        let (table, partition) = (self.stream.state.table(), self.stream.state.partition());
        if claims.claimed.is_stopped(table, partition) {
            let text = "its position in the database did not fit the log at an earlier start; write its rows with `durable_log \
                        export`, and begin with an empty folder";
            return Err(Refusal::Stop(StopReason::OtherSource, text.to_owned()));
        }
        let mut claim = Claim::of(&*claims.owner).from(ClaimFrom::Owners(claims.claimed.owners(table, partition)));
        if !claims.claimed.has_position(table, partition) || self.from.accepts_gaps {
            claim = claim.or_begin_at(i64::try_from(self.stream.state.settled()).unwrap_or(i64::MAX));
        }
        // Before the claim: otherwise a process that ends right after it would not know the position as its own.
        self.note(|claims, table, partition| claims.claimed.claims(table, partition, &claims.owner)).await?;
        Ok(claim)
    }

    fn not_claimed(&mut self, why: NotClaimed) -> Refusal {
        let (kind, text) = match why {
            NotClaimed::Missing => (
                StopReason::Position,
                "the database has no position of this partition, although it had one: it was made anew or restored from a \
                 backup, or row level security hides it; restore a newer one, let this user see it, or accept that rows written since then may be lost, with \
                 DurableOptions::accept_gaps",
            ),
            _ => (
                StopReason::Fenced,
                "another process has claimed it: this folder is a copy or an older backup of a log that went on elsewhere; keep \
                 one of the folders, and write the rows that only this one has with `durable_log export`; if the database was \
                 restored from a backup while this process ran, start the program again",
            ),
        };
        Refusal::Stop(kind, text.to_owned())
    }

    async fn begin_at(&mut self, reached: u64) -> Result<Begin, Refusal> {
        let (table, partition) = (self.stream.table, self.stream.state.partition());
        let (settled, recovered) = (self.stream.state.settled(), self.stream.recovered);
        // An earlier start may have stored rows without a claim.
        let ended_at = self.claims()?.claimed.ended_at(self.stream.state.table(), partition);
        let ended_at = ended_at.map_or(recovered, |ended_at| ended_at.min(recovered));
        let missing = settled.saturating_sub(reached);
        if missing > 0 && !self.from.accepts_gaps {
            let text = format!(
                "the position in the database is {reached}, but the log has rows only from {} on: the database was restored from \
                 a backup; restore a newer one, or accept that {missing} rows may be missing, with DurableOptions::accept_gaps",
                settled + 1
            );
            return Err(Refusal::Stop(StopReason::Gap, text));
        }
        // New rows must not get numbers that were used.
        let is_above = reached > ended_at;
        if is_above && (ended_at < recovered || self.from.log.resume_above(table, partition, reached).is_err()) {
            let text = format!(
                "the position in the database is {reached}, but the log ended at {ended_at} when it was opened: it has lost its \
                 end, or the position was changed from outside, and rows that were stored since then have numbers that were used \
                 before; set the position back to {ended_at} in batchsql_positions, and they are written"
            );
            return Err(Refusal::Stop(StopReason::OtherSource, text));
        }
        if is_above {
            // No crash does it where rows are acknowledged after their sync.
            let (table, partition) = (self.stream.state.table(), self.stream.state.partition());
            tracing::error!(
                table,
                partition,
                position = reached,
                log_ended_at = recovered,
                "the log has lost its end: the database has rows that it has not; rows that were stored behind them are missing"
            );
        }
        self.note(|claims, table, partition| claims.claimed.has(table, partition, &claims.owner)).await?;
        Ok(if missing > 0 { Begin::behind(settled, missing) } else { Begin::default() })
    }
}

fn source_gap(gap: &Gap) -> SourceGap {
    let rows = gap.last - gap.first + 1;
    let text = format!(
        "{rows} rows are missing in the log ({} to {}); look into its folder quarantine, restore a backup, or accept the loss \
         with DurableOptions::accept_gaps",
        gap.first, gap.last
    );
    SourceGap::new(gap.first, gap.last, rows, text)
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, RowBuffer, Schema, ValueRules};
    use batchsql_feed::PartitionState;
    use batchsql_log::{Block, Options};

    use super::*;
    use crate::feed::recent::Recent;

    /// Between the sync of a group and its report. Each such read would search the file for the block.
    #[tokio::test]
    async fn rows_that_are_about_to_come_from_memory_are_not_read_from_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(Options::new(folder.path()).min_free_bytes(0)).unwrap();
        let (table, schema) = (log.table("t").unwrap(), log.schema(b"t").unwrap());
        let block = Block { table, partition: 0, schema, count: 1, bytes: vec![1; 100] };
        let first = log.append(block).unwrap().await.unwrap().first;
        let state = PartitionState::new("t", 0, 0);
        let stream = Arc::new(Stream::begin_at(table, state, first, 0, Recent::new(1 << 20)));
        let from = FromLog { log, accepts_gaps: false, claims: None };
        let mut source = LogSource::new(Arc::new(from), Arc::clone(&stream));
        assert!(matches!(source.next().await.unwrap(), Next::Nothing));

        let of_rows = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        let mut rows = RowBuffer::new(&of_rows, ValueRules::default());
        rows.push(&of_rows.row().set("id", 1_i64).unwrap().finish().unwrap()).unwrap();
        stream.recent.push(RecentBlock { first, rows: rows.into_rows(), time: std::time::SystemTime::UNIX_EPOCH });
        stream.append(first);
        source.ready().await;
        assert!(matches!(source.next().await.unwrap(), Next::Block(block) if block.last() == first));
        assert!(matches!(source.next().await.unwrap(), Next::Nothing));
    }
}
