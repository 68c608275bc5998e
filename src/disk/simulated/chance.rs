//! Numbers that look random and come from a seed.

/// A generator of 64 bits of state (splitmix64): good enough to choose with, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of several numbers together.
    #[must_use]
    pub fn of(numbers: &[u64]) -> Self {
        let mix = |Self(state): Self, number: &u64| Self(Self(state ^ number).next());
        numbers.iter().fold(Self(0), mix)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and is no sequence of items")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below this one; 0 below 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// A place in a list of this length; 0 in an empty one.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One or the other.
    pub fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of a list.
    pub fn pick<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        list.get(self.index(list.len()))
    }

    /// So many bytes that nothing compresses.
    #[must_use]
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // Many at once, by code that is optimised in every profile.
        blake3::Hasher::new().update(&self.next().to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }
}
