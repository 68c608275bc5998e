//! A directory's state: for each path what its file was like when it was known to equal the base.
//!
//! The store keeps it in a file of its own, to which each commit appends; this module only makes and reads bytes.
//!
//! ```text
//! state   = segment*
//! segment = "LSST" version(1) body-bytes(8, little-endian) check(16) body
//! body    = observed:timestamp  count row*  count gone*
//! row     = path flags kind [bit 4: device] inode size mtime [no bit 5: ctime]
//!           [bit 0: uid gid] [bit 1: mode] [bit 2: count name*]          bit 3: nothing was made on the disk
//!                                                                        bit 4: the device is not the row's before
//!                                                                        bit 5: the ctime is the mtime
//!                                                                        bit 6: the mtime stands for the base's
//! gone    = path
//! path    = shared-bytes suffix                                          shared with the path before
//! timestamp = seconds (zigzag) nanos
//! inode, mtime, ctime = what they are more than in the row before, in zigzag; a time's seconds and then its nanos
//! check   = first 16 bytes of BLAKE3(body)
//! ```
//! Later rows win. `observed` is when the rows were true: a file whose last change is not clearly before it could
//! have been changed again without a trace, so such a row is not trusted.

use std::collections::BTreeMap;

use crate::format::{DecodeError, Decoder, Encoder};
use crate::path::TreePath;
use crate::tree::{Inode, Timestamp};

use super::stat::{FileKind, NEVER, Stat};

const MAGIC: &[u8; 4] = b"LSST";
const VERSION: u8 = 3;

const OWNER_UNSET: u8 = 1;
const MODE_UNSET: u8 = 2;
const XATTRS_UNSET: u8 = 4;
const OMITTED: u8 = 8;
const OTHER_DEVICE: u8 = 16;
const SAME_CTIME: u8 = 32;
const TIME_UNSET: u8 = 64;
const ALL_FLAGS: u8 = 127;

/// What a checkout left out or could not set, and what is on the disk instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unset {
    /// The owner and group that the file has instead.
    pub(crate) owner: Option<(u32, u32)>,
    /// The mode that the file has instead.
    pub(crate) mode: Option<u16>,
    /// The modification time, which the file system can't hold: the file has the one of its row instead.
    pub(crate) time: bool,
    /// Names of the extended attributes that are missing.
    pub(crate) xattrs: Vec<Vec<u8>>,
    /// Nothing was made.
    pub(crate) omitted: bool,
}

impl Unset {
    /// Returns what a file has instead of an inode's owner, mode and time.
    pub(crate) fn between(stat: &Stat, inode: &Inode) -> Self {
        let differs = (stat.uid, stat.gid) != (inode.uid, inode.gid);
        // Linux gives every link the mode 0777 and has no call to change it.
        let mode_differs = stat.mode != inode.mode && stat.kind != FileKind::Symlink;
        Self {
            owner: differs.then_some((stat.uid, stat.gid)),
            mode: mode_differs.then_some(stat.mode),
            time: stat.mtime != inode.mtime,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What one path's file was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateRow {
    pub(crate) kind: FileKind,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    /// None for nearly all.
    pub(crate) unset: Option<Box<Unset>>,
}

impl StateRow {
    pub(crate) fn new(stat: &Stat, unset: Unset) -> Self {
        let Stat { kind, device, inode, size, mtime, ctime, .. } = *stat;
        let unset = (!unset.is_empty()).then(|| Box::new(unset));
        Self { kind, device, inode, size, mtime, ctime, unset }
    }

    /// The row of a path where nothing was made.
    pub(crate) fn omitted(kind: FileKind) -> Self {
        let zero = Timestamp::default();
        let unset = Some(Box::new(Unset { omitted: true, ..Unset::default() }));
        Self { kind, device: 0, inode: 0, size: 0, mtime: zero, ctime: zero, unset }
    }

    /// The row of a file whose inode others have too: they could change it while the row is made, so it is not trusted.
    pub(crate) fn of_shared(stat: &Stat) -> Self {
        let mut row = Self::new(stat, Unset::default());
        row.distrust();
        row
    }

    /// Makes this the row of a file that is not known to be as it was.
    pub(crate) fn distrust(&mut self) {
        self.ctime = NEVER;
    }

    /// Whether nothing was made.
    pub(crate) fn is_omitted(&self) -> bool {
        self.unset.as_ref().is_some_and(|unset| unset.omitted)
    }

    fn matches(&self, stat: &Stat) -> bool {
        (self.kind, self.device, self.inode, self.size, self.mtime, self.ctime)
            == (stat.kind, stat.device, stat.inode, stat.size, stat.mtime, stat.ctime)
    }
}

/// A row, and whether its time lets it be trusted.
type Known = (TreePath, StateRow, bool);

/// A directory's state, read.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Ascending by path.
    rows: Vec<Known>,
}

impl State {
    /// Reads a state file's committed bytes.
    pub(crate) fn load(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut events = Vec::new();
        let mut decoder = Decoder(bytes);
        while !decoder.is_empty() {
            if decoder.raw(4)? != MAGIC || decoder.u8()? != VERSION {
                return Err(DecodeError::UnknownTag);
            }
            let len =
                usize::try_from(u64::from_le_bytes(decoder.array()?)).map_err(|_| DecodeError::BadNumber)?;
            let check = decoder.array::<16>()?;
            let body = decoder.raw(len)?;
            if !blake3::hash(body).as_bytes().starts_with(&check) {
                return Err(DecodeError::Checksum);
            }
            read_segment(Decoder(body), &mut events)?;
        }
        keep_latest(&mut events);
        let known = |(path, row): Event| row.map(|(row, is_settled)| (path, row, is_settled));
        Ok(Self { rows: events.into_iter().filter_map(known).collect() })
    }

    /// The bytes of a state that says what this one says with a further segment behind it.
    pub(crate) fn rewritten(
        &self,
        observed: Timestamp,
        rows: &BTreeMap<TreePath, StateRow>,
        gone: &[TreePath],
    ) -> Vec<u8> {
        let mut all: BTreeMap<&TreePath, (&StateRow, bool)> =
            self.rows.iter().map(|(path, row, is_settled)| (path, (row, *is_settled))).collect();
        all.extend(rows.iter().map(|(path, row)| (path, (row, is_settled(row.ctime, observed)))));
        for path in gone {
            all.remove(path);
        }
        let segment = |observed, is_wanted: bool| {
            let rows = all.iter().filter(|(_, (_, is_settled))| *is_settled == is_wanted);
            encode_segment(observed, rows.map(|(path, (row, _))| (*path, *row)), &[])
        };
        // What could not be trusted must not become trusted by being looked at later.
        [segment(observed, true), segment(NEVER, false)].concat()
    }

    /// Every row, ascending by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TreePath, &StateRow)> {
        self.rows.iter().map(|(path, row, _)| (path, row))
    }

    /// A path's row.
    pub(crate) fn get(&self, path: &TreePath) -> Option<&StateRow> {
        let place = self.rows.binary_search_by(|(known, ..)| known.cmp(path)).ok()?;
        self.rows.get(place).map(|(_, row, _)| row)
    }

    /// Tells of one path after the other whether the file is certainly what it was; quickest in their order.
    pub(crate) fn judge(&self) -> impl FnMut(&TreePath, &Stat) -> bool + use<'_> {
        let mut next = 0;
        move |path, stat| {
            next = self.first_from(next, path);
            let known = self.rows.get(next).filter(|(known, ..)| known == path);
            known.is_some_and(|(_, row, is_settled)| *is_settled && row.matches(stat))
        }
    }

    /// The first row whose path is not before this one; quick where that is soon after `start`.
    fn first_from(&self, start: usize, path: &TreePath) -> usize {
        let is_before = |place: usize| self.rows.get(place).is_some_and(|(known, ..)| known < path);
        let mut low = if start > 0 && !is_before(start - 1) { 0 } else { start };
        let mut step = 1;
        while is_before(low + step - 1) {
            low += step;
            step *= 2;
        }
        let within = self.rows.get(low..self.rows.len().min(low + step)).unwrap_or_default();
        low + within.partition_point(|(known, ..)| known < path)
    }
}

/// What a segment says of a path: a row and whether its time lets it be trusted, or that it is gone.
type Event = (TreePath, Option<(StateRow, bool)>);

fn read_segment(mut body: Decoder<'_>, events: &mut Vec<Event>) -> Result<(), DecodeError> {
    let observed = decode_time(&mut body)?;
    let mut last = Vec::new();
    let mut neighbour = Neighbour::default();
    for _ in 0..body.varint()? {
        let path = decode_path(&mut body, &mut last)?;
        let row = decode_row(&mut body, &mut neighbour)?;
        let is_settled = is_settled(row.ctime, observed);
        events.push((path, Some((row, is_settled))));
    }
    last.clear();
    for _ in 0..body.varint()? {
        events.push((decode_path(&mut body, &mut last)?, None));
    }
    body.finish()
}

/// Puts what many segments say in order, and leaves of each path what was said last.
fn keep_latest(events: &mut Vec<Event>) {
    let ascends = |one: &Event, other: &Event| one.0 < other.0;
    if events.is_sorted_by(ascends) {
        return;
    }
    // Stable, and quick where it is made of runs that are in order.
    events.sort_by(|(one, _), (other, _)| one.cmp(other));
    events.dedup_by(|later, earlier| {
        let is_same = later.0 == earlier.0;
        if is_same {
            std::mem::swap(later, earlier);
        }
        is_same
    });
}

/// Whether a change at `ctime` is so long before `observed` that a later one would have got another time. File
/// systems count in ticks of up to 10 ms, or, where they keep no fraction, in seconds (FAT: two).
pub(crate) fn is_settled(ctime: Timestamp, observed: Timestamp) -> bool {
    let ns = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let granule_ns = if ctime.nanos == 0 { 2_000_000_000 } else { SETTLE_NS };
    ns(ctime) + granule_ns < ns(observed)
}

/// After how long a file's change is settled on a file system with fractions of seconds.
const SETTLE_NS: i128 = 20_000_000;

/// Collects the rows of a segment, encoded: neighbours one after the other take the least room.
#[derive(Default)]
pub(crate) struct SegmentRows {
    encoded: Encoder,
    count: u64,
    last: Vec<u8>,
    neighbour: Neighbour,
}

impl SegmentRows {
    pub(crate) fn push(&mut self, path: &TreePath, row: &StateRow) {
        encode_path(&mut self.encoded, &self.last, path);
        encode_row(&mut self.encoded, row, &mut self.neighbour);
        self.count += 1;
        self.last.clear();
        self.last.extend_from_slice(path.as_key());
    }

    /// The segment of these rows, true at `observed`, and of paths that are gone.
    pub(crate) fn finish(self, observed: Timestamp, gone: &[TreePath]) -> Vec<u8> {
        let mut body = Encoder::default();
        encode_time(&mut body, observed);
        body.varint(self.count).raw(&self.encoded.0).varint(gone.len() as u64);
        let mut last: &[u8] = &[];
        for path in gone {
            encode_path(&mut body, last, path);
            last = path.as_key();
        }
        let mut segment = Encoder::default();
        let check = blake3::hash(&body.0);
        segment.raw(MAGIC).u8(VERSION).raw(&(body.0.len() as u64).to_le_bytes());
        segment.raw(check.as_bytes().split_at(16).0).raw(&body.0);
        segment.0
    }
}

/// A segment of rows and of paths that are gone.
pub(crate) fn encode_segment<'a>(
    observed: Timestamp,
    rows: impl Iterator<Item = (&'a TreePath, &'a StateRow)>,
    gone: &[TreePath],
) -> Vec<u8> {
    let mut segment = SegmentRows::default();
    rows.for_each(|(path, row)| segment.push(path, row));
    segment.finish(observed, gone)
}

fn encode_time(encoder: &mut Encoder, time: Timestamp) {
    encoder.signed(time.seconds).varint(time.nanos.into());
}

fn decode_time(decoder: &mut Decoder<'_>) -> Result<Timestamp, DecodeError> {
    let time = Timestamp { seconds: decoder.signed()?, nanos: decoder.number()? };
    if time.nanos < 1_000_000_000 { Ok(time) } else { Err(DecodeError::BadNumber) }
}

fn encode_path(encoder: &mut Encoder, last: &[u8], path: &TreePath) {
    let key = path.as_key();
    let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
    encoder.varint(shared as u64).bytes(key.get(shared..).unwrap_or_default());
}

fn decode_path(decoder: &mut Decoder<'_>, last: &mut Vec<u8>) -> Result<TreePath, DecodeError> {
    let shared = decoder.number::<usize>()?;
    if shared > last.len() {
        return Err(DecodeError::BadNumber);
    }
    last.truncate(shared);
    last.extend_from_slice(decoder.bytes()?);
    TreePath::from_key(last).map_err(|_| DecodeError::BadPath)
}

/// Kinds and the bytes that stand for them.
const KINDS: [(u8, FileKind); 7] = [
    (0, FileKind::Directory),
    (1, FileKind::File),
    (2, FileKind::Symlink),
    (3, FileKind::CharDevice),
    (4, FileKind::BlockDevice),
    (5, FileKind::Fifo),
    (6, FileKind::Socket),
];

/// What a row has in common with the one before it: files that were made together have inodes and times close together.
#[derive(Default)]
struct Neighbour {
    device: u64,
    inode: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

/// A time as how much later it is than another.
fn encode_later(encoder: &mut Encoder, time: Timestamp, than: &mut Timestamp) {
    encoder.signed(time.seconds.wrapping_sub(than.seconds));
    encoder.signed(i64::from(time.nanos) - i64::from(than.nanos));
    *than = time;
}

fn decode_later(decoder: &mut Decoder<'_>, than: &mut Timestamp) -> Result<Timestamp, DecodeError> {
    let seconds = than.seconds.wrapping_add(decoder.signed()?);
    let nanos = i64::from(than.nanos).checked_add(decoder.signed()?);
    let nanos = nanos.and_then(|nanos| u32::try_from(nanos).ok()).filter(|nanos| *nanos < 1_000_000_000);
    *than = Timestamp { seconds, nanos: nanos.ok_or(DecodeError::BadNumber)? };
    Ok(*than)
}

fn encode_row(encoder: &mut Encoder, row: &StateRow, before: &mut Neighbour) {
    let nothing = Unset::default();
    let unset = row.unset.as_deref().unwrap_or(&nothing);
    let bit = |is_set: bool, bit| if is_set { bit } else { 0 };
    let flags = bit(unset.owner.is_some(), OWNER_UNSET)
        | bit(unset.mode.is_some(), MODE_UNSET)
        | bit(!unset.xattrs.is_empty(), XATTRS_UNSET)
        | bit(unset.omitted, OMITTED)
        | bit(unset.time, TIME_UNSET)
        | bit(row.device != before.device, OTHER_DEVICE)
        | bit(row.ctime == row.mtime, SAME_CTIME);
    encoder.u8(flags).u8(KINDS.iter().find(|(_, kind)| *kind == row.kind).map_or(0, |(byte, _)| *byte));
    if row.device != before.device {
        before.device = row.device;
        encoder.varint(row.device);
    }
    encoder.signed(row.inode.wrapping_sub(before.inode).cast_signed()).varint(row.size);
    before.inode = row.inode;
    encode_later(encoder, row.mtime, &mut before.mtime);
    if row.ctime == row.mtime {
        before.ctime = row.ctime;
    } else {
        encode_later(encoder, row.ctime, &mut before.ctime);
    }
    if let Some((uid, gid)) = unset.owner {
        encoder.varint(uid.into()).varint(gid.into());
    }
    if let Some(mode) = unset.mode {
        encoder.varint(mode.into());
    }
    if !unset.xattrs.is_empty() {
        encoder.varint(unset.xattrs.len() as u64);
        for name in &unset.xattrs {
            encoder.bytes(name);
        }
    }
}

fn decode_row(decoder: &mut Decoder<'_>, before: &mut Neighbour) -> Result<StateRow, DecodeError> {
    let flags = decoder.u8()?;
    if flags & !ALL_FLAGS != 0 {
        return Err(DecodeError::UnknownTag);
    }
    let byte = decoder.u8()?;
    let (_, kind) = *KINDS.iter().find(|(known, _)| *known == byte).ok_or(DecodeError::UnknownTag)?;
    if flags & OTHER_DEVICE != 0 {
        before.device = decoder.varint()?;
    }
    before.inode = before.inode.wrapping_add(decoder.signed()?.cast_unsigned());
    let size = decoder.varint()?;
    let mtime = decode_later(decoder, &mut before.mtime)?;
    let ctime = if flags & SAME_CTIME == 0 {
        decode_later(decoder, &mut before.ctime)?
    } else {
        before.ctime = mtime;
        mtime
    };
    let (omitted, time) = (flags & OMITTED != 0, flags & TIME_UNSET != 0);
    let mut unset = Unset { time, omitted, ..Unset::default() };
    if flags & OWNER_UNSET != 0 {
        unset.owner = Some((decoder.number()?, decoder.number()?));
    }
    if flags & MODE_UNSET != 0 {
        unset.mode = Some(decoder.number()?);
    }
    if flags & XATTRS_UNSET != 0 {
        for _ in 0..decoder.varint()? {
            unset.xattrs.push(decoder.bytes()?.to_vec());
        }
    }
    let unset = (!unset.is_empty()).then(|| Box::new(unset));
    Ok(StateRow { kind, device: before.device, inode: before.inode, size, mtime, ctime, unset })
}

#[cfg(test)]
mod tests;
