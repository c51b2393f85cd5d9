//! Owns what happens after a failed write or sync: segments that are given up, and blocks that are given back.
//! Must not know threads and queues.

use std::{io, mem};

use crate::{
    active::{Entry, PendingBlock},
    engine::{Engine, Failure},
    error::{LogError, LogErrorKind, is_no_space},
    options::SyncPolicy,
    shared::{Full, Queued},
};

impl Engine {
    /// A write has failed. If the disk is full and its part can be taken back for certain, the group is refused.
    pub(crate) fn undo_write(&mut self, error: io::Error) -> Failure {
        let Some(active) = &self.active else { return Failure::Unknown(error) };
        if !is_no_space(&error) {
            return Failure::Unknown(error);
        }
        if active.length == 0 {
            let key = active.key;
            let is_gone = self.remove_segment(key).is_ok()
                && self.shared.options.file_system.sync_folder(&self.shared.options.folder).is_ok();
            if is_gone {
                self.active = None;
                return Failure::Refused(error);
            }
            return Failure::Unknown(error);
        }
        // The sync makes the cut certain. It also covers what was written before, which is only better for it.
        match active.file.set_length(active.length).and_then(|()| active.file.sync_data()) {
            Ok(()) => Failure::Refused(error),
            Err(_) => Failure::Unknown(error),
        }
    }

    /// After a failed write or sync: the segment counts up to its last sync, and the rest is written again elsewhere.
    pub(crate) fn give_up_segment(&mut self) {
        self.shared.stats().failures += 1;
        self.written = 0;
        self.unacknowledged = 0;
        self.next_serial = self.synced_serial + 1;
        self.unsynced_since = None;
        let Some(active) = self.active.take() else { return };
        let key = active.key;
        self.hold_readers();
        if active.synced == 0 {
            self.shared.catalog().remove_file(key);
        } else {
            let mut catalog = self.shared.catalog();
            if self.shared.options.policy == SyncPolicy::Os {
                catalog.set_places(key, &self.restore);
            }
            if let Some(file) = catalog.files.get_mut(&key) {
                file.length = active.synced;
            }
        }
        // Nothing of it was ever certain. At once, so that a disk that fails for hours does not collect files.
        if active.synced > 0 || self.remove_segment(key).is_err() {
            self.tails.push((key, active.synced));
        }
        self.update_used();
    }

    /// Readers wait for rows that were published and are written again.
    fn hold_readers(&self) {
        let mut catalog = self.shared.catalog();
        for entry in &self.pending {
            if let Entry::Block(PendingBlock { block, first, ticket: None, .. }) = entry
                && let Some(view) = catalog.streams.get_mut(&block.stream())
            {
                view.rewritten_from = Some(view.rewritten_from.map_or(*first, |from| from.min(*first)));
            }
        }
    }

    /// Returns the blocks that are not acknowledged to their callers, and accepts no more for a while.
    pub(crate) fn give_back(&mut self, full: Full, is_certain: bool, cause: io::Error) -> LogError {
        let error = if is_certain {
            full.error()
        } else {
            let message = "the disk of the log has failed; it is not known whether the rows are stored";
            LogError::new(LogErrorKind::Undetermined, message)
        };
        let error = error.with_source(cause);
        let mut tickets = Vec::new();
        let mut counted = 0;
        for entry in mem::take(&mut self.pending) {
            match entry {
                Entry::Block(mut block) if block.ticket.is_some() => {
                    let state = self.streams.entry(block.block.stream()).or_default();
                    state.next = state.next.min(block.first);
                    counted += block.size_with_keys();
                    tickets.extend(block.ticket.take());
                }
                kept => self.pending.push(kept),
            }
        }
        self.raise_by_settled();
        // Who hears of the failure finds the log full. The blocks that wait go back too: stored now, they would overtake
        // those that are sent again.
        self.unacknowledged = 0;
        let mut intake = self.shared.intake();
        let is_new = intake.full.replace(full) != Some(full);
        let waiting = mem::take(&mut intake.blocks);
        drop(intake);
        self.release(counted + waiting.iter().map(Queued::bytes).sum::<u64>());
        // Otherwise whoever waits for space would have the writer try again at once, for as long as the disk is full.
        if is_new {
            self.shared.space.notify();
        }
        tickets.into_iter().for_each(|ticket| ticket.send(Err(error.clone())));
        waiting.into_iter().for_each(|queued| queued.ticket.send(Err(full.error())));
        error
    }

    /// Sequences that were given back never go below what is settled.
    fn raise_by_settled(&mut self) {
        for entry in &self.pending {
            if let Entry::Settled(settled) = entry {
                for (stream, ranges) in settled {
                    let state = self.streams.entry(*stream).or_default();
                    state.next = state.next.max(ranges.last() + 1);
                }
            }
        }
    }
}
