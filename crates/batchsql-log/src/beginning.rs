//! Owns what a segment starts with: the state of the log as it is on disk, so that older segments are not needed for it.
//! Must not know how it is written.

use std::{collections::HashSet, sync::Arc};

use crate::{
    active::{Beginning, PendingBlock},
    engine::{Engine, StreamState},
    format::{
        keys::KeyRecord,
        snapshot::{Snapshot, StreamSnapshot},
    },
    model::Stream,
};

impl Engine {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let catalog = self.shared.catalog();
        let tables = catalog.tables.iter().map(|(id, name)| (id, Arc::clone(name))).collect();
        let stream = |(stream, state): (&Stream, &StreamState)| StreamSnapshot {
            stream: *stream,
            next: state.durable_next,
            settled: state.durable_settled.clone(),
        };
        Snapshot { tables, streams: self.streams.iter().map(stream).collect() }
    }

    /// The keys that are known and on disk.
    pub(crate) fn durable_keys(&self) -> Vec<KeyRecord> {
        let blocks = self.pending.iter().filter_map(PendingBlock::of).map(|block| &block.keys);
        // With `SyncPolicy::Os` they are known before they are synced.
        let pending: HashSet<Arc<[u8]>> = blocks.flatten().map(|key| Arc::clone(&key.key)).collect();
        let mut keys = self.shared.keys();
        keys.expire(self.shared.options.file_system.now());
        keys.all_but(&pending)
    }

    pub(crate) fn beginning(&self) -> Beginning {
        Beginning { snapshot: self.snapshot(), keys: self.durable_keys() }
    }
}
