//! Bytes that nobody wrote: an error, never a panic or an allocation far beyond their size.

use batchsql_core::{ColumnType, Conflict, RowBuffer, Schema, Value, ValueRules};
use proptest::prelude::*;

use crate::block::{rows, schema_record};

fn column() -> impl Strategy<Value = (ColumnType, bool)> {
    (prop::sample::select(&ColumnType::ALL[..]), any::<bool>())
}

/// Valid bytes, some of which are changed.
fn block() -> Vec<u8> {
    let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text).build().unwrap();
    let mut buffer = RowBuffer::new(&schema, ValueRules::default());
    for id in 0..20_i64 {
        let note = if id % 3 == 0 { Value::Null } else { Value::Text("é".repeat(id as usize)) };
        buffer.push(&schema.row().set_all([Value::I64(id), note]).unwrap().finish().unwrap()).unwrap();
    }
    rows::encode(buffer.into_rows().rows())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        columns in prop::collection::vec(column(), 0..5),
        count in prop_oneof![0_u32..40, any::<u32>()],
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut valid_start = vec![1];
        valid_start.extend_from_slice(&count.to_le_bytes());
        valid_start.extend_from_slice(&bytes);
        for bytes in [&bytes, &valid_start] {
            if let Ok(rows) = rows::decode(&columns, count, bytes) {
                prop_assert_eq!(rows.len(), count as usize);
                prop_assert!(rows.iter().all(|row| row.len() == columns.len()));
            }
        }
    }

    #[test]
    fn changed_blocks_are_read_or_refused(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8), cut in any::<usize>()) {
        let mut bytes = block();
        for (place, byte) in changes {
            let length = bytes.len();
            bytes[place % length] = byte;
        }
        bytes.truncate(cut % (bytes.len() + 1));
        let _ = rows::decode(&[(ColumnType::I64, false), (ColumnType::Text, true)], 20, &bytes);
    }

    #[test]
    fn changed_schemas_are_read_or_refused(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8)) {
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
        let schema = schema.on_conflict(Conflict::update(["id"])).build().unwrap();
        let mut bytes = schema_record::encode(&schema);
        for (place, byte) in changes {
            let length = bytes.len();
            bytes[place % length] = byte;
        }
        if let Ok(logged) = schema_record::decode(&bytes) {
            let _ = logged.to_schema();
        }
    }
}

/// 4 billion rows of `NULL` would be 512 MiB of bits, and many times as much as values.
#[test]
fn a_block_has_a_limit_of_rows() {
    let count = rows::MAX_ROWS as u32 + 1;
    let mut bytes = vec![1];
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend(vec![0; rows::MAX_ROWS]);
    assert!(rows::decode(&[(ColumnType::I64, true)], count, &bytes).is_err());
}
