//! Bytes as calls: the first byte of a call is its kind, and what follows are its arguments, each a byte or two.

use layerstone::ImageRef;
use layerstone::id::ImageId;
use layerstone::testing::Chance;

use super::effect::Effect;
use super::mishap::{MISHAPS, Mishap};
use super::model::{Content, Model, PUBLIC};

/// Handles of the store that are open at once.
pub const HANDLES: usize = 2;

/// The last is no name of a project.
const SCOPES: [&str; 5] = [PUBLIC, "a", "b", "c", "a/b"];
const TAGS: [&str; 5] = ["x", "y", "x:1", "x:latest", "x/y.z"];
const NO_TAGS: [&str; 6] = ["", "_", "x:", "x//y", "tag:x", NO_IMAGE];
/// Of an image that was never made.
const NO_IMAGE: &str = "0190c8f0-0000-7000-8000-000000000000";
const PATHS: [&str; 4] = ["a", "b", "d/a", "d/b"];
/// Some are stored with their entry, some as a chunk, and a few of the largest fill a pack.
const FILE_BYTES: [usize; 8] = [0, 10, 40, 200, 600, 1_500, 3_000, 12_000];
/// A session that may hold little takes a pack of its own.
const HELD_BYTES: [usize; 3] = [1 << 20, 3_000, 0];

/// One call through a handle.
#[derive(Clone, Debug)]
pub enum Call {
    /// Opens the store anew.
    Open {
        is_exclusive: bool,
        held_bytes: usize,
    },
    /// Lets go of the store, and of all images.
    Close,
    Change(Effect),
    WaitForUpkeep,
    /// Finds an image and keeps it, whatever becomes of it.
    Keep {
        scope: String,
        image: ImageId,
    },
    /// Reads all that was kept.
    Read,
    List,
    Verify {
        is_quick: bool,
    },
    /// Damages the store at places that the seed chooses, and repairs it.
    Mishap {
        mishap: Mishap,
        seed: u64,
    },
}

/// What is left of the bytes.
pub struct Calls<'b>(&'b [u8]);

impl<'b> Calls<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// The next call, and the handle that makes it; none when the bytes end.
    pub fn next(&mut self, model: &Model) -> Option<(usize, Call)> {
        let kind = self.byte()?;
        let handle = usize::from(kind >> 7) % HANDLES;
        let flag = kind & 0x40 != 0;
        let call = match kind & 0xf {
            _ if kind & 0x3f == 0x3f => {
                let mishap = pick(&MISHAPS, self.byte()?);
                Call::Mishap { mishap, seed: self.byte()?.into() }
            }
            0 => {
                let held_bytes = pick(&HELD_BYTES, self.byte()?);
                Call::Open { is_exclusive: flag, held_bytes }
            }
            1 => Call::Close,
            2 => Call::WaitForUpkeep,
            3 => Call::Keep { scope: self.scope()?, image: self.image(model)? },
            4 => Call::Read,
            5 => Call::List,
            6 => Call::Verify { is_quick: flag },
            7 => Call::Change(Effect::Collect { full: flag }),
            8 => Call::Change(Effect::CreateProject(self.scope()?)),
            9 => Call::Change(Effect::RemoveProject { scope: self.scope()?, force: flag }),
            10 => Call::Change(Effect::Tag {
                scope: self.scope()?,
                image: self.image(model)?,
                tags: self.tags()?,
            }),
            11 => Call::Change(Effect::Untag { scope: self.scope()?, tag: self.tag()? }),
            12 => {
                Call::Change(Effect::Remove { scope: self.scope()?, image: self.image(model)?, force: flag })
            }
            13 => {
                let (scope, base, tags) = (self.scope()?, self.image(model)?, self.tags()?);
                let removed = self.paths()?;
                Call::Change(Effect::Commit { scope, base, removed, written: self.files()?, tags })
            }
            _ => {
                let (scope, tags) = (self.scope()?, self.tags()?);
                let content = Content::new(self.files()?.into_iter().collect());
                Call::Change(Effect::Import { scope, content, tags })
            }
        };
        Some((handle, call))
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn scope(&mut self) -> Option<String> {
        Some(pick(&SCOPES, self.byte()?).to_owned())
    }

    /// One of those that were made last, or one that was never made.
    fn image(&mut self, model: &Model) -> Option<ImageId> {
        let age = usize::from(self.byte()? & 0xf);
        let made = model.contents.keys().rev().nth(age).copied();
        Some(made.unwrap_or_else(no_image))
    }

    fn tag(&mut self) -> Option<String> {
        let byte = self.byte()?;
        Some(if byte < 0xe0 { pick(&TAGS, byte) } else { pick(&NO_TAGS, byte) }.to_owned())
    }

    /// A bit for each tag; if all others are set, also a text that is none.
    fn tags(&mut self) -> Option<Vec<String>> {
        let bits = self.byte()?;
        let none = (bits >= 0xe0).then(|| pick(&NO_TAGS, bits));
        Some(chosen(&TAGS, bits).chain(none).map(str::to_owned).collect())
    }

    fn paths(&mut self) -> Option<Vec<String>> {
        let bits = self.byte()?;
        Some(chosen(&PATHS, bits).map(str::to_owned).collect())
    }

    /// A bit for each path, and then a byte for each file: how large it is, and what is in it.
    fn files(&mut self) -> Option<Vec<(String, Vec<u8>)>> {
        let paths = self.paths()?;
        let file = |path| {
            let byte = self.byte()?;
            Some((path, Chance::new((byte >> 3).into()).bytes(pick(&FILE_BYTES, byte))))
        };
        paths.into_iter().map(file).collect()
    }
}

fn no_image() -> ImageId {
    match NO_IMAGE.parse() {
        Ok(ImageRef::Id(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn pick<T: Copy>(all: &[T], byte: u8) -> T {
    all[usize::from(byte) % all.len()]
}

fn chosen<'t>(all: &'t [&'t str], bits: u8) -> impl Iterator<Item = &'t str> {
    all.iter().enumerate().filter(move |(place, _)| bits >> place & 1 == 1).map(|(_, text)| *text)
}
