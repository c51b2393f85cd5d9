//! Owns the file of the end of the log: what a clean close had. A later start finds by it that rows at the end are missing.
//! Must not know segments.

use std::{io, path::PathBuf};

use crate::{
    engine::Engine,
    error::{LogError, LogErrorKind},
    format::{
        names::{END, TEMPORARY},
        record::{self, Context, Header, Kind},
        snapshot::Snapshot,
    },
    fs::{Access, remove_if_there},
    options::Options,
    scan::{Found, Scanner},
};

/// No segment has this tag.
const TAG: u64 = u64::MAX;

/// What the last clean close had.
#[derive(Debug)]
pub(crate) struct End {
    /// All records up to this serial were on disk.
    pub(crate) synced: u64,
    /// The number of the newest segment.
    pub(crate) number: u64,
    pub(crate) snapshot: Snapshot,
}

pub(crate) fn path(options: &Options) -> PathBuf {
    options.folder.join(END)
}

/// Writes it as a whole: it has its name only when it is synced.
pub(crate) fn write(engine: &Engine, number: u64) -> io::Result<()> {
    let Options { folder, file_system, .. } = &engine.shared.options;
    let context = Context { incarnation: engine.shared.incarnation, tag: TAG };
    let synced = engine.next_serial - 1;
    let mut header = Header::new(Kind::Snapshot, engine.next_serial, synced, file_system.now());
    header.first = number;
    let mut bytes = Vec::new();
    record::append(&mut bytes, &context, 0, &header, &engine.snapshot().encode());
    let (path, temporary) = (path(&engine.shared.options), folder.join(format!("{END}{TEMPORARY}")));
    remove_if_there(&**file_system, &temporary)?;
    let written = file_system.create(&temporary).and_then(|file| {
        file.write_at(&bytes, 0)?;
        file.sync_data()
    });
    if let Err(error) = written {
        // What is there stays true.
        let _ = remove_if_there(&**file_system, &temporary);
        return Err(error);
    }
    file_system.rename(&temporary, &path)?;
    file_system.sync_folder(folder)
}

/// `None` if there is none, or it makes no sense: then it says nothing.
pub(crate) fn read(options: &Options, incarnation: [u8; 16]) -> Result<Option<End>, LogError> {
    read_file(options, incarnation).map_err(|error| {
        let message = format!(
            "cannot read {}; make it a file that can be read, or move it away: then rows that are missing at the end of the log are not noticed",
            path(options).display()
        );
        LogError::new(LogErrorKind::Io, message).with_source(error)
    })
}

fn read_file(options: &Options, incarnation: [u8; 16]) -> io::Result<Option<End>> {
    let file = match options.file_system.open(&path(options), Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut scanner = Scanner::new(Context { incarnation, tag: TAG }, 0, file.length()?);
    let Found::Record { header, offset } = scanner.next(&*file, |_| true)? else { return Ok(None) };
    let snapshot = Snapshot::decode(scanner.payload(offset, &header));
    Ok(snapshot.map(|snapshot| End { synced: header.synced, number: header.first, snapshot }))
}
