//! Streams that a cancelled task wakes: a read of a pipe that gives nothing, and a write to one that takes nothing.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::{Deadline, Task, cancelled};
use crate::error::Subject;

/// What a pipe that can be written to takes at once without waiting.
const PIPE_BYTES: usize = 4096;

/// A file, pipe or socket whose reads and writes end with an error where they would wait and their [`Task`] is cancelled: see
/// [`Task::stream`].
#[derive(Debug)]
pub struct Interruptible<S> {
    task: Task,
    stream: S,
    /// Whether it is a file, which never waits.
    is_file: bool,
    deadline: Deadline,
}

impl Task {
    /// Gives a stream whose reads and writes end with an error where they would wait and this task is cancelled, before or
    /// meanwhile: for an archive that comes from a pipe or goes to one. No other process may use the same end of the pipe meanwhile.
    ///
    /// ```
    /// use layerstone::Task;
    /// # fn main() -> std::io::Result<()> {
    /// let task = Task::new();
    /// let (reader, _writer) = std::io::pipe()?;
    /// let mut stream = task.stream(reader)?;
    /// task.cancel();
    /// assert!(std::io::Read::read(&mut stream, &mut [0]).is_err());
    /// # Ok(()) }
    /// ```
    pub fn stream<S: AsFd>(&self, stream: S) -> io::Result<Interruptible<S>> {
        if let Some(state) = &self.0
            && state.wake.get().is_none()
        {
            let _ = state.wake.set(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        }
        fence(Ordering::SeqCst);
        if self.is_cancelled() {
            self.cancel();
        }
        let is_file = FileType::from_raw_mode(fstat(&stream)?.st_mode) == FileType::RegularFile;
        Ok(Interruptible { task: self.clone(), stream, is_file, deadline: Deadline::default() })
    }
}

/// Wakes the streams that wait, now and later.
pub(super) fn wake(wake: &OwnedFd) {
    // It fails only where it was written to before.
    let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
}

impl<S: AsFd> Interruptible<S> {
    /// Makes its reads and writes also fail where they would wait so long from now, with
    /// [`TimedOut`](crate::ErrorKind::TimedOut).
    #[must_use]
    pub fn with_timeout(self, time: Duration) -> Self {
        Self { deadline: Deadline::after(Some(time)), ..self }
    }

    /// Waits until the stream is ready; fails if it is not and the task was cancelled.
    fn wait(&self, ready: PollFlags) -> io::Result<()> {
        if self.is_file {
            return Ok(());
        }
        let wake = self.task.0.as_ref().and_then(|state| state.wake.get());
        let mut waited: Vec<_> = [(self.stream.as_fd(), ready)]
            .into_iter()
            .chain(wake.map(|wake| (wake.as_fd(), PollFlags::IN)))
            .map(|(file, flags): (BorrowedFd<'_>, _)| PollFd::from_borrowed_fd(file, flags))
            .collect();
        loop {
            // One that is too long for the system's clock has no end.
            let left = self.deadline.left().and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut waited, left.as_ref()) {
                Ok(0) => self.deadline.check(|| Subject::Argument("stream")).map_err(io::Error::other)?,
                Ok(_) if waited.first().is_some_and(|stream| !stream.revents().is_empty()) => return Ok(()),
                Ok(_) if self.task.is_cancelled() => return Err(io::Error::other(cancelled())),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<S: AsFd + Read> Read for Interruptible<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::IN)?;
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }
}

impl<S: AsFd + Write> Write for Interruptible<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = if self.is_file { bytes.len() } else { bytes.len().min(PIPE_BYTES) };
        let piece = bytes.get(..len).unwrap_or_default();
        loop {
            self.wait(PollFlags::OUT)?;
            match self.stream.write(piece) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::error::{Error, ErrorKind, Subject};

    #[test]
    fn a_task_that_was_cancelled_before_has_no_stream_wait() {
        let task = Task::new();
        task.cancel();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"there").unwrap();
        let mut stream = task.stream(reader).unwrap();
        let mut buffer = [0; 10];
        assert_eq!(stream.read(&mut buffer).unwrap(), 5, "what is there is read");
        assert_eq!(kind(stream.read(&mut buffer).unwrap_err()), ErrorKind::Cancelled);
    }

    fn kind(error: io::Error) -> ErrorKind {
        Error::io(Subject::Archive, "use it", error).kind()
    }

    #[test]
    fn a_read_that_waits_ends_when_the_task_is_cancelled() {
        let task = Task::new();
        let (reader, mut writer) = io::pipe().unwrap();
        let mut stream = task.stream(reader).unwrap();
        writer.write_all(b"abc").unwrap();
        let mut buffer = [0; 10];
        assert_eq!(stream.read(&mut buffer).unwrap(), 3);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stream.read(&mut buffer).unwrap_err());
            task.cancel();
            assert_eq!(kind(waiting.join().unwrap()), ErrorKind::Cancelled);
        });
        drop(writer);
    }

    #[test]
    fn a_read_and_a_write_that_wait_end_in_time() {
        let task = Task::new();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"abc").unwrap();
        let short = Duration::from_millis(20);
        let mut from = task.stream(reader).unwrap().with_timeout(short);
        let mut buffer = [0; 10];
        assert_eq!(from.read(&mut buffer).unwrap(), 3);
        let error = from.read(&mut buffer).unwrap_err();
        assert!(error.to_string().contains("longer than the limit of 20ms"), "{error}");
        assert_eq!(kind(error), ErrorKind::TimedOut);
        let mut to = task.stream(writer).unwrap().with_timeout(short);
        assert_eq!(kind(to.write_all(&[7; 1 << 20]).unwrap_err()), ErrorKind::TimedOut);
        drop(from);
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let mut ended = task.stream(reader).unwrap().with_timeout(Duration::MAX);
        assert_eq!(ended.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_write_to_a_full_pipe_ends_when_the_task_is_cancelled() {
        let task = Task::new();
        let (reader, writer) = io::pipe().unwrap();
        let mut stream = task.stream(writer).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stream.write_all(&[7; 1 << 20]).unwrap_err());
            let mut begun = [0; 1];
            (&reader).read_exact(&mut begun).unwrap();
            task.cancel();
            assert_eq!((begun, kind(waiting.join().unwrap())), ([7], ErrorKind::Cancelled));
        });
    }

    #[test]
    fn all_bytes_pass_and_the_end_is_seen() {
        let task = Task::new();
        let (reader, writer) = io::pipe().unwrap();
        let (mut from, mut to) = (task.stream(reader).unwrap(), task.stream(writer).unwrap());
        let bytes: Vec<u8> = (0..1 << 20).map(|number: u32| number.to_le_bytes()[1]).collect();
        let mut found = Vec::new();
        std::thread::scope(|scope| {
            let bytes = &bytes;
            scope.spawn(move || to.write_all(bytes).unwrap());
            from.read_to_end(&mut found).unwrap();
        });
        assert!(found == bytes);
        let mut empty = task.stream(File::open("/dev/null").unwrap()).unwrap();
        assert_eq!(empty.read(&mut [0]).unwrap(), 0);
    }
}
