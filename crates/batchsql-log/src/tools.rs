//! Reading a folder without opening its log: nothing is locked, changed or cut. For a log that is in use, the newest rows
//! may look torn.
//!
//! The example `log` is a program of these functions: `cargo run --example log -- inspect FOLDER`.

use std::{
    io,
    ops::RangeInclusive,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    active::Entry,
    error::{LogError, LogErrorKind},
    folder,
    format::{names, record::Context, record::Kind},
    fs::Access,
    model::{FileKey, SchemaId, StoredBlock, Stream},
    options::Options,
    recover::{self, Mode, Recovered},
    recovery::Recovery,
    scan::{Found, Scanner},
};

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The random id of the log.
    pub incarnation: [u8; 16],
    /// The number of partitions of each table.
    pub partitions: u32,
    /// The files, in the order of their rows.
    pub files: Vec<FileSummary>,
    /// What a start would find, if it read all segments.
    pub recovery: Recovery,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSummary {
    /// Its name in the folder.
    pub name: String,
    /// The bytes that count.
    pub bytes: u64,
    /// Blocks in it.
    pub blocks: u64,
    /// Whether all of them are settled.
    pub is_settled: bool,
}

/// One block, for [`export`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// The random id of the folder.
    pub incarnation: [u8; 16],
    /// The name of the table; empty if its record is lost.
    pub table: String,
    /// The partition.
    pub partition: u32,
    /// Whether all rows of the block are settled.
    pub is_settled: bool,
    /// All rows of the partition up to this sequence are settled; 0: none. A block may be settled in part.
    pub settled_up_to: u64,
    /// The rows of the block that are settled, in order, also those behind one that is not.
    pub settled: Vec<RangeInclusive<u64>>,
    /// The block.
    pub block: StoredBlock,
}

fn look(options: &Options) -> Result<(u32, [u8; 16], Recovered), LogError> {
    let Some(identity) = folder::read(options)? else {
        let message = format!("the folder {} has no log: there is no file IDENTITY in it", options.folder.display());
        return Err(LogError::new(LogErrorKind::Foreign, message));
    };
    let recovered = recover::recover(options, identity.incarnation, Mode::Look)?;
    Ok((identity.partitions, identity.incarnation, recovered))
}

/// Reads all segments with their checksums, and lists them.
///
/// # Errors
///
/// If the folder has no log, a newer version wrote it, or the file system fails. Damage is no error: it is in the result.
pub fn inspect(options: &Options) -> Result<Inspection, LogError> {
    let (partitions, incarnation, Recovered { catalog, recovery, .. }) = look(options)?;
    let summary = |(key, file): (&FileKey, &crate::catalog::FileView)| {
        let places = catalog.places_of(*key);
        FileSummary {
            name: names::segment(*key),
            bytes: file.length,
            blocks: places.iter().map(|(_, place)| place.blocks).sum(),
            is_settled: places.iter().all(|(of, place)| catalog.streams[of].settled.contains(place.first, place.last)),
        }
    };
    let files = catalog.files.iter().map(summary).collect();
    Ok(Inspection { incarnation, partitions, files, recovery })
}

/// Reads all segments with their checksums. The log is whole if the result has no damages and no gaps.
/// Nothing says whether rows of [unfinished segments](Recovery::unfinished_segments) are missing.
///
/// # Errors
///
/// As [`inspect`].
pub fn verify(options: &Options) -> Result<Recovery, LogError> {
    look(options).map(|(_, _, recovered)| recovered.recovery)
}

/// Gives all blocks that can be read to `write`, partition by partition in order, and returns what is missing. Settled
/// blocks are among them while their segment exists.
///
/// # Errors
///
/// As [`inspect`], and the first error of `write`.
pub fn export(options: &Options, mut write: impl FnMut(Exported) -> io::Result<()>) -> Result<Recovery, LogError> {
    let (_, incarnation, Recovered { catalog, start, recovery, .. }) = look(options)?;
    let failed = |error| LogError::io("export", &options.folder, error);
    for (stream, view) in &catalog.streams {
        let exported = |first, count, schema, time, bytes: &[u8]| {
            let block = StoredBlock {
                first,
                count,
                schema: SchemaId(schema),
                schema_bytes: catalog.schemas.get(schema).cloned(),
                time: UNIX_EPOCH + Duration::from_millis(time),
                bytes: bytes.to_vec(),
            };
            Exported {
                incarnation,
                table: catalog.tables.get(stream.table).map(|name| name.to_string()).unwrap_or_default(),
                partition: stream.partition,
                is_settled: view.settled.contains(block.first, block.last()),
                settled_up_to: view.settled.up_to(),
                settled: view.settled.within(block.first, block.last()),
                block,
            }
        };
        let mut expected = 1;
        for (key, place) in view.places() {
            let file =
                options.file_system.open(&options.folder.join(names::segment(*key)), Access::Read).map_err(failed)?;
            let length = catalog.files.get(key).map_or(0, |file| file.length);
            let mut scanner = Scanner::new(Context { incarnation, tag: key.tag() }, place.offset, length);
            loop {
                let of = |table, partition| Stream { table, partition } == *stream;
                let found = scanner
                    .next(&*file, |header| header.kind == Kind::Block && of(header.table, header.partition))
                    .map_err(failed)?;
                let (header, offset) = match found {
                    Found::End => break,
                    Found::Damage { .. } => continue,
                    Found::Record { header, offset } => (header, offset),
                };
                let is_ours = header.kind == Kind::Block && of(header.table, header.partition);
                let Some(last) = header.last().filter(|_| is_ours && header.first >= expected) else { continue };
                expected = last + 1;
                let payload = scanner.payload(offset, &header);
                write(exported(header.first, header.count, header.schema, header.time, payload)).map_err(failed)?;
            }
        }
        for entry in &start.pending {
            if let Entry::Block(pending) = entry
                && pending.block.stream() == *stream
            {
                let block = &pending.block;
                write(exported(pending.first, block.count, block.schema.0, pending.time, &block.bytes))
                    .map_err(failed)?;
            }
        }
    }
    Ok(recovery)
}
