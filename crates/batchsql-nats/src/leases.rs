//! Owns how a worker that writes exactly once gets and gives partitions: its leases in the table of positions.
//! Must not know the stream, or when the worker does so.

use std::collections::{BTreeSet, HashSet};

use batchsql_core::{BatchSql, Claim, Claimed, PartitionKey, Position, SinkError, StoredPosition, share_out};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;

use crate::options::WorkerOptions;
use crate::partitions::{Name, Partitions};
use crate::reached::Before;
use crate::subject::table_of_quoted;

/// The leases of one worker.
pub(crate) struct Leases<'a> {
    pub(crate) pipeline: &'a BatchSql,
    pub(crate) partitions: &'a Partitions,
    pub(crate) options: &'a WorkerOptions,
    pub(crate) incarnation: &'a str,
}

/// Whether a worker takes partitions that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claiming {
    Yes,
    /// It could not read them now.
    No,
}

impl Leases<'_> {
    /// Renews them, and takes a seat if there is none: a worker without a seat gets no partitions.
    pub(crate) async fn renew(&self) -> Result<(), String> {
        let WorkerOptions { source, owner, lease, .. } = self.options;
        let renewed = self.pipeline.renew(source, owner, *lease).await;
        let held = renewed.map_err(|error| self.not_known(&error))?;
        if !held.iter().any(|stored| stored.key.is_seat()) {
            self.pipeline.take_seat(source, owner, *lease).await.map_err(|error| self.not_known(&error))?;
        }
        Ok(())
    }

    /// Starts partitions that this worker is to have, and gives others away.
    pub(crate) async fn share(&self, claiming: Claiming) -> Result<(), String> {
        let WorkerOptions { source, owner, .. } = self.options;
        // Before the look, or a claim that has just succeeded would seem to be another worker's.
        let held = self.partitions.held();
        let stored = self.pipeline.positions(source).await.map_err(|error| self.not_known(&error))?;
        self.end_lost(&held, &stored).await;
        let all: Vec<PartitionKey> = self.partitions.all().into_iter().map(|name| self.key(name)).collect();
        self.show_unheld(&all, &stored);
        let share = share_out(owner, &all, &stored);
        let given = share.release.iter().map(async |key| {
            self.partitions.stop(&(key.table.clone(), key.partition)).await;
            if let Some(found) = find(&stored, key) {
                self.release(&found.position, key).await;
            }
        });
        join_all(given).await;
        if claiming == Claiming::No {
            return Ok(());
        }
        for key in share.claim {
            let is_expired =
                find(&stored, &key).is_some_and(|found| found.owner.as_ref().is_some_and(|of| of != owner));
            let before = if is_expired { Before::Expired } else { Before::Free };
            self.partitions.start(&(key.table, key.partition), before);
        }
        // Those of which it has the lease, but which it does not feed: a claim whose answer came late.
        for stored in stored.iter().filter(|stored| stored.holder() == Some(owner) && self.is_partition(stored)) {
            if !share.release.contains(&stored.key) {
                self.partitions.start(&(stored.key.table.clone(), stored.key.partition), Before::Free);
            }
        }
        self.refuse_other_tables(&stored)
    }

    /// Gives all partitions and the seat to the others. Their feeds have ended, or were cut off.
    ///
    /// # Errors
    /// Some were not given away.
    pub(crate) async fn release_all(&self) -> Result<(), String> {
        let WorkerOptions { source, owner, .. } = self.options;
        let stored = self.pipeline.positions(source).await.map_err(|error| error.to_string())?;
        let held: Vec<&StoredPosition> = stored.iter().filter(|stored| stored.owner.as_ref() == Some(owner)).collect();
        let (release, end) = (|stored| self.release_free(stored), |stored| self.release_cut_off(stored));
        release_each(&held, self.pipeline.max_steps(), release, end).await
    }

    /// Gives a partition away. False: it was not, for example because its last step still holds its position.
    async fn release_free(&self, stored: &StoredPosition) -> bool {
        let released = self.pipeline.release(&stored.position).await;
        let failed = |error: &SinkError| {
            tracing::debug!(%error, partition = %stored.key, "a position was not given away; ending the step that holds it");
        };
        released.inspect_err(failed).is_ok()
    }

    /// Gives a partition away whose last step still holds its position.
    async fn release_cut_off(&self, stored: &StoredPosition) -> Result<(), String> {
        // A claim ends the session that holds it.
        let claimed = self.pipeline.claim(&stored.key, &Claim::of(&*self.options.owner)).await;
        match claimed.map_err(|error| error.to_string())? {
            Claimed::Position(position) | Claimed::Ahead { position, .. } => {
                self.pipeline.release(&position).await.map(drop).map_err(|error| error.to_string())
            }
            // Another worker has it already.
            _ => Ok(()),
        }
    }

    /// Ends partitions that another worker has claimed. One without rows to write would not notice it.
    async fn end_lost(&self, held: &BTreeSet<Name>, stored: &[StoredPosition]) {
        let is_of_other = |stored: &&StoredPosition| stored.owner.as_ref().is_some_and(|of| *of != self.options.owner);
        for stored in stored.iter().filter(|stored| self.is_partition(stored)).filter(is_of_other) {
            let name = (stored.key.table.clone(), stored.key.partition);
            if held.contains(&name) {
                self.partitions.lose(&name);
            }
        }
        let lost = self.partitions.lost();
        join_all(lost.iter().map(|name| self.partitions.stop(name))).await;
    }

    fn show_unheld(&self, all: &[PartitionKey], stored: &[StoredPosition]) {
        let held: HashSet<&PartitionKey> =
            stored.iter().filter(|stored| stored.holder().is_some()).map(|stored| &stored.key).collect();
        let unheld = all.iter().filter(|key| !held.contains(key));
        self.partitions.are_unheld(unheld.map(|key| (key.table.clone(), key.partition)));
    }

    /// The leases cannot be looked at, so it is not known which partitions no worker has.
    fn not_known(&self, error: &SinkError) -> String {
        self.partitions.are_unheld([]);
        error.to_string()
    }

    /// Partitions are shared out as if each worker could have any of them. So those of a table that some workers leave out may
    /// have no worker at all.
    fn refuse_other_tables(&self, stored: &[StoredPosition]) -> Result<(), String> {
        let WorkerOptions { source, owner, .. } = self.options;
        let is_of_other = |stored: &&StoredPosition| stored.holder().is_some_and(|holder| holder != owner);
        let of_others = stored.iter().filter(|stored| self.is_partition(stored)).filter(is_of_other);
        let mut tables = of_others.map(|stored| table_of_quoted(&stored.key.table));
        match tables.find(|table| !self.partitions.is_meant(table)) {
            None => Ok(()),
            Some(table) => Err(format!(
                "another worker of source {source} has partitions of table {table}, which this one leaves out, so some partitions \
                 may have no worker; give all workers of a source the same WorkerOptions::tables, or workers with other tables \
                 another WorkerOptions::source"
            )),
        }
    }

    /// Gives a partition that has ended to the others. The claim may have been repeated since the position was read.
    async fn release(&self, position: &Position, key: &PartitionKey) {
        match self.pipeline.release(position).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!(partition = %key, "another worker has the partition already"),
            Err(error) => {
                tracing::warn!(%error, partition = %key, "a partition was not given away; its lease ends by itself")
            }
        }
    }

    /// Whether it is a partition of the stream as it is now.
    fn is_partition(&self, stored: &StoredPosition) -> bool {
        !stored.key.is_seat() && stored.key.incarnation == self.incarnation
    }

    fn key(&self, (table, partition): Name) -> PartitionKey {
        PartitionKey::new(&*self.options.source, self.incarnation, table, partition)
    }
}

fn find<'a>(stored: &'a [StoredPosition], key: &PartitionKey) -> Option<&'a StoredPosition> {
    stored.iter().find(|stored| stored.key == *key)
}

/// Releases all, so many at once, and only then those that were not in the other way. Each of those takes long, and the others do
/// not wait for it.
async fn release_each<T: Copy, R: Future<Output = bool>, E: Future<Output = Result<(), String>>>(
    held: &[T],
    at_once: usize,
    release: impl Fn(T) -> R,
    release_cut_off: impl Fn(T) -> E,
) -> Result<(), String> {
    let at_once = at_once.max(1);
    let released = held.iter().map(|of| {
        let (of, released) = (*of, release(*of));
        async move { (of, released.await) }
    });
    let released: Vec<_> = released.collect();
    let released: Vec<(T, bool)> = stream::iter(released).buffer_unordered(at_once).collect().await;
    let left = released.into_iter().filter(|(_, is_released)| !is_released);
    let ended: Vec<E> = left.map(|(of, _)| release_cut_off(of)).collect();
    let ended: Vec<Result<(), String>> = stream::iter(ended).buffer_unordered(at_once).collect().await;
    ended.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn partitions_that_are_free_do_not_wait_for_those_that_are_not() {
        let calls = Mutex::new(Vec::new());
        let release = async |number: u32| {
            calls.lock().unwrap().push(("release", number));
            number >= 3
        };
        let end = async |number: u32| {
            calls.lock().unwrap().push(("end", number));
            if number == 1 { Err("one".to_owned()) } else { Ok(()) }
        };
        let all = release_each(&[1, 2, 3, 4], 2, release, end).await;
        assert_eq!(all, Err("one".to_owned()));
        let calls = calls.into_inner().unwrap();
        let ends = calls.iter().position(|(what, _)| *what == "end").unwrap();
        assert_eq!((ends, calls.len()), (4, 6), "{calls:?}");
    }
}
