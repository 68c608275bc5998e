//! Frames written only after they were published: the write order broken on purpose, for a test that must notice.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::disk::{DiskFile, MappedBytes};
use crate::pack::session::OpenPack;
use crate::sync::lock;

type Writes = Arc<Mutex<Vec<(Arc<dyn DiskFile>, u64, Vec<u8>)>>>;

/// Writes that are put off.
#[derive(Clone, Debug, Default)]
pub(crate) struct LateWrites(Writes);

#[derive(Debug)]
struct LateFile {
    file: Arc<dyn DiskFile>,
    writes: Writes,
}

impl LateWrites {
    /// The pack, with a file whose writes are put off.
    pub(crate) fn instead_of(&self, pack: OpenPack) -> OpenPack {
        let file = LateFile { file: pack.file, writes: Arc::clone(&self.0) };
        OpenPack { file: Arc::new(file), ..pack }
    }

    /// Writes what was put off, a little later.
    pub(crate) fn write(&self) {
        for (file, offset, bytes) in lock(&self.0).drain(..) {
            std::thread::sleep(Duration::from_millis(2));
            let _ = file.write_at(&bytes, offset);
        }
    }
}

impl DiskFile for LateFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut writes = lock(&self.writes);
        writes.push((Arc::clone(&self.file), offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn map(&self) -> io::Result<MappedBytes> {
        self.file.map()
    }
}
