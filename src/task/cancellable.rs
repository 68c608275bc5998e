//! Streams of any kind that give and take nothing any more once their task is cancelled.

use std::io::{self, Read, Write};

use super::Task;

/// A stream that looks at its task at each call: in the middle of a large hole, or of zeros behind an archive.
pub(crate) struct Cancellable<'t, S> {
    pub(crate) stream: S,
    pub(crate) task: &'t Task,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.task.check().map_err(io::Error::other)?;
        self.stream.read(buf)
    }
}

impl<W: Write> Write for Cancellable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.task.check().map_err(io::Error::other)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
