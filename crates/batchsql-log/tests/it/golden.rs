//! Folders that were written by older versions, which every later version must read. `tests/golden` has them as files; the
//! program that wrote version 1 is in the history of this repository, before groups.

use std::{fs, path::Path};

use batchsql_log::{Block, From, Gap, Key, Log, LogErrorKind, Next, Options, tools};

/// Blocks of 2 rows with the numbers 1 to 16; every fourth one is in the table `two`, and was set aside once.
fn payload(id: u64) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend((0..700).map(|index| (id as usize * 31 + index) as u8));
    bytes
}

fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    for file in fs::read_dir(golden).expect("the golden files") {
        let file = file.expect("a file");
        fs::copy(file.path(), folder.path().join(file.file_name())).expect("a copy");
    }
    folder
}

fn options(folder: &Path) -> Options {
    Options::new(folder).min_free_bytes(0).segment_bytes(4 << 10).disk_bytes(1 << 20)
}

/// Numbers of the blocks that are not settled.
fn unsettled(log: &Log, table: &str) -> Vec<u64> {
    let mut reader = log.reader(log.table(table).expect("a name"), 0, From::Unsettled).expect("a reader");
    let mut found = Vec::new();
    loop {
        match reader.next().expect("the disk works") {
            Next::Block(block) => {
                assert_eq!(block.schema_bytes.as_deref(), Some(&b"the schema"[..]));
                let id = u64::from_le_bytes(block.bytes[..8].try_into().expect("a number"));
                assert_eq!((block.count, block.bytes), (2, payload(id)));
                found.push(id);
            }
            Next::End => return found,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn version_1_is_read_and_goes_on_as_version_2() {
    for (name, is_clean) in [("version-1-close", true), ("version-1-kill", false)] {
        let folder = copy(name);
        let whole = tools::verify(&options(folder.path())).expect("a look");
        assert!(whole.damages.is_empty() && whole.gaps == Vec::<Gap>::new(), "{name}: {whole:?}");
        let (log, recovery) = Log::open(options(folder.path())).expect("an older version");
        assert_eq!((recovery.is_clean, recovery.damages.len(), recovery.gaps.len()), (is_clean, 0, 0), "{name}");
        assert_eq!(
            (unsettled(&log, "one"), unsettled(&log, "two")),
            (vec![10, 13, 14, 15], vec![4, 8, 12, 16]),
            "{name}"
        );
        let (one, two) = (log.table("one").expect("a name"), log.table("two").expect("a name"));
        let schema = log.schema(b"the schema").expect("a schema");
        let block = |table, id| Block { table, partition: 0, schema, count: 2, bytes: payload(id) };
        let key = Key { key: b"k".to_vec(), value: b"v".to_vec() };
        let tickets = log.append_group(vec![block(one, 17), block(two, 18)], vec![key]).expect("space");
        let stored: Vec<u64> = tickets.into_iter().map(|ticket| ticket.wait().expect("stored").first).collect();
        assert_eq!(stored, [25, 9], "{name}: behind the rows of before");
        log.close().wait().expect("closed");
        drop(log);

        let identity = fs::read_to_string(folder.path().join("IDENTITY")).expect("the identity");
        assert!(identity.starts_with("batchsql-log 2\n"), "an older program must refuse it: {identity}");
        let (log, recovery) = Log::open(options(folder.path())).expect("the new version");
        assert!(recovery.is_clean, "{name}: {recovery:?}");
        assert_eq!(
            (unsettled(&log, "one"), unsettled(&log, "two")),
            (vec![10, 13, 14, 15, 17], vec![4, 8, 12, 16, 18])
        );
        assert_eq!(log.key(b"k").map(|key| key.value), Some(b"v".to_vec()));
    }
}

#[test]
fn a_segment_of_a_newer_version_is_refused_also_after_a_clean_close() {
    let folder = copy("version-1-close");
    let path = folder.path().join("00000000000000000004.seg");
    let mut bytes = fs::read(&path).expect("the newest segment");
    bytes[8] = 3;
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let error = Log::open(options(folder.path())).expect_err("a newer version");
    assert_eq!(error.kind(), LogErrorKind::NewerFormat, "{error}");
}
