use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Data(Vec<u8>),
    Hole(u64),
}

impl From<Piece<'_>> for Owned {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Data(bytes) => Self::Data(bytes.to_vec()),
            Piece::Hole(len) => Self::Hole(len),
        }
    }
}

/// One part of an input: what it is made of and how it is fed.
#[derive(Clone, Debug)]
enum Feed {
    Noise { seed: u64, len: usize },
    Zeros { len: usize },
    Hole { len: usize },
}

/// Bytes that no chunker finds structure in; the same in every run.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn feed() -> impl Strategy<Value = Feed> {
    let block = BLOCK_BYTES;
    let len = prop_oneof![
        0..100_usize,
        Just(block),
        block - 1..block + 2,
        0..3 * block,
        Just(2 * block),
        0..6 * block
    ];
    prop_oneof![
        (any::<u64>(), len.clone()).prop_map(|(seed, len)| Feed::Noise { seed, len }),
        len.clone().prop_map(|len| Feed::Zeros { len }),
        len.prop_map(|len| Feed::Hole { len }),
    ]
}

fn stream(feeds: &[Feed], step: usize) -> Vec<Owned> {
    let mut splitter = Splitter::new();
    let mut found = Vec::new();
    for feed in feeds {
        let bytes = match feed {
            Feed::Noise { seed, len } => noise(*seed, *len),
            Feed::Zeros { len } => vec![0; *len],
            Feed::Hole { len } => {
                splitter.push_hole(*len as u64, |piece| keep(&mut found, piece)).unwrap();
                continue;
            }
        };
        for part in bytes.chunks(step) {
            splitter.push(part, |piece| keep(&mut found, piece)).unwrap();
            assert!(splitter.buffer.capacity() <= 1 << 20, "memory is bounded");
        }
    }
    splitter.finish(|piece| keep(&mut found, piece)).unwrap();
    found
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that the splitter wants")]
fn keep(found: &mut Vec<Owned>, piece: Piece<'_>) -> Result<(), Infallible> {
    found.push(piece.into());
    Ok(())
}

fn whole(feeds: &[Feed]) -> Vec<u8> {
    let part = |feed: &Feed| match feed {
        Feed::Noise { seed, len } => noise(*seed, *len),
        Feed::Zeros { len } | Feed::Hole { len } => vec![0; *len],
    };
    feeds.iter().flat_map(part).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_division_gives_the_same_pieces(
        feeds in proptest::collection::vec(feed(), 0..6),
        step in prop_oneof![1000..2000_usize, Just(BLOCK_BYTES), 1..400_000_usize],
    ) {
        let bytes = whole(&feeds);
        let expected: Vec<Owned> = pieces(&bytes).map(Owned::from).collect();
        prop_assert_eq!(&stream(&feeds, step.max(64)), &expected);

        let mut again = Vec::new();
        for piece in &expected {
            match piece {
                Owned::Data(data) => again.extend_from_slice(data),
                Owned::Hole(len) => again.resize(again.len() + usize::try_from(*len).unwrap(), 0),
            }
        }
        prop_assert!(again == bytes, "the pieces are the file");
    }

    #[test]
    fn holes_are_the_aligned_zero_blocks(blocks in proptest::collection::vec(any::<bool>(), 2..8), tail in 1..BLOCK_BYTES) {
        let mut bytes: Vec<u8> = blocks.iter().flat_map(|zero| vec![u8::from(!zero); BLOCK_BYTES]).collect();
        bytes.resize(bytes.len() + tail, 0);
        let holes: u64 = pieces(&bytes).map(|piece| if let Piece::Hole(len) = piece { len } else { 0 }).sum();
        let zeros = blocks.iter().filter(|zero| **zero).count() * BLOCK_BYTES + tail;
        prop_assert_eq!(holes, zeros as u64);
    }
}

#[test]
fn memory_is_bounded_whatever_the_division() {
    for step in [1025, 65_535, BLOCK_BYTES + 1, 300_000] {
        stream(&[Feed::Noise { seed: 3, len: 3 << 20 }], step);
    }
}

#[test]
fn a_hole_costs_nothing_per_byte() {
    let mut splitter = Splitter::new();
    let mut found = Vec::new();
    splitter.push(b"x", |piece| keep(&mut found, piece)).unwrap();
    splitter.push_hole(1 << 60, |piece| keep(&mut found, piece)).unwrap();
    splitter.finish(|piece| keep(&mut found, piece)).unwrap();
    let mut first = vec![0; BLOCK_BYTES];
    first[0] = b'x';
    assert_eq!(found, [Owned::Data(first), Owned::Hole((1 << 60) + 1 - BLOCK_BYTES as u64)]);
}

#[test]
fn small_files_are_one_piece_whatever_they_hold() {
    assert_eq!(pieces(&[]).count(), 0);
    let zeros = vec![0; BLOCK_BYTES];
    assert_eq!(pieces(&zeros).collect::<Vec<_>>(), [Piece::Data(&zeros)]);
    assert_eq!(stream(&[Feed::Hole { len: BLOCK_BYTES }], 1), [Owned::Data(zeros)]);
    assert_eq!(stream(&[Feed::Hole { len: BLOCK_BYTES + 1 }], 1), [Owned::Hole(BLOCK_BYTES as u64 + 1)]);
}

/// The cut points belong to the format: another version of the library must not move them.
#[test]
fn cut_points_are_pinned() {
    let lens: Vec<usize> = pieces(&noise(1, 1 << 20))
        .map(|piece| if let Piece::Data(data) = piece { data.len() } else { 0 })
        .collect();
    assert_eq!(
        lens,
        [76660, 159_933, 188_476, 66903, 40565, 71991, 79179, 82490, 17420, 84111, 66478, 114_370]
    );
}
