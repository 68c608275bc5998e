//! Syncing a pack while it grows.
//!
//! A sync takes as long as the disk needs for what the kernel has kept back until then, which is everything unless it is
//! asked. Asked in between, beside the appends, little is left to wait for when the pack must be durable. This makes
//! nothing durable that anything may count on: who needs that [ends](EarlySyncs::end) it and syncs once more.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crate::disk::DiskFile;

/// Bytes for which it is worth asking.
const WORTHWHILE_BYTES: u64 = 16 << 20;

/// The syncs of one pack, one at a time.
#[derive(Debug)]
pub(super) struct EarlySyncs {
    /// Up to where the last one went.
    asked: u64,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl EarlySyncs {
    /// None yet, for a file with this many bytes.
    pub(super) fn new(end: u64) -> Self {
        Self { asked: end, running: None }
    }

    /// Notes that the file has grown. Fails if an earlier sync did, after which nothing is known of the file.
    pub(super) fn grown(&mut self, file: &Arc<dyn DiskFile>, end: u64) -> io::Result<()> {
        let is_busy = self.running.as_ref().is_some_and(|running| !running.is_finished());
        if is_busy || end - self.asked < WORTHWHILE_BYTES {
            return Ok(());
        }
        self.end()?;
        self.asked = end;
        let file = Arc::clone(file);
        // Without a thread there is only more to do later.
        self.running = Builder::new().spawn(move || file.sync()).ok();
        Ok(())
    }

    /// Waits for the sync under way.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.join().unwrap_or_else(|_| Err(io::Error::other("a thread died")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::recording::{DiskLog, DiskOperation, RecordingDisk};
    use crate::disk::{Disk, MappedBytes, MemoryDisk, OpenMode};

    #[test]
    fn a_file_that_grows_is_synced_now_and_then() {
        let log = DiskLog::default();
        let disk = RecordingDisk::new(Arc::new(MemoryDisk::default()), log.clone());
        let file = disk.open("pack", OpenMode::CreateNew).unwrap();
        let mut syncs = EarlySyncs::new(100);
        let mut counts = Vec::new();
        for end in
            [100, 99 + WORTHWHILE_BYTES, 100 + WORTHWHILE_BYTES, 101 + WORTHWHILE_BYTES, 3 * WORTHWHILE_BYTES]
        {
            syncs.grown(&file, end).unwrap();
            syncs.end().unwrap();
            let is_sync = |operation: &&DiskOperation| matches!(operation, DiskOperation::Sync { .. });
            counts.push(log.take().iter().filter(is_sync).count());
        }
        assert_eq!(counts, [0, 0, 1, 0, 1]);
    }

    #[test]
    fn a_failed_sync_is_not_forgotten() {
        let file: Arc<dyn DiskFile> = Arc::new(Broken);
        let mut syncs = EarlySyncs::new(0);
        syncs.grown(&file, WORTHWHILE_BYTES).unwrap();
        assert!(syncs.end().is_err());
    }

    /// A file on a disk that has failed.
    #[derive(Debug)]
    struct Broken;

    impl DiskFile for Broken {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Other.into())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn sync(&self) -> io::Result<()> {
            Err(io::ErrorKind::Other.into())
        }

        fn map(&self) -> io::Result<MappedBytes> {
            Err(io::ErrorKind::Other.into())
        }
    }
}
