//! Scanning a directory of the host: every entry found, and what is wanted read and stored, on every core and in the
//! order of paths.
//!
//! A job lists a directory or goes on in one, does the entries in it one after the other, and hands out the directories
//! below and, once it has enough of its own, the rest. So neighbouring files are read by one thread, which puts them
//! into the same frames, and one large directory is shared out like many small ones. What is held in memory are the
//! names of the directories under way, and a bounded number of results.

use std::sync::Arc;

use crate::error::{Error, Result, Subject};
use crate::host::source::{Found, Listed, SourceDirectory};
use crate::host::stat::FileKind;
use crate::object::ObjectSink;
use crate::pack::session::{PackHost, Session};
use crate::path::TreePath;
use crate::task::Task;

use super::capture::{Captured, Capturer, Wanted};
use super::queue::{Later, Queue, Steps};
use super::walk::Walk;

/// File bytes and entries that one job does itself.
const JOB_BYTES: u64 = 1 << 20;
const JOB_ENTRIES: usize = 256;

/// One path of the source.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// It was wanted, and read.
    Captured(TreePath, Captured),
    /// It was not wanted.
    Left(Found),
    /// It is no directory and has other names: it is to be read together with them, if it or one of them is wanted.
    Linked {
        /// The entry.
        found: Found,
        /// Whether it is wanted itself.
        is_wanted: bool,
    },
}

/// Names of a directory that are still to be done.
struct Rest {
    directory: TreePath,
    names: Arc<[Listed]>,
    from: usize,
}

enum Job {
    Directory(TreePath),
    Rest(Rest),
}

/// A directory to scan, and what of it is wanted.
pub(crate) struct Scan<'s, W> {
    pub(crate) walk: &'s Walk<'s>,
    pub(crate) wanted: &'s W,
}

impl<W: Wanted> Scan<'_, W> {
    /// Scans, while `consume` takes what was found, in the order of paths, the root first.
    ///
    /// Fails with the first error of either. What was read is in the session's packs once this has returned.
    pub(crate) fn run<H: PackHost, R>(
        &self,
        session: &Session<H>,
        consume: impl FnOnce(&mut dyn Iterator<Item = Result<Scanned>>) -> Result<R>,
    ) -> Result<R> {
        let queue = Queue::new(TreePath::root(), Job::Directory(TreePath::root()));
        let task = session.task();
        let work = || -> Result<()> {
            let writer = match session.writer() {
                Ok(writer) => writer,
                // The consumer waits for what this thread would have done.
                Err(error) => {
                    queue.fail(error);
                    return Ok(());
                }
            };
            let mut capturer = Capturer::new(self.walk, self.wanted, writer, task.clone());
            queue.work(|job, steps| self.do_job(job, &mut capturer, steps, &task));
            capturer.into_sink().flush()
        };
        std::thread::scope(|scope| {
            // Dropped when the consumer is done, whatever came of it, so that the workers end.
            let mut results = queue.results();
            let workers: Vec<_> = (0..self.walk.threads.max(1)).map(|_| scope.spawn(work)).collect();
            let consumed = consume(&mut results);
            drop(results);
            let joined = workers.into_iter().try_for_each(crate::threads::join);
            // A worker's error is the consumer's too, unless it came after the last result.
            consumed.and_then(|consumed| joined.map(|()| consumed))
        })
    }

    fn do_job<S: ObjectSink>(
        &self,
        job: Job,
        capturer: &mut Capturer<'_, W, S>,
        steps: &mut Steps<'_, Job, Scanned>,
        task: &Task,
    ) -> Result<()> {
        task.check()?;
        let mut is_wanted = self.wanted.judge();
        let (directory, rest) = match job {
            Job::Directory(path) => {
                let directory = match self.open(&path) {
                    Ok(Some(directory)) => directory,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        let found = self.hidden_mount(&path, error)?;
                        self.walk.take(&found)?;
                        let captured = capturer.mount_point(&found)?;
                        steps.push(Scanned::Captured(path, captured));
                        return Ok(());
                    }
                };
                let found = Found { path: path.clone(), stat: directory.stat()? };
                if self.walk.is_store(&found)? {
                    return Ok(());
                }
                let is_left_out = self.walk.take(&found)?;
                self.walk.note_not_kept(&path, directory.unkept_flags());
                if is_wanted(&found) {
                    steps.push(Scanned::Captured(path.clone(), capturer.directory(&directory, found.stat)?));
                } else {
                    steps.push(Scanned::Left(found));
                }
                task.advance(1, 0)?;
                if is_left_out {
                    return Ok(());
                }
                let names = directory.list()?.into();
                (directory, Rest { directory: path, names, from: 0 })
            }
            Job::Rest(rest) => {
                let Some(directory) = self.open(&rest.directory)? else { return Ok(()) };
                (directory, rest)
            }
        };
        // All is found and handed out before any of it is read, so that the others have something to do meanwhile.
        for entry in self.find(&directory, rest, steps)? {
            let found = match entry {
                Entry::Elsewhere(later) => {
                    steps.push_later(later);
                    continue;
                }
                Entry::Here(found) => found,
            };
            if self.walk.take(&found)? {
                let captured = capturer.mount_point(&found)?;
                steps.push(Scanned::Captured(found.path, captured));
            } else if found.is_linked() {
                let is_wanted = is_wanted(&found);
                steps.push(Scanned::Linked { found, is_wanted });
            } else if !is_wanted(&found) {
                steps.push(Scanned::Left(found));
            } else if let Some(captured) = capturer.entry(&directory, &found)? {
                steps.push(Scanned::Captured(found.path, captured));
            }
            task.advance(1, 0)?;
        }
        Ok(())
    }

    /// Opens a directory; none if it is gone, or where what changes is passed over, if something else has its name.
    fn open(&self, path: &TreePath) -> Result<Option<SourceDirectory<'_>>> {
        match self.walk.source.directory(path) {
            Err(error) if error.is_conflict() => self.walk.pass_changed(path, || error).map(|()| None),
            opened => opened,
        }
    }

    /// Looks up a name; none if it was removed since it was listed.
    fn look(&self, directory: &SourceDirectory<'_>, name: &[u8]) -> Result<Option<Found>> {
        match directory.find(name) {
            Err(error) => self.hidden_mount(&directory.join(name)?, error).map(Some),
            found => found,
        }
    }

    /// Gives what is known of a path that can't be looked at, if that is a mount which is left out; fails otherwise.
    fn hidden_mount(&self, path: &TreePath, error: Error) -> Result<Found> {
        let stat = if error.is_of_host() { self.walk.source.hidden_mount(path) } else { None };
        match stat {
            None => Err(error),
            Some(stat) if self.walk.leaves_out_mounts() => Ok(Found { path: path.clone(), stat }),
            Some(_) => {
                let message = "something is mounted there that this process can't look at; unmount it, or leave it out \
                               (import --one-file-system, --exclude)";
                Err(Error::unsupported(Subject::Host(self.walk.source.host_path(path)), message))
            }
        }
    }

    /// Looks up names until they are enough for one job, and starts jobs for the directories among them and for the rest.
    fn find(
        &self,
        directory: &SourceDirectory<'_>,
        rest: Rest,
        steps: &Steps<'_, Job, Scanned>,
    ) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (index, listed) in rest.names.iter().enumerate().skip(rest.from) {
            if entries.len() >= JOB_ENTRIES || bytes >= JOB_BYTES {
                let path = directory.join(&listed.name)?;
                entries.push(Entry::Elsewhere(steps.start(path, Job::Rest(Rest { from: index, ..rest }))));
                break;
            }
            let found = match listed.is_directory {
                Some(true) => None,
                _ => match self.look(directory, &listed.name)? {
                    Some(found) if found.stat.kind == FileKind::Directory => None,
                    Some(found) => Some(found),
                    None => continue,
                },
            };
            if self.walk.excludes(directory, &listed.name, found.is_none())? {
                continue;
            }
            if let Some(found) = found {
                bytes += found.stat.size;
                entries.push(Entry::Here(found));
            } else {
                let path = directory.join(&listed.name)?;
                entries.push(Entry::Elsewhere(steps.start(path.clone(), Job::Directory(path))));
            }
        }
        Ok(entries)
    }
}

/// What a job makes of a name.
enum Entry {
    /// No directory: the job's own.
    Here(Found),
    /// A directory, or the names that are too many for one job.
    Elsewhere(Later),
}
