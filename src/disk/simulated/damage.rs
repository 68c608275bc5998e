//! Damage to a disk at rest.

use super::DiskImage;
use super::pages::Pages;

const SECTOR_BYTES: usize = 512;

/// What becomes of a file.
#[derive(Clone, Debug)]
pub enum Damage {
    /// One bit is another.
    FlipBit(u64),
    /// A sector holds zeros.
    ZeroSector(u64),
    /// A sector holds what belongs into another.
    Misdirect {
        /// What was written where it does not belong.
        sector: u64,
        /// Where it does not belong.
        to: u64,
    },
    /// The file ends here.
    Truncate(u64),
    /// It is gone.
    Remove,
    /// It is as it was in another image.
    Replace(DiskImage),
}

impl DiskImage {
    /// Damages one of its files, if it is there; says whether that changed anything.
    pub fn damage(&mut self, name: &str, damage: &Damage) -> bool {
        let Some(pages) = self.files.get_mut(name) else { return false };
        let before = pages.fingerprint();
        match damage {
            Damage::FlipBit(bit) => {
                let mut byte = [0];
                if pages.read(bit / 8, &mut byte) == 1 {
                    pages.write(bit / 8, &byte.map(|byte| byte ^ (1 << (bit % 8))));
                }
            }
            Damage::ZeroSector(sector) => put(pages, *sector, &[0; SECTOR_BYTES]),
            Damage::Misdirect { sector, to } => {
                let mut bytes = [0; SECTOR_BYTES];
                pages.read(sector * SECTOR_BYTES as u64, &mut bytes);
                put(pages, *to, &bytes);
            }
            Damage::Truncate(len) => pages.set_len(pages.len().min(*len)),
            Damage::Remove => return self.files.remove(name).is_some(),
            Damage::Replace(other) => match other.files.get(name) {
                Some(other) => *pages = other.clone(),
                None => return false,
            },
        }
        pages.fingerprint() != before
    }

    /// Bytes of a file; 0 if it is not there.
    #[must_use]
    pub fn len(&self, name: &str) -> u64 {
        self.files.get(name).map_or(0, Pages::len)
    }

    /// All of a file, if it is there.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.files.get(name).map(Pages::to_vec)
    }
}

/// Puts bytes in a sector's place, as far as the file goes.
fn put(pages: &mut Pages, sector: u64, bytes: &[u8]) {
    let offset = sector * SECTOR_BYTES as u64;
    let within = usize::try_from(pages.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    let within = bytes.get(..within).unwrap_or(bytes);
    if !within.is_empty() {
        pages.write(offset, within);
    }
}
