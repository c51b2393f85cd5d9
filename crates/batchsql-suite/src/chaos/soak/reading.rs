//! Owns what a writer reads of itself: memory, open files, connections, tasks, and the disk of its log.
//! Must not know what is a trend.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tikv_jemalloc_ctl::{epoch, stats};
use tokio::runtime::Handle;

use super::trend::Tolerance;
use crate::chaos::sample::now;
use crate::memory;

const MIB: f64 = (1 << 20) as f64;

/// The figures at one moment. A figure is absent where the system does not have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reading {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    /// Physical memory of the process, in bytes.
    pub(super) resident: Option<u64>,
    /// Bytes that are allocated and not freed.
    pub(super) heap: Option<u64>,
    /// Open file handles, without connections.
    pub(super) files: Option<u64>,
    /// Open sockets; for SQLite the handles of the database.
    pub(super) connections: Option<u64>,
    /// Tasks of the runtime that have not ended.
    pub(super) tasks: Option<u64>,
    /// Bytes of the files of the log of the durable intake.
    pub(super) log: Option<u64>,
    /// Rows that were written, ignored or superseded.
    pub(super) written: u64,
}

/// A figure that must be flat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    Resident,
    Heap,
    Files,
    Connections,
    Tasks,
    Log,
}

impl Figure {
    /// Every figure.
    pub(super) const ALL: [Self; 6] =
        [Self::Resident, Self::Heap, Self::Files, Self::Connections, Self::Tasks, Self::Log];

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident memory",
            Self::Heap => "heap",
            Self::Files => "open files",
            Self::Connections => "connections",
            Self::Tasks => "tasks",
            Self::Log => "disk of the log",
        }
    }

    /// Its unit.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Resident | Self::Heap | Self::Log => "MiB",
            Self::Files => "files",
            Self::Connections => "connections",
            Self::Tasks => "tasks",
        }
    }

    /// What may grow and still counts as flat.
    ///
    /// Resident memory includes what the allocator keeps. The heap of a durable intake has the blocks that are under way. A pool may open connections that it did not need before, with a task
    /// for each. The log removes whole files, of 1 MiB here.
    pub(super) fn tolerance(self) -> Tolerance {
        let (fixed, part) = match self {
            Self::Resident => (8.0, 0.1),
            Self::Heap => (2.0, 0.05),
            Self::Files | Self::Connections => (4.0, 0.0),
            Self::Tasks => (8.0, 0.0),
            Self::Log => (6.0, 0.0),
        };
        Tolerance { fixed, part }
    }

    /// Its value in a reading, in its unit.
    pub(super) fn of(self, reading: &Reading) -> Option<f64> {
        let (value, divisor) = match self {
            Self::Resident => (reading.resident, MIB),
            Self::Heap => (reading.heap, MIB),
            Self::Files => (reading.files, 1.0),
            Self::Connections => (reading.connections, 1.0),
            Self::Tasks => (reading.tasks, 1.0),
            Self::Log => (reading.log, MIB),
        };
        value.map(|value| value as f64 / divisor)
    }
}

/// Reads the figures of this process.
#[derive(Debug)]
pub(super) struct Reader {
    /// The folder of the log.
    log: Option<std::path::PathBuf>,
    /// The file of a database without a server.
    database: Option<std::path::PathBuf>,
    /// Sockets of the runtime itself, where sockets count.
    others: u64,
}

impl Reader {
    /// To be called before anything connects.
    pub(super) fn new(log: Option<&Path>, database: Option<&Path>) -> Self {
        let others = handles(database).map_or(0, |handles| handles.connections);
        Self { log: log.map(Path::to_path_buf), database: database.map(Path::to_path_buf), others }
    }

    /// The figures now.
    pub(super) fn read(&self, written: u64) -> Reading {
        let handles = handles(self.database.as_deref());
        let heap = epoch::advance().ok().and_then(|_| stats::allocated::read().ok()).filter(|bytes| *bytes > 0);
        Reading {
            at: now(),
            resident: memory::resident(),
            heap: heap.map(|bytes| bytes as u64),
            files: handles.as_ref().map(|handles| handles.files),
            connections: handles.map(|handles| handles.connections.saturating_sub(self.others)),
            tasks: Some(Handle::current().metrics().num_alive_tasks() as u64),
            log: self.log.as_deref().map(size),
            written,
        }
    }
}

struct Handles {
    files: u64,
    connections: u64,
}

/// Counts the handles of this process; `None` where the system has no `/proc`.
fn handles(database: Option<&Path>) -> Option<Handles> {
    let (mut files, mut connections) = (0, 0);
    for handle in fs::read_dir("/proc/self/fd").ok()? {
        // The handle of the folder itself is gone when it is looked at, or is one more in each reading.
        let Ok(target) = handle.and_then(|handle| fs::read_link(handle.path())) else { continue };
        let is_connection = match database {
            Some(database) => target == database,
            None => target.to_string_lossy().starts_with("socket:"),
        };
        *(if is_connection { &mut connections } else { &mut files }) += 1;
    }
    Some(Handles { files, connections })
}

/// Bytes of the files in a folder and in its folders. A file that is removed meanwhile does not count.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_reading_has_what_the_process_has() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("db");
        std::fs::create_dir(folder.path().join("log")).unwrap();
        std::fs::write(folder.path().join("log/1.seg"), [0; 100]).unwrap();
        let of_server = Reader::new(Some(folder.path()), None);
        let of_file = Reader::new(None, Some(&database));
        let (before, none) = (of_server.read(0), of_file.read(7));
        assert_eq!((none.connections, none.written, none.log), (Some(0), 7, None));
        let _database = std::fs::File::create(&database).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let waiting = tokio::spawn(std::future::pending::<()>());
        assert_eq!(of_file.read(0).connections, Some(1));
        // Other tests of this process open and close sockets of their own.
        assert!(handles(None).unwrap().connections >= 1, "{listener:?}");
        assert_eq!(before.log, Some(100));
        assert!(before.resident > Some(1 << 20) && before.files > Some(2));
        assert!(of_server.read(0).tasks > before.tasks, "{waiting:?}");
        waiting.abort();
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let reading = Reading { at: 1, resident: Some(3 << 20), log: None, written: 5, ..Reading::default() };
        let line = serde_json::to_string(&reading).unwrap();
        assert_eq!(serde_json::from_str::<Reading>(&line).unwrap(), reading);
        assert_eq!(Figure::Resident.of(&reading), Some(3.0));
        assert_eq!(Figure::Log.of(&reading), None);
    }
}
