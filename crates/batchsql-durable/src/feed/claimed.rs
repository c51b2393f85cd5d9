//! Owns what the partitions share that are written exactly once, with the file that says which of them had a position in the
//! database, which processes have claimed them, and where the log ended before rows were stored without a claim.
//! Must not know databases.
//!
//! Without the file a database that was made anew would look like one that has never had a row. The owners say whether the
//! position is that of this folder: a copy of the folder, or a backup of it, does not know who has claimed the partition since. A
//! database that was restored from a backup has an earlier owner, so those of the folder stay known.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use batchsql_log::{FileSystem, RealFileSystem};

/// What the partitions of an intake share that is written exactly once.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Of this process.
    pub(crate) owner: String,
    pub(crate) claimed: Claimed,
}

/// The file of claims, a line for each: `claims`, `has`, `stopped`, or `opened:` and a sequence; the partition, the owner, the
/// table. A line `opened` says that each start notes where the log ended.
#[derive(Debug)]
pub(crate) struct Claimed {
    path: PathBuf,
    source: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` after an error: what was written is not known then.
    file: Option<File>,
    noted: Noted,
}

/// What the file says.
#[derive(Debug, Default)]
struct Noted {
    source: Option<String>,
    partitions: HashMap<(u32, String), Known>,
    notes_ends: bool,
    /// The processes on this folder, the newest last, at most [`EARLIER`].
    owners: VecDeque<String>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    /// Those that may be the last owner in the database, unless it is older than the folder.
    owners: HashSet<String>,
    has_position: bool,
    is_stopped: bool,
    /// The last row of the log at the first start since the last claim that succeeded.
    ended_at: Option<u64>,
}

const FILE: &str = "POSITIONS";

const OPENED: &str = "opened:";

/// The starts that a backup of the database may be behind. Each has one owner, of up to 100 bytes.
const EARLIER: usize = 1_000;

/// Whether the folder was ever written exactly once.
pub(crate) fn is_there(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

impl Claimed {
    /// Reads the file of a folder.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let mut file = open(&path)?;
        RealFileSystem.sync_folder(folder)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let noted = parse(&text);
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
            file.sync_data()?;
        }
        Ok(Self { path, source: noted.source.clone(), state: Mutex::new(State { file: Some(file), noted }) })
    }

    /// As [`open`](Self::open), of a folder that stays as it is. `None`: it was never written exactly once.
    pub(crate) fn look(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let noted = parse(&text);
        Ok(Some(Self { path, source: noted.source.clone(), state: Mutex::new(State { file: None, noted }) }))
    }

    /// The name of the source that the folder has; `None` for a new one.
    pub(crate) fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// Notes the name of the source.
    pub(crate) fn set_source(&self, source: &str) -> io::Result<()> {
        self.append(&mut self.lock(), &format!("source {source}\n"))
    }

    /// Whether the partition had a position.
    pub(crate) fn has_position(&self, table: &str, partition: u32) -> bool {
        self.known(table, partition).has_position
    }

    /// Whether its log and its position did not fit once, and an earlier version has noted only that.
    pub(crate) fn is_stopped(&self, table: &str, partition: u32) -> bool {
        self.known(table, partition).is_stopped
    }

    /// The processes on this folder that may have claimed the partition last, as the database has it: an earlier one if it was
    /// restored from a backup. Then its position says what it lacks.
    pub(crate) fn owners(&self, table: &str, partition: u32) -> Vec<String> {
        let mut owners = self.known(table, partition).owners;
        owners.extend(self.lock().noted.owners.iter().cloned());
        owners.into_iter().collect()
    }

    /// Where the partitions of the log end at this start: table, partition, last row. Rows that are stored from now on are behind
    /// these, also if the next claim that succeeds is that of a later process.
    pub(crate) fn opens<'a>(&self, ends: impl IntoIterator<Item = (&'a str, u32, u64)>, owner: &str) -> io::Result<()> {
        let mut state = self.lock();
        let mut opened: BTreeMap<(u32, String), u64> = BTreeMap::new();
        for (table, partition, last) in ends {
            let key = (partition, escaped(table));
            // Without an earlier claim, an earlier start would have noted a partition that it had.
            let is_new =
                state.noted.notes_ends && !state.noted.partitions.get(&key).is_some_and(|known| known.has_position);
            opened.insert(key, if is_new { 0 } else { last });
        }
        // The log may have lost all that it had of a partition.
        for key in state.noted.partitions.keys() {
            opened.entry(key.clone()).or_insert(0);
        }
        opened.retain(|key, _| state.noted.partitions.get(key).is_none_or(|known| known.ended_at.is_none()));
        let mut lines = if state.noted.notes_ends { String::new() } else { "opened\n".to_owned() };
        for ((partition, table), last) in &opened {
            lines.push_str(&format!("{OPENED}{last} {partition} {owner} {table}\n"));
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.append(&mut state, &lines)?;
        state.noted.notes_ends = true;
        for ((partition, table), last) in &opened {
            state.noted.note(&format!("{OPENED}{last}"), *partition, owner, table);
        }
        Ok(())
    }

    /// The last row of the log at the first start since the partition was claimed; `None` if it was claimed, or is new.
    pub(crate) fn ended_at(&self, table: &str, partition: u32) -> Option<u64> {
        self.known(table, partition).ended_at
    }

    /// An owner is about to claim. Returns when that is on disk. Blocks the thread, as the calls below.
    pub(crate) fn claims(&self, table: &str, partition: u32, owner: &str) -> io::Result<()> {
        self.add("claims", table, partition, owner)
    }

    /// It has claimed.
    pub(crate) fn has(&self, table: &str, partition: u32, owner: &str) -> io::Result<()> {
        self.add("has", table, partition, owner)
    }

    fn known(&self, table: &str, partition: u32) -> Known {
        self.lock().noted.partitions.get(&(partition, escaped(table))).cloned().unwrap_or_default()
    }

    fn add(&self, what: &str, table: &str, partition: u32, owner: &str) -> io::Result<()> {
        let table = escaped(table);
        let mut state = self.lock();
        let known = state.noted.partitions.entry((partition, table.clone())).or_default();
        let is_known = match what {
            "claims" => known.owners.contains(owner),
            "has" => {
                let is_only_owner = known.owners.len() == 1 && known.owners.contains(owner);
                known.has_position && is_only_owner && known.ended_at.is_none()
            }
            _ => false,
        };
        if is_known {
            return Ok(());
        }
        self.append(&mut state, &format!("{what} {partition} {owner} {table}\n"))?;
        state.noted.note(what, partition, owner, &table);
        Ok(())
    }

    fn append(&self, state: &mut State, line: &str) -> io::Result<()> {
        let mut file = match state.file.take() {
            Some(file) => file,
            None => {
                let mut file = open(&self.path)?;
                // A part of a line may be there.
                file.write_all(b"\n")?;
                file
            }
        };
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        state.file = Some(file);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn note(&mut self, what: &str, partition: u32, owner: &str, table: &str) {
        self.partitions.entry((partition, table.to_owned())).or_default().note(what, owner);
        // Each process notes its partitions before the next one opens the file.
        if self.owners.back().is_none_or(|last| last != owner) {
            self.owners.push_back(owner.to_owned());
            if self.owners.len() > EARLIER {
                self.owners.pop_front();
            }
        }
    }
}

impl Known {
    fn note(&mut self, what: &str, owner: &str) {
        match what {
            "claims" => drop(self.owners.insert(owner.to_owned())),
            "has" => {
                self.owners = [owner.to_owned()].into();
                self.has_position = true;
                self.ended_at = None;
            }
            "stopped" => self.is_stopped = true,
            // A later version may have more.
            _ => {
                let opened = what.strip_prefix(OPENED).and_then(|sequence| sequence.parse().ok());
                self.ended_at = self.ended_at.or(opened);
            }
        }
    }
}

fn parse(text: &str) -> Noted {
    let mut noted = Noted::default();
    // A line without an end was never complete.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["opened"] => noted.notes_ends = true,
            ["source", ..] => noted.source = line.strip_prefix("source ").map(str::to_owned),
            [what, partition, owner, table] => {
                let Ok(partition) = partition.parse() else { continue };
                noted.note(what, partition, owner, table);
            }
            _ => {}
        }
    }
    noted
}

/// Names may have any character; escaped ones are on one line.
fn escaped(table: &str) -> String {
    table.escape_default().to_string()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_claimed_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Claimed::open(dir.path()).unwrap();
        assert!(!is_there(dir.path()));
        let claimed = open();
        assert!(is_there(dir.path()) && claimed.source().is_none());
        claimed.set_source("my intake").unwrap();
        let table = "\"a \nb\"";
        claimed.claims(table, 1, "one").unwrap();
        assert!(!open().has_position(table, 1));
        claimed.has(table, 1, "one").unwrap();
        // Processes that ended before the database had told them.
        open().claims(table, 1, "two").unwrap();
        open().claims(table, 1, "three").unwrap();
        let claimed = open();
        let mut owners = claimed.owners(table, 1);
        owners.sort();
        assert_eq!(
            (owners.as_slice(), claimed.source()),
            (["one", "three", "two"].map(str::to_owned).as_slice(), Some("my intake"))
        );
        assert!(claimed.has_position(table, 1) && !claimed.has_position(table, 2) && !claimed.is_stopped(table, 1));
        claimed.has(table, 1, "three").unwrap();
        claimed.add("stopped", table, 2, "three").unwrap();
        let claimed = open();
        assert_eq!(claimed.known(table, 1).owners, ["three".to_owned()].into());
        assert!(claimed.is_stopped(table, 2));
    }

    /// A database from a backup has an owner from before it.
    #[test]
    fn earlier_processes_on_a_folder_stay_known_within_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let lines: String = (0..EARLIER + 10).map(|n| format!("claims 0 p{n}- a\nhas 0 p{n}- a\n")).collect();
        std::fs::write(dir.path().join(FILE), format!("has 0 once b\n{lines}")).unwrap();
        let claimed = Claimed::open(dir.path()).unwrap();
        let has = |table: &str, owner: &str| claimed.owners(table, 0).iter().any(|known| known == owner);
        assert!(has("a", "p10-") && has("a", &format!("p{}-", EARLIER + 9)) && !has("a", "p9-"));
        assert_eq!(claimed.owners("a", 0).len(), EARLIER);
        assert!(has("b", "once"), "the last one that has claimed a partition is known however long ago it was");
        claimed.claims("a", 0, "now").unwrap();
        assert!(has("a", "now") && !has("a", "p10-"));
    }

    #[test]
    fn a_line_that_was_cut_off_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, "source s\nhas 1 one a\nhas 2 one a").unwrap();
        let claimed = Claimed::open(dir.path()).unwrap();
        assert!(claimed.has_position("a", 1) && !claimed.has_position("a", 2));
        claimed.has("c", 3, "two").unwrap();
        assert!(Claimed::open(dir.path()).unwrap().has_position("c", 3));
    }
}
