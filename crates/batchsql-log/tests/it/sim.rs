//! A file system in memory that crashes: it drops, tears and reorders what was not synced, fails calls, and runs full.
//! Every call that changes something has a number, at which it can fail or be the last one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Barrier, Mutex, MutexGuard, Weak},
};

use batchsql_log::{Access, File, FileSystem, Lock};

const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Create,
    Rename,
    Remove,
    SyncFolder,
    Write,
    Sync,
    SetLength,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine stops during the call.
    Crash,
    Io,
    NoSpace,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Sim(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    /// The handles of files, each with its inode.
    handles: Vec<(usize, Weak<()>)>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    calls: Vec<Call>,
    faults: BTreeMap<usize, Fault>,
    hit: usize,
    is_stopped: bool,
    ignores_sync: bool,
    ignores_folder_sync: bool,
    capacity: Option<u64>,
    free: Option<u64>,
    held_sync: Option<Arc<Barrier>>,
    held_free_bytes: Option<Arc<Barrier>>,
    now: u64,
    life: u64,
    largest_read: usize,
    random: u64,
}

#[derive(Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl Disk {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Counts a call; the fault that it has.
    fn call(&mut self, call: Call) -> io::Result<Option<Fault>> {
        if self.is_stopped {
            return Err(io::Error::other("the machine has stopped"));
        }
        let fault = self.faults.remove(&self.calls.len());
        self.calls.push(call);
        self.hit += usize::from(fault.is_some());
        self.is_stopped |= fault == Some(Fault::Crash);
        Ok(fault)
    }

    fn simple_call(&mut self, call: Call) -> io::Result<()> {
        self.call(call)?.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn inode(&mut self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|&inode| self.inodes[inode].cached.len() as u64).sum()
    }

    fn write(&mut self, inode: usize, bytes: &[u8], offset: usize) {
        let change = Change::Write(offset, bytes.to_vec());
        apply(&mut self.inodes[inode].cached, &change);
        self.inodes[inode].changes.push(change);
    }

    fn sync(&mut self, inode: usize) {
        let inode = &mut self.inodes[inode];
        for change in inode.changes.drain(..) {
            apply(&mut inode.durable, &change);
        }
    }

    /// Some of the changes that were not synced reach the disk, in any order, whole or by sectors.
    fn lose(&mut self, inode: usize) {
        let changes = std::mem::take(&mut self.inodes[inode].changes);
        let full_length = self.inodes[inode].cached.len();
        for change in changes {
            match (self.random(4), &change) {
                (0, _) => {}
                (1, _) | (_, Change::Length(_)) => apply(&mut self.inodes[inode].durable, &change),
                (_, Change::Write(offset, bytes)) => {
                    let mut at = *offset;
                    let end = offset + bytes.len();
                    while at < end {
                        let next = ((at / SECTOR + 1) * SECTOR).min(end);
                        if self.random(2) == 0 {
                            let part = Change::Write(at, bytes[at - offset..next - offset].to_vec());
                            apply(&mut self.inodes[inode].durable, &part);
                        }
                        at = next;
                    }
                }
            }
        }
        // The length may be there before the bytes.
        if self.random(4) == 0 && self.inodes[inode].durable.len() < full_length {
            self.inodes[inode].durable.resize(full_length, 0);
        }
    }

    fn change_durable_name(&mut self, change: NameChange) {
        match change {
            NameChange::Add(path, inode) => drop(self.durable_names.insert(path, inode)),
            NameChange::Remove(path) => drop(self.durable_names.remove(&path)),
            NameChange::Rename(from, to, inode) => {
                self.durable_names.remove(&from);
                self.durable_names.insert(to, inode);
            }
        }
    }

    fn next_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.is_stopped = false;
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length, 0),
        Change::Write(offset, written) => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
    }
}

/// The test has come to it, and lets it go on.
fn wait_twice(held: Option<&Barrier>) {
    held.into_iter().for_each(|held| {
        held.wait();
        held.wait();
    });
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => io::ErrorKind::StorageFull.into(),
        Fault::Crash | Fault::Io => io::Error::other("the simulated disk fails"),
    }
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim::default();
        sim.disk().random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        sim.disk().now = 1_700_000_000_000;
        sim
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no test panics under the lock of the disk")
    }

    /// A sync returns at once and does nothing: the log built on it must be found out.
    pub(crate) fn ignore_syncs(&self) {
        self.disk().ignores_sync = true;
    }

    pub(crate) fn ignore_folder_syncs(&self) {
        self.disk().ignores_folder_sync = true;
    }

    /// The call after `calls` others has a fault.
    pub(crate) fn fail_after(&self, calls: usize, fault: Fault) {
        let mut disk = self.disk();
        let number = disk.calls.len() + calls;
        disk.faults.insert(number, fault);
    }

    pub(crate) fn clear_faults(&self) {
        self.disk().faults.clear();
    }

    /// Faults that have happened.
    pub(crate) fn hits(&self) -> usize {
        self.disk().hit
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.disk().calls.clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.disk().is_stopped
    }

    /// Every call fails from now on.
    pub(crate) fn stop(&self) {
        self.disk().is_stopped = true;
    }

    /// Another disk with the same files.
    pub(crate) fn fork(&self) -> Self {
        let fork = Sim::new(1);
        for path in self.files() {
            fork.set_content(&path, self.content(&path).unwrap_or_default());
        }
        fork
    }

    /// The power was off: what was not synced may be lost. The log must be dropped before.
    pub(crate) fn lose_power(&self) {
        let mut disk = self.disk();
        for change in std::mem::take(&mut disk.name_changes) {
            if disk.random(2) == 0 {
                disk.change_durable_name(change);
            }
        }
        (0..disk.inodes.len()).for_each(|inode| disk.lose(inode));
        disk.inodes.iter_mut().for_each(|inode| inode.cached.clone_from(&inode.durable));
        disk.names = disk.durable_names.clone();
        disk.next_life();
    }

    /// The process was killed: the operating system still has all that was written.
    pub(crate) fn kill(&self) {
        self.disk().next_life();
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Whether there is a capacity.
    pub(crate) fn is_limited(&self) -> bool {
        self.disk().capacity.is_some()
    }

    pub(crate) fn set_free(&self, bytes: Option<u64>) {
        self.disk().free = bytes;
    }

    /// The next sync of a file waits at the barrier, and then once more.
    pub(crate) fn hold_sync(&self) -> Arc<Barrier> {
        Arc::clone(self.disk().held_sync.insert(Arc::new(Barrier::new(2))))
    }

    /// The next look at the free space waits at the barrier, and then once more.
    pub(crate) fn hold_free_bytes(&self) -> Arc<Barrier> {
        Arc::clone(self.disk().held_free_bytes.insert(Arc::new(Barrier::new(2))))
    }

    pub(crate) fn pass(&self, milliseconds: u64) {
        self.disk().now += milliseconds;
    }

    /// Bytes of the largest buffer that a read had.
    pub(crate) fn largest_read(&self) -> usize {
        self.disk().largest_read
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.disk().names.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.disk().used()
    }

    pub(crate) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let mut disk = self.disk();
        let inode = disk.inode(path).ok()?;
        Some(disk.inodes[inode].cached.clone())
    }

    /// Sets a file as if it had been so for ever.
    pub(crate) fn set_content(&self, path: &Path, content: Vec<u8>) {
        let mut disk = self.disk();
        let inode = disk.inode(path).unwrap_or(disk.inodes.len());
        if inode == disk.inodes.len() {
            disk.inodes.push(Inode::default());
        }
        disk.inodes[inode] = Inode { cached: content.clone(), durable: content, changes: Vec::new() };
        disk.names.insert(path.to_owned(), inode);
        disk.durable_names.insert(path.to_owned(), inode);
    }

    pub(crate) fn delete(&self, path: &Path) {
        let mut disk = self.disk();
        disk.names.remove(path);
        disk.durable_names.remove(path);
    }

    /// Open handles of files that were removed: their space is in use.
    pub(crate) fn removed_and_open(&self) -> usize {
        let disk = self.disk();
        let is_removed = |inode: &usize| !disk.names.values().any(|named| named == inode);
        disk.handles.iter().filter(|(inode, handle)| handle.strong_count() > 0 && is_removed(inode)).count()
    }

    fn file(&self, disk: &mut Disk, inode: usize) -> Box<dyn File> {
        let handle = Arc::new(());
        disk.handles.retain(|(_, handle)| handle.strong_count() > 0);
        disk.handles.push((inode, Arc::downgrade(&handle)));
        Box::new(SimFile { sim: self.clone(), inode, life: disk.life, _handle: handle })
    }
}

#[derive(Debug)]
struct SimLock(Sim, PathBuf);

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.disk().locks.remove(&self.1);
    }
}

impl FileSystem for Sim {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let is_free = self.disk().locks.insert(path.to_owned());
        Ok(is_free.then(|| Box::new(SimLock(self.clone(), path.to_owned())) as Box<dyn Lock>))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let disk = self.disk();
        let in_folder = disk.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        Ok(in_folder.map(|(path, &inode)| (name(path), disk.inodes[inode].cached.len() as u64)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk();
        disk.simple_call(Call::Create)?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = disk.inodes.len();
        disk.inodes.push(Inode::default());
        disk.names.insert(path.to_owned(), inode);
        disk.name_changes.push(NameChange::Add(path.to_owned(), inode));
        Ok(self.file(&mut disk, inode))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk();
        let inode = disk.inode(path)?;
        Ok(self.file(&mut disk, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.simple_call(Call::Rename)?;
        let inode = disk.inode(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), inode);
        disk.name_changes.push(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.inode(path)?;
        disk.simple_call(Call::Remove)?;
        disk.names.remove(path);
        disk.name_changes.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.simple_call(Call::SyncFolder)?;
        if disk.ignores_folder_sync {
            return Ok(());
        }
        let is_in = |path: &Path| path.parent() == Some(folder);
        let (synced, kept) = std::mem::take(&mut disk.name_changes).into_iter().partition(|change| match change {
            NameChange::Add(path, _) | NameChange::Remove(path) => is_in(path),
            NameChange::Rename(from, to, _) => is_in(from) || is_in(to),
        });
        disk.name_changes = kept;
        let synced: Vec<NameChange> = synced;
        synced.into_iter().for_each(|change| disk.change_durable_name(change));
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<Option<u64>> {
        let held = self.disk().held_free_bytes.take();
        wait_twice(held.as_deref());
        Ok(self.disk().free)
    }

    fn now(&self) -> u64 {
        self.disk().now
    }
}

#[derive(Debug)]
struct SimFile {
    sim: Sim,
    inode: usize,
    life: u64,
    _handle: Arc<()>,
}

impl SimFile {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.sim.disk();
        if disk.life != self.life {
            return Err(io::Error::other("a file of an earlier life"));
        }
        Ok(disk)
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk()?;
        disk.largest_read = disk.largest_read.max(buffer.len());
        let bytes = disk.inodes[self.inode].cached.get(offset as usize..).unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        let fault = disk.call(Call::Write)?;
        let growth = (offset + bytes.len() as u64).saturating_sub(disk.inodes[self.inode].cached.len() as u64);
        let left = disk.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used()));
        let fault = fault.or((growth > left).then_some(Fault::NoSpace));
        // A write that fails may have written a part.
        let written = match fault {
            None => bytes.len(),
            Some(Fault::NoSpace) if growth > left => bytes.len().min(left as usize),
            Some(_) => disk.random(bytes.len() as u64 + 1) as usize,
        };
        disk.write(self.inode, &bytes[..written], offset as usize);
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    /// After a failure the changes count as clean, as Linux does: a second call succeeds without writing them.
    fn sync_data(&self) -> io::Result<()> {
        let held = self.disk()?.held_sync.take();
        wait_twice(held.as_deref());
        let mut disk = self.disk()?;
        match disk.call(Call::Sync)? {
            Some(Fault::Crash) => {}
            Some(fault) => {
                disk.lose(self.inode);
                return Err(error(fault));
            }
            None if disk.ignores_sync => return Ok(()),
            None => {
                disk.sync(self.inode);
                return Ok(());
            }
        }
        Err(error(Fault::Io))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.simple_call(Call::SetLength)?;
        let change = Change::Length(length as usize);
        let inode = &mut disk.inodes[self.inode];
        apply(&mut inode.cached, &change);
        inode.changes.push(change);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk()?.inodes[self.inode].cached.len() as u64)
    }
}
