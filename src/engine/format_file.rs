//! The file `format`, which says a store's format, in one line. It is the last that the creation of a store makes.
//!
//! Until its name is durable it has a second line that says so: a process that is killed behind the rename leaves a store that
//! others use, and that a power cut would take.

use std::io::ErrorKind::UnexpectedEof;

use crate::disk::{Disk, OpenMode};
use crate::format::FORMAT_VERSION;
use crate::layout::{FORMAT_FILE, NEW_FORMAT_FILE};

const FIRST_LINE: &str = "layerstone store format ";
/// What the file has behind its line until its name is durable.
const UNNAMED: &str = "its name is not durable yet\n";
/// More than any that a store has.
const BYTES_MAX: usize = 100;

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FormatFile {
    /// None if it does not say any.
    pub(crate) version: Option<u32>,
    /// If its name may not be durable: the bytes of the line to which [`finish`] cuts it.
    pub(crate) unfinished: Option<u64>,
}

impl FormatFile {
    /// Reads the file, which must be there.
    pub(crate) fn read(disk: &dyn Disk) -> std::io::Result<Self> {
        let file = disk.open(FORMAT_FILE, OpenMode::Read)?;
        loop {
            let mut text = vec![0; usize::try_from(file.len()?).unwrap_or(BYTES_MAX).min(BYTES_MAX)];
            match file.read_at(&mut text, 0) {
                // Another process has cut off the second line since the length was asked for.
                Err(error) if error.kind() == UnexpectedEof && file.len()? < text.len() as u64 => {}
                outcome => return outcome.map(|()| Self::parse(&text)),
            }
        }
    }

    fn parse(text: &[u8]) -> Self {
        let line = text.strip_suffix(UNNAMED.as_bytes());
        let unfinished = line.map(|line| line.len() as u64);
        let line = std::str::from_utf8(line.unwrap_or(text)).unwrap_or_default();
        Self { version: line.trim().strip_prefix(FIRST_LINE).and_then(|text| text.parse().ok()), unfinished }
    }
}

/// Makes the file, whose name is not durable before [`finish`].
pub(crate) fn write_unfinished(disk: &dyn Disk) -> std::io::Result<()> {
    write(disk, UNNAMED)
}

/// Makes the file, and its name durable.
pub(crate) fn write_durable(disk: &dyn Disk) -> std::io::Result<()> {
    write(disk, "")?;
    disk.sync_dir("")
}

fn write(disk: &dyn Disk, second_line: &str) -> std::io::Result<()> {
    disk.remove(NEW_FORMAT_FILE)?;
    let file = disk.open(NEW_FORMAT_FILE, OpenMode::CreateNew)?;
    file.write_at(format!("{FIRST_LINE}{FORMAT_VERSION}\n{second_line}").as_bytes(), 0)?;
    file.sync()?;
    disk.rename(NEW_FORMAT_FILE, FORMAT_FILE)
}

/// Makes the store's name for good what it was made as, whoever began.
pub(crate) fn finish(disk: &dyn Disk, line_bytes: u64) -> std::io::Result<()> {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    disk.sync_dir("")?;
    let cut = disk.open(FORMAT_FILE, OpenMode::Write).and_then(|file| file.set_len(line_bytes));
    match cut {
        // Whoever may only read promises nothing.
        Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn it_says_its_format_with_and_without_a_second_line() {
        let disk = MemoryDisk::default();
        write_unfinished(&disk).unwrap();
        let unfinished = FormatFile::read(&disk).unwrap();
        assert_eq!((unfinished.version, unfinished.unfinished.is_some()), (Some(FORMAT_VERSION), true));
        finish(&disk, unfinished.unfinished.unwrap()).unwrap();
        let finished = FormatFile { version: Some(FORMAT_VERSION), unfinished: None };
        assert_eq!(FormatFile::read(&disk).unwrap(), finished);
        write_durable(&disk).unwrap();
        assert_eq!(FormatFile::read(&disk).unwrap(), finished);
        // Cut by another process in the middle of reading.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    write_unfinished(&disk).unwrap();
                    finish(&disk, FormatFile::read(&disk).unwrap().unfinished.unwrap()).unwrap();
                }
            });
            for _ in 0..1_000 {
                assert_eq!(FormatFile::read(&disk).unwrap().version, Some(FORMAT_VERSION));
            }
        });
        for damaged in
            [&b""[..], b"layerstone store format", b"rubbish\n", b"\xfflayerstone store format 5\n"]
        {
            assert_eq!(FormatFile::parse(damaged).version, None);
        }
    }
}
