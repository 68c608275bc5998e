//! Lending: what its owner has forbidden himself to read is made readable for him as long as it is read, and then is as it was.
//!
//! For root every file is readable. Anybody else's own files may not be (`/etc/shadow` has mode 0000 on Fedora), and a command
//! that ran as root of a user namespace can have changed them. Before a mode is changed it is written to a journal, so that
//! what a killed process has lent is put back by the next that reads the same directory:
//!
//! ```text
//! journal = { lent mode (octal) ' ' mode (octal) ' ' path '\0' }
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::host::stat::{FileKind, Stat};
use crate::host::{failed, open_beneath};
use crate::path::TreePath;
use crate::sync::lock;

/// What its owner needs to read a file, and to list a directory and reach what is in it.
const READ: u16 = 0o400;
const LIST: u16 = 0o500;

/// A mode that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loan {
    path: TreePath,
    lent: u16,
    mode: u16,
}

#[derive(Debug, Default)]
struct Loans {
    journal: Option<File>,
    /// In the order in which they were made.
    made: Vec<Loan>,
    /// The modes that files have when nothing is lent, by device and inode.
    modes: HashMap<(u64, u64), u16>,
}

/// Lends modes in one tree, and puts them back when it is dropped.
#[derive(Debug)]
pub(super) struct Lender {
    root: Arc<OwnedFd>,
    journal: PathBuf,
    user: u32,
    loans: Mutex<Loans>,
}

impl Lender {
    /// For the tree with this root. What an earlier one did not put back is put back first.
    pub(super) fn new(root: Arc<OwnedFd>, journal: &Path) -> Result<Self> {
        let io = |error| Error::host(journal, "put modes back that are noted in it", error);
        match std::fs::read(journal) {
            Ok(bytes) => {
                put_back(&root, &parse(&bytes)).map_err(|error| io(error.into()))?;
                std::fs::remove_file(journal).map_err(io)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let user = rustix::process::geteuid().as_raw();
        Ok(Self { root, journal: journal.to_owned(), user, loans: Mutex::default() })
    }

    /// The mode that a file has when nothing is lent, if that is another than it has now.
    pub(super) fn mode(&self, stat: &Stat) -> Option<u16> {
        self.loans().modes.get(&(stat.device, stat.inode)).copied()
    }

    /// Makes a file or a directory readable, which was opened as a place; false if it is so already, or not this user's.
    pub(super) fn lend(&self, path: &TreePath, place: &OwnedFd) -> Result<bool> {
        let io = |error| failed(self.journal.clone(), "lend a mode", error);
        let stat = Stat::of(place, b"").map_err(io)?;
        let wanted = if stat.kind == FileKind::Directory { LIST } else { READ };
        if stat.uid != self.user || stat.mode & wanted == wanted {
            return Ok(false);
        }
        let mut loans = self.loans();
        let loan = Loan { path: path.clone(), lent: stat.mode | wanted, mode: stat.mode };
        loans.note(&self.journal, &loan).map_err(|error| Error::host(&self.journal, "write it", error))?;
        set_mode(place, loan.lent).map_err(io)?;
        loans.modes.insert((stat.device, stat.inode), stat.mode);
        loans.made.push(loan);
        Ok(true)
    }

    fn loans(&self) -> MutexGuard<'_, Loans> {
        lock(&self.loans)
    }
}

impl Drop for Lender {
    /// What can't be put back now stays in the journal.
    fn drop(&mut self) {
        let loans = self.loans();
        if loans.journal.is_some() && put_back(&self.root, &loans.made).is_ok() {
            let _ = std::fs::remove_file(&self.journal);
        }
    }
}

impl Loans {
    fn note(&mut self, journal: &Path, loan: &Loan) -> std::io::Result<()> {
        let file = match &mut self.journal {
            Some(file) => file,
            journal_file => journal_file.insert(File::create_new(journal)?),
        };
        let mut line = format!("{:o} {:o} ", loan.lent, loan.mode).into_bytes();
        line.extend_from_slice(&loan.path.to_relative());
        line.push(0);
        file.write_all(&line)?;
        file.sync_data()
    }
}

/// What a journal says; its end may be missing, and then nothing was changed for it yet.
fn parse(bytes: &[u8]) -> Vec<Loan> {
    let whole = bytes.iter().rposition(|byte| *byte == 0).map_or(0, |last| last + 1);
    let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == 0);
    let loan = |line: &[u8]| {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let mut mode = || u16::from_str_radix(std::str::from_utf8(parts.next()?).ok()?, 8).ok();
        let (lent, mode) = (mode()?, mode()?);
        let path = parts.next()?;
        let path = if path.is_empty() { TreePath::root() } else { TreePath::parse(path).ok()? };
        Some(Loan { path, lent, mode })
    };
    lines.filter_map(loan).collect()
}

/// Gives files their modes back that have what was lent, the last first: one above may be needed to reach it.
fn put_back(root: &OwnedFd, loans: &[Loan]) -> rustix::io::Result<()> {
    let mut outcome = Ok(());
    for Loan { path, lent, mode } in loans.iter().rev() {
        // A file that is gone, or was changed meanwhile, is its owner's.
        let place = if path.is_root() {
            root.try_clone().map_err(|_| Errno::MFILE)
        } else {
            open_beneath(root, path, OFlags::PATH | OFlags::NOFOLLOW)
        };
        let Ok(place) = place else { continue };
        if Stat::of(&place, b"").is_ok_and(|stat| stat.mode == *lent) {
            outcome = set_mode(&place, *mode).and(outcome);
        }
    }
    outcome
}

fn set_mode(place: &OwnedFd, mode: u16) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    chmodat(CWD, path, Mode::from_raw_mode(mode.into()), AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::source::SourceTree;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_lent_is_put_back_also_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (root, journal) = (folder.path().join("root"), folder.path().join("journal"));
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "text").unwrap();
        let [f, d] = ["d/f", "d"].map(|name| TreePath::parse(name.as_bytes()).unwrap());
        let lend = |lender: &Lender| {
            set(&root.join("d/f"), 0o040);
            set(&root.join("d"), 0o200);
            for path in [&d, &f] {
                let place = open_beneath(&*lender.root, path, OFlags::PATH).unwrap();
                assert!(lender.lend(path, &place).unwrap());
                let now = Stat::of(&place, b"").unwrap();
                assert!(!lender.lend(path, &place).unwrap());
                assert_eq!(lender.mode(&now), Some(if *path == d { 0o200 } else { 0o040 }));
            }
            assert_eq!((mode(&root.join("d")), mode(&root.join("d/f"))), (0o700, 0o440));
        };
        let new = || Lender::new(SourceTree::open(&root).unwrap().root, &journal).unwrap();
        let lender = new();
        lend(&lender);
        drop(lender);
        assert_eq!(mode(&root.join("d")), 0o200);
        set(&root.join("d"), 0o700);
        assert_eq!(mode(&root.join("d/f")), 0o040);
        assert!(!journal.exists());
        // Killed, it puts nothing back; half a line was not acted on.
        let lender = new();
        lend(&lender);
        std::mem::forget(lender);
        let mut bytes = fs::read(&journal).unwrap();
        assert_eq!(bytes, b"700 200 d\x00440 40 d/f\0");
        bytes.extend_from_slice(b"440 4");
        fs::write(&journal, bytes).unwrap();
        drop(new());
        assert_eq!(mode(&root.join("d")), 0o200);
        set(&root.join("d"), 0o700);
        assert_eq!(mode(&root.join("d/f")), 0o040);
        assert!(!journal.exists());
        // What was changed since is not touched.
        let lender = new();
        lend(&lender);
        set(&root.join("d/f"), 0o644);
        drop(lender);
        set(&root.join("d"), 0o700);
        assert_eq!(mode(&root.join("d/f")), 0o644);
    }
}
