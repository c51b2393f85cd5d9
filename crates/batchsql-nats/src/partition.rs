//! Owns the partition of a row.
//! Must not know messages.

use batchsql_core::{Ordering, PipelineConfig, RowView, Schema};
use batchsql_feed::key::{KeyOrder, OrderedTables, of_view};
use batchsql_log::partition_of;

/// Which rows of a schema keep their order, unless the whole table does.
pub(crate) fn order_of(schema: &Schema, is_table_ordered: bool) -> KeyOrder {
    let mut config = PipelineConfig::default();
    if is_table_ordered {
        config.ordering = Ordering::PerTable;
    }
    KeyOrder::of(schema, &OrderedTables::of(&config))
}

/// The partition of a row: the hash of `batchsql-log` over the bytes of its key. `None`: it has no key.
pub(crate) fn partition(row: RowView<'_>, order: &KeyOrder, partitions: u32) -> Option<u32> {
    of_view(row, order).map(|key| partition_of(&key, partitions))
}
