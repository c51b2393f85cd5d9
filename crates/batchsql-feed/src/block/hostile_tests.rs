//! Bytes that nobody wrote: an error, never a panic or an allocation far beyond their size.

use std::fs;
use std::path::Path;

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

/// Bytes that are chosen by hand, and what earlier builds wrote.
fn corpus(file: &str, golden: &[&str]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let text = fs::read_to_string(folder.join("corpus").join(file)).unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let cases: Vec<Vec<u8>> = lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect();
    assert!(cases.len() > 10);
    cases.into_iter().chain(golden.iter().map(|name| fs::read(folder.join("golden").join(name)).unwrap())).collect()
}

/// The case, every beginning of it, and with each of its bytes at a limit.
fn variants(case: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cut = (0..=case.len()).map(|end| case[..end].to_vec());
    let changed = (0..case.len()).flat_map(|place| {
        [0x00, 0x7f, 0x80, 0xff].map(|byte| {
            let mut bytes = case.to_vec();
            bytes[place] = byte;
            bytes
        })
    });
    cut.chain(changed)
}

#[test]
fn blocks_of_the_corpus_are_read_or_refused() {
    let all = |is_nullable| ColumnType::ALL.map(|ty| (ty, is_nullable)).to_vec();
    let both = ColumnType::ALL.iter().flat_map(|ty| [(*ty, false), (*ty, true)]).collect();
    let shapes = [vec![], vec![(ColumnType::I64, false), (ColumnType::Text, true)], all(false), all(true), both];
    let mut read = 0;
    for case in corpus("blocks.txt", &["rows-1.bin"]) {
        for bytes in variants(&case) {
            let said = bytes.get(1..5).map_or(0, |count| u32::from_le_bytes(count.try_into().unwrap()));
            for columns in &shapes {
                for count in [0, 1, 10, said] {
                    let Ok(rows) = rows::decode(columns, count, &bytes) else { continue };
                    assert!(rows.len() == count as usize && rows.iter().all(|row| row.len() == columns.len()));
                    read += 1;
                }
            }
        }
    }
    assert!(read > 100, "{read} are read");
}

#[test]
fn schemas_of_the_corpus_are_read_or_refused() {
    let mut read = 0;
    for case in corpus("schemas.txt", &["schema-1.bin", "schema-raw-1.bin"]) {
        for bytes in variants(&case) {
            if let Ok(logged) = schema_record::decode(&bytes) {
                let _ = logged.to_schema();
                read += 1;
            }
        }
    }
    assert!(read > 100, "{read} are read");
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
