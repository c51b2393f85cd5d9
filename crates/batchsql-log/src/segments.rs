//! Owns which segments there are: new ones, those that are removed, and the ends of those that were given up.
//! Must not know what is written to them, and when.

use std::{
    io, mem,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    active::Active,
    engine::{Engine, Failure},
    error::{LogError, is_no_space},
    format::snapshot::Place,
    fs::Access,
    model::{FileKey, Stream},
};

/// Segments that were given up and could not be removed or cut; beyond it no new one is tried.
const MOST_TAILS: usize = 64;

impl Engine {
    /// A synced segment that starts with a snapshot of now, so that older ones are not needed for what is settled.
    pub(crate) fn start_segment(&mut self) -> Result<(), LogError> {
        self.flush(true)?;
        let before = (self.active.take(), mem::take(&mut self.restore));
        if let Err(failure) = self.create_segment().and_then(|()| self.write_group(0)) {
            let error = match failure {
                // Nothing of it is there: the segment before goes on.
                Failure::Refused(error) => {
                    (self.active, self.restore) = before;
                    error
                }
                Failure::Unknown(error) => {
                    self.give_up_segment();
                    error
                }
            };
            return Err(LogError::io("start a segment in", &self.shared.options.folder, error));
        }
        self.flush(true)?;
        // If its sync has failed, there was nothing to write to another one.
        if self.active.as_ref().is_none_or(|active| active.synced == 0) {
            let error = io::Error::other("the segment could not be synced");
            return Err(LogError::io("start a segment in", &self.shared.options.folder, error));
        }
        Ok(())
    }

    pub(crate) fn create_segment(&mut self) -> Result<(), Failure> {
        if self.tails.len() > MOST_TAILS {
            return Err(Failure::Unknown(io::Error::other("segments that were given up cannot be removed")));
        }
        let key = FileKey::main(self.next_number);
        // Also after a failure: a file of this name may be there.
        self.next_number += 1;
        let options = &self.shared.options;
        let file = options.file_system.create(&self.shared.path(key)).map_err(|error| match is_no_space(&error) {
            true => Failure::Refused(error),
            false => Failure::Unknown(error),
        })?;
        self.active = Some(Active::new(key, file));
        self.restore.clear();
        self.lengths.insert(key, 0);
        self.is_changed = true;
        Ok(())
    }

    pub(crate) fn remove_segment(&mut self, key: FileKey) -> io::Result<()> {
        self.shared.options.file_system.remove(&self.shared.path(key)).or_else(ignore_missing)?;
        self.lengths.remove(&key);
        self.is_changed = true;
        self.update_used();
        Ok(())
    }

    /// Cuts the ends of segments that were given up. Called when what they had is synced elsewhere. Returns whether
    /// none is left: until then no segment is removed that says that they do not count.
    pub(crate) fn cut_tails(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let is_done = |&(key, length): &(FileKey, u64)| {
            if length == 0 {
                return shared.options.file_system.remove(&shared.path(key)).or_else(ignore_missing).is_ok();
            }
            let file = shared.options.file_system.open(&shared.path(key), Access::Write);
            file.and_then(|file| file.set_length(length).and_then(|()| file.sync_data())).is_ok()
        };
        self.is_changed |= !self.tails.is_empty();
        let lengths = &mut self.lengths;
        self.tails.retain(|tail| {
            let is_done = is_done(tail);
            if is_done {
                match tail {
                    (key, 0) => lengths.remove(key),
                    (key, length) => lengths.insert(*key, *length),
                };
            }
            !is_done
        });
        self.update_used();
        self.tails.is_empty()
    }

    /// Whether a segment without unsettled rows must stay as long as no new one was started.
    pub(crate) fn is_needed(&self, key: FileKey) -> bool {
        let Some(newest) = self.newest_synced else { return true };
        // The newest one on disk says what is settled. What comes behind the end of another may be what is to be written again; and
        // a later segment than that may be what says that it does not count.
        key == newest || self.tails.iter().any(|(tail, _)| *tail == key || tail.number < newest.number)
    }

    /// Whether these rows are settled, as it is on disk.
    pub(crate) fn is_settled(&self, stream: Stream, place: &Place) -> bool {
        self.streams.get(&stream).is_some_and(|state| state.durable_settled.contains(place.first, place.last))
    }

    pub(crate) fn update_used(&self) {
        let used = self.lengths.values().sum::<u64>() + self.quarantine_bytes;
        self.shared.used.store(used.saturating_sub(self.unacknowledged), Ordering::SeqCst);
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
