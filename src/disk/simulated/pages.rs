//! A file's bytes, in pages that copies share.

use std::fmt;
use std::sync::{Arc, OnceLock};

pub(super) const PAGE_BYTES: usize = 1 << 12;

/// The bytes of a file at one time. Copying it costs nothing, and changing the copy only the pages that change.
#[derive(Clone, Default)]
pub(super) struct Pages {
    /// INVARIANT: as many as `len` needs; behind `len` they hold zeros.
    all: Arc<Vec<Arc<Page>>>,
    len: u64,
    fingerprint: OnceLock<u64>,
}

#[derive(Clone)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    fingerprint: OnceLock<u64>,
}

impl Page {
    fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| fingerprint(&self.bytes))
    }

    fn write(&mut self, start: usize, bytes: &[u8]) {
        self.fingerprint = OnceLock::new();
        if let Some(target) = self.bytes.get_mut(start..start + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }
}

/// 64 bits of a hash.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    blake3::hash(bytes).as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("len", &self.len).finish_non_exhaustive()
    }
}

fn zeros() -> Arc<Page> {
    static ZEROS: OnceLock<Arc<Page>> = OnceLock::new();
    let page = || Arc::new(Page { bytes: [0; PAGE_BYTES], fingerprint: OnceLock::new() });
    Arc::clone(ZEROS.get_or_init(page))
}

/// The page that a byte of the file is in, and where in it.
fn place(offset: u64) -> (usize, usize) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    (offset / PAGE_BYTES, offset % PAGE_BYTES)
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out`, as far as the file goes; gives how many bytes it had.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (mut at, mut rest) = (offset, out.split_at_mut(there).0);
        while !rest.is_empty() {
            let (page, start) = place(at);
            let (part, after) = rest.split_at_mut((PAGE_BYTES - start).min(rest.len()));
            if let Some(bytes) = self.all.get(page).and_then(|page| page.bytes.get(start..start + part.len()))
            {
                part.copy_from_slice(bytes);
            }
            at += part.len() as u64;
            rest = after;
        }
        there
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(0)];
        self.read(0, &mut bytes);
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        self.fingerprint = OnceLock::new();
        let pages = Arc::make_mut(&mut self.all);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (page, start) = place(at);
            let (part, after) = rest.split_at((PAGE_BYTES - start).min(rest.len()));
            if let Some(page) = pages.get_mut(page) {
                Arc::make_mut(page).write(start, part);
            }
            at += part.len() as u64;
            rest = after;
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.fingerprint = OnceLock::new();
        let pages = Arc::make_mut(&mut self.all);
        let (whole, part) = place(len);
        pages.resize_with(whole + usize::from(part > 0), zeros);
        if let Some(last) = pages.get_mut(whole).filter(|_| len < self.len) {
            Arc::make_mut(last).write(part, [0; PAGE_BYTES].get(part..).unwrap_or_default());
        }
        self.len = len;
    }

    /// Equal for equal bytes, and for others by chance only.
    pub(super) fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let mut all = Vec::with_capacity(8 * self.all.len() + 8);
            for page in &*self.all {
                all.extend_from_slice(&page.fingerprint().to_le_bytes());
            }
            all.extend_from_slice(&self.len.to_le_bytes());
            fingerprint(&all)
        })
    }
}
