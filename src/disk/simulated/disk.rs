//! What a running process sees.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::pages::Pages;
use super::turn::Turn;
use super::{
    DiskCall, DiskImage, Fault, FaultKind, FileNumber, Node, Omissions, SimulatedOperation, folder_of,
};
use crate::disk::{Disk, DiskFile, LockAttempt, LockGuard, MappedBytes, OpenMode, retry_interrupted};
use crate::sync::lock;

/// A disk in memory that logs what is done to it and fails on demand. Clones are the same disk, used by the same process.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    turn: Turn,
    /// Which process uses this clone: its locks and holds end with it.
    process: ProcessNumber,
}

type ProcessNumber = u64;

#[derive(Clone, Debug, Default)]
struct State {
    names: BTreeMap<String, Node>,
    /// Also those without a name: somebody may have them open.
    files: BTreeMap<FileNumber, Pages>,
    locked_by: Option<ProcessNumber>,
    /// Who holds a file, each as often as it does.
    held: BTreeMap<String, Vec<ProcessNumber>>,
    /// The last process that began.
    processes: ProcessNumber,
    log: Vec<SimulatedOperation>,
    calls: Vec<DiskCall>,
    fault: Option<Fault>,
    omissions: Omissions,
}

impl SimulatedDisk {
    /// A disk that begins with these files, all of them durable.
    #[must_use]
    pub fn new(image: &DiskImage) -> Self {
        let mut state = State::default();
        for folder in &image.folders {
            state.names.insert(folder.clone(), Node::Folder);
        }
        // `Media::new` numbers them alike.
        for ((name, pages), file) in image.files.iter().zip(0..) {
            state.names.insert(name.clone(), Node::File(file));
            state.files.insert(file, pages.clone());
        }
        Self::over(state)
    }

    fn over(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), turn: Turn::default(), process: 0 }
    }

    /// Another disk in the same state, with the same log.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::over(State { locked_by: None, held: BTreeMap::new(), ..self.state().clone() })
    }

    /// The same disk, used by another process, whose calls wait for this turn.
    #[must_use]
    pub fn beside(&self, turn: &Turn) -> Self {
        let process = {
            let mut state = self.state();
            state.processes += 1;
            state.processes
        };
        Self { state: Arc::clone(&self.state), turn: turn.clone(), process }
    }

    /// Kills the process: what it asks for from now on is not done, and what it locked and held is free.
    pub fn kill(&self) {
        let mut state = self.state();
        self.turn.kill();
        state.locked_by = state.locked_by.filter(|process| *process != self.process);
        state.held.values_mut().for_each(|holders| holders.retain(|process| *process != self.process));
    }

    /// What was logged since it was taken last.
    #[must_use]
    pub fn log(&self) -> Vec<SimulatedOperation> {
        self.state().log.clone()
    }

    /// What is there when the process is killed now: all that it did, durable or not.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        let state = self.state();
        let mut image = DiskImage::default();
        for (name, node) in &state.names {
            match node {
                Node::Folder => drop(image.folders.insert(name.clone())),
                Node::File(file) => {
                    image.files.insert(name.clone(), state.files.get(file).cloned().unwrap_or_default());
                }
            }
        }
        image
    }

    /// Takes what was logged since the last call.
    #[must_use]
    pub fn take_log(&self) -> Vec<SimulatedOperation> {
        std::mem::take(&mut self.state().log)
    }

    /// Puts a mark into the log.
    pub fn mark(&self, number: u64) {
        self.state().log.push(SimulatedOperation::Mark(number));
    }

    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<DiskCall> {
        self.state().calls.clone()
    }

    /// From now on this is what fails, or nothing.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// From now on this is left out.
    pub fn set_omissions(&self, omissions: Omissions) {
        self.state().omissions = omissions;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The state, for a call that may fail.
    fn enter(&self, call: DiskCall) -> io::Result<MutexGuard<'_, State>> {
        let (state, fault) = self.try_enter(call);
        fault.map_or(Ok(state), |fault| Err(fault.error()))
    }

    fn try_enter(&self, call: DiskCall) -> (MutexGuard<'_, State>, Option<FaultKind>) {
        let turn = Turn::of_thread_or(&self.turn);
        let may_go_on = turn.wait();
        let mut state = self.state();
        if !may_go_on || turn.is_killed() {
            return (state, Some(FaultKind::Io));
        }
        let number = state.calls.len();
        state.calls.push(call);
        let fault = state.fault.filter(|fault| fault.hits(number, call)).map(|fault| fault.kind);
        (state, fault)
    }
}

impl State {
    fn write(&mut self, file: FileNumber, offset: u64, bytes: &[u8]) {
        self.files.entry(file).or_default().write(offset, bytes);
        self.log.push(SimulatedOperation::Write { file, offset, bytes: bytes.into() });
    }

    fn check_folder(&self, name: &str) -> io::Result<()> {
        let folder = folder_of(name);
        let is_there = folder.is_empty() || self.names.get(folder) == Some(&Node::Folder);
        if is_there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let call = if mode == OpenMode::CreateNew { DiskCall::Create } else { DiskCall::Open };
        let mut state = retry_interrupted(|| self.enter(call))?;
        let file = match (state.names.get(name), mode) {
            (Some(Node::Folder), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Node::File(file)), _) => *file,
            (None, OpenMode::CreateNew) => {
                state.check_folder(name)?;
                let file = state.files.last_key_value().map_or(0, |(last, _)| last + 1);
                state.files.insert(file, Pages::default());
                state.names.insert(name.to_owned(), Node::File(file));
                state.log.push(SimulatedOperation::Create { name: name.to_owned(), file });
                file
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), file, is_pack: name.starts_with("packs/") }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.enter(DiskCall::Exists)?.names.contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.enter(DiskCall::Rename)?;
        state.check_folder(to)?;
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), node);
        state.log.push(SimulatedOperation::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.enter(DiskCall::Link)?;
        state.check_folder(to)?;
        let Some(Node::File(file)) = state.names.get(from).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.names.insert(to.to_owned(), Node::File(file));
        state.log.push(SimulatedOperation::Link { name: to.to_owned(), file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.enter(DiskCall::Remove)?;
        if state.names.remove(name).is_some() {
            state.log.push(SimulatedOperation::Remove { name: name.to_owned() });
        }
        Ok(())
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        let mut state = self.enter(DiskCall::CreateDir)?;
        if state.names.insert(name.to_owned(), Node::Folder).is_none() {
            state.log.push(SimulatedOperation::CreateDir { name: name.to_owned() });
        }
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.enter(DiskCall::List)?;
        state.check_folder(&format!("{folder}/"))?;
        let held = state.held.iter().filter(|(_, holders)| !holders.is_empty()).map(|(name, _)| name);
        let held = held.filter(|_| !state.omissions.holds);
        let names = state.names.keys().chain(held).filter(|name| folder_of(name) == folder);
        Ok(names.filter_map(|name| name.rsplit('/').next()).map(str::to_owned).collect())
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        retry_interrupted(|| {
            // Names are in a journal: one that can't be written is not forgotten, as pages are.
            let mut state = self.enter(DiskCall::SyncDir)?;
            if !state.omissions.folder_syncs.contains(&folder) {
                state.log.push(SimulatedOperation::SyncDir { folder: folder.to_owned() });
            }
            Ok(())
        })
    }

    fn try_lock(&self) -> io::Result<LockAttempt> {
        let mut state = retry_interrupted(|| self.enter(DiskCall::Lock))?;
        if state.locked_by.is_some() {
            self.turn.give_up();
            return Ok(LockAttempt::Busy(Some(std::process::id())));
        }
        state.locked_by = Some(self.process);
        Ok(LockAttempt::Held(Box::new(SimulatedLock(self.clone()))))
    }

    /// Nothing is in a file that is held, so it is there only as long as it is held.
    fn hold(&self, name: &str) -> io::Result<Box<dyn LockGuard>> {
        let mut state = retry_interrupted(|| self.enter(DiskCall::Open))?;
        state.held.entry(name.to_owned()).or_default().push(self.process);
        Ok(Box::new(SimulatedHold { disk: self.clone(), name: name.to_owned() }))
    }

    fn is_held(&self, name: &str) -> io::Result<bool> {
        let state = retry_interrupted(|| self.enter(DiskCall::Open))?;
        let is_held = state.held.get(name).is_some_and(|holders| !holders.is_empty());
        Ok(is_held && !state.omissions.holds)
    }
}

#[derive(Debug)]
struct SimulatedHold {
    disk: SimulatedDisk,
    name: String,
}

impl LockGuard for SimulatedHold {}

impl Drop for SimulatedHold {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        let Some(holders) = state.held.get_mut(&self.name) else { return };
        if let Some(own) = holders.iter().position(|process| *process == self.disk.process) {
            holders.swap_remove(own);
        }
    }
}

#[derive(Debug)]
struct SimulatedLock(SimulatedDisk);

impl LockGuard for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.locked_by = state.locked_by.filter(|process| *process != self.0.process);
    }
}

/// An open file. What is retried after `EINTR` is what `RealDisk` and the standard library retry.
#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: FileNumber,
    is_pack: bool,
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = retry_interrupted(|| self.disk.enter(DiskCall::Read))?;
        let read = state.files.get(&self.file).map_or(0, |pages| pages.read(offset, buf));
        if read == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        retry_interrupted(|| {
            let (mut state, fault) = self.disk.try_enter(DiskCall::Write);
            match fault {
                None => state.write(self.file, offset, bytes),
                Some(FaultKind::ShortWrite) => {
                    state.write(self.file, offset, bytes.split_at(bytes.len() / 2).0);
                }
                Some(_) => {}
            }
            fault.map_or(Ok(()), |fault| Err(fault.error()))
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = retry_interrupted(|| self.disk.enter(DiskCall::SetLen))?;
        state.files.entry(self.file).or_default().set_len(bytes);
        state.log.push(SimulatedOperation::SetLen { file: self.file, bytes });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.enter(DiskCall::Len)?.files.get(&self.file).map_or(0, Pages::len))
    }

    fn sync(&self) -> io::Result<()> {
        retry_interrupted(|| {
            let (mut state, fault) = self.disk.try_enter(DiskCall::Sync);
            match fault {
                Some(FaultKind::Interrupted) => {}
                Some(_) => state.log.push(SimulatedOperation::LoseUnsynced { file: self.file }),
                None if self.is_pack && state.omissions.pack_syncs => {}
                None => state.log.push(SimulatedOperation::Sync { file: self.file }),
            }
            fault.map_or(Ok(()), |fault| Err(fault.error()))
        })
    }

    fn map(&self) -> io::Result<MappedBytes> {
        let state = self.disk.enter(DiskCall::Map)?;
        Ok(Arc::new(state.files.get(&self.file).map(Pages::to_vec).unwrap_or_default()))
    }
}
