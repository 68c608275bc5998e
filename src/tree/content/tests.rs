use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::*;

use super::builder::ChunkListBuilder;
use super::list::{ITEMS_MAX, ITEMS_MIN, Item, List};
use super::*;
use crate::chunk::tests::noise;
use crate::id::ObjectId;
use crate::object::memory::MemoryObjects;
use crate::object::{ObjectKind, ObjectSink};
use crate::tree::tests::given::hex;

fn read_back(objects: &MemoryObjects, content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    ContentReader::new(objects, content).into_stream().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Runs of noise and zeros, in the sizes where the form changes.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![0..70_usize, 65_530..65_545_usize, 0..300_000_usize, Just(131_072_usize)];
    vec((prop_oneof![Just(0), 1..9_u64], len), 0..5).prop_map(|runs| {
        runs.into_iter()
            .flat_map(|(seed, len)| if seed == 0 { vec![0; len] } else { noise(seed, len) })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_way_gives_the_same_content(bytes in bytes(), step in 1000..200_000_usize) {
        let objects = MemoryObjects::default();
        let content = write(&mut &objects, &bytes).unwrap();
        prop_assert_eq!(content.size, bytes.len() as u64);
        prop_assert!(read_back(&objects, &content) == bytes);

        let mut writer = ContentWriter::new(u64::MAX);
        for part in bytes.chunks(step) {
            if part.iter().all(|byte| *byte == 0) {
                writer.push_hole(&mut &objects, part.len() as u64).unwrap();
            } else {
                writer.push_bytes(&mut &objects, part).unwrap();
            }
        }
        prop_assert_eq!(&writer.finish(&mut &objects).unwrap(), &content);

        let mut builder = ChunkListBuilder::new();
        for piece in crate::chunk::pieces(&bytes) {
            match piece {
                crate::chunk::Piece::Hole(len) => builder.push_hole(len).unwrap(),
                crate::chunk::Piece::Data(data) => {
                    builder.push_chunk(&mut &objects, ObjectKind::Chunk.id_of(data), data.len()).unwrap();
                }
            }
        }
        if bytes.len() > INLINE_FILE_BYTES {
            prop_assert_eq!(&builder.finish(&mut &objects).unwrap(), &content);
        }
        let is_inline = matches!(content.body, Body::Inline(_));
        prop_assert_eq!(is_inline, bytes.len() <= INLINE_FILE_BYTES);
    }

    #[test]
    fn any_range_reads_as_the_bytes(bytes in bytes(), ranges in vec((0..700_000_usize, 0..200_000_usize), 1..6)) {
        let objects = MemoryObjects::default();
        let content = write(&mut &objects, &bytes).unwrap();
        let reader = ContentReader::new(&objects, &content);
        for (from, len) in ranges {
            let mut buffer = vec![7; len];
            let count = reader.read_at(from as u64, &mut buffer).unwrap();
            let expected = bytes.get(from..).unwrap_or_default();
            let expected = &expected[..expected.len().min(len)];
            prop_assert!(buffer[..count] == *expected);
        }
    }

    #[test]
    fn decoding_anything_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(list) = List::decode(&bytes) {
            prop_assert_eq!(List::encode(list.level, &list.items), bytes);
        }
    }
}

/// A content of so many chunks; their ids follow from `id`, none of them is stored.
fn long(objects: &MemoryObjects, count: u64, id: impl Fn(u64) -> ObjectId) -> Content {
    let mut builder = ChunkListBuilder::new();
    for number in 0..count {
        builder.push_chunk(&mut &*objects, id(number), 1000).unwrap();
    }
    builder.finish(&mut &*objects).unwrap()
}

fn numbered(number: u64) -> ObjectId {
    ObjectKind::Chunk.id_of(&number.to_le_bytes())
}

/// Checks every list's size; gives the chunks' ids and the number of lists.
fn walk(objects: &MemoryObjects, content: &Content) -> (Vec<ObjectId>, usize) {
    let Body::List(top) = content.body else { panic!("a list") };
    let mut todo = vec![(top, content.size, u8::MAX)];
    let (mut chunks, mut lists) = (Vec::new(), 0);
    while let Some((id, len, below)) = todo.pop() {
        let list = List::read(&objects, id, len, below).unwrap();
        lists += 1;
        assert!((2..=ITEMS_MAX).contains(&list.items.len()), "{}", list.items.len());
        if list.level == 0 {
            chunks.extend(list.items.iter().map(|item| item.id.unwrap()));
        } else {
            let below = list.items.iter().rev().map(|item| (item.id.unwrap(), item.len, list.level));
            todo.extend(below);
        }
    }
    (chunks, lists)
}

#[test]
fn lists_are_bounded_whatever_the_chunks() {
    let boundary = (0..10_000).map(numbered).find(|id| Item { len: 1, id: Some(*id) }.ends_list(0)).unwrap();
    let inner = (0..10_000).map(numbered).find(|id| !Item { len: 1, id: Some(*id) }.ends_list(0)).unwrap();
    let ends: Vec<_> = (1..4).chain([32, 33, 34, 511, 512, 513, 514, 1023, 5000, 40_000]).collect();
    for count in ends {
        for (what, id) in [
            ("ordinary", &numbered as &dyn Fn(u64) -> ObjectId),
            ("all boundaries", &|_| boundary),
            ("no boundary", &|_| inner),
        ] {
            let objects = MemoryObjects::default();
            let content = long(&objects, count, id);
            if count == 1 {
                assert_eq!(content.body, Body::Chunk(id(0)));
                continue;
            }
            let (chunks, lists) = walk(&objects, &content);
            assert!(chunks.into_iter().eq((0..count).map(id)), "{what} {count}");
            let most = 2 + 2 * usize::try_from(count).unwrap() / ITEMS_MIN;
            assert!(lists <= most, "{what} {count}: {lists} lists");
        }
    }
}

#[test]
fn a_change_in_a_long_file_shares_most_lists() {
    let objects = MemoryObjects::default();
    long(&objects, 40_000, numbered);
    let before = objects.len();
    assert!((40_000 / 200..40_000 / 80).contains(&before), "{before} lists");
    // One chunk put in at a third.
    long(&objects, 40_001, |number| match number {
        0..13_000 => numbered(number),
        13_000 => numbered(99_999_999),
        _ => numbered(number - 1),
    });
    assert!(objects.len() - before < 12, "{} new lists", objects.len() - before);
}

#[test]
fn random_access_reads_one_list_a_level() {
    let objects = MemoryObjects::default();
    let data = noise(1, 1000);
    let id = (&mut &objects).put(ObjectKind::Chunk, &data).unwrap();
    let content = long(&objects, 40_000, |_| id);
    let reader = ContentReader::new(&objects, &content);
    objects.take_counts();
    let mut buffer = [0; 10];
    assert_eq!(reader.read_at(31_234_995, &mut buffer).unwrap(), 10);
    assert_eq!((&buffer[..5], &buffer[5..]), (&data[995..], &data[..5]));
    let (reads, _) = objects.take_counts();
    assert!(reads <= 5, "{reads}");
    assert_eq!(reader.read_at(u64::MAX, &mut buffer).unwrap(), 0);
    assert_eq!(reader.read_at(40_000_000 - 3, &mut buffer).unwrap(), 3);
}

#[test]
fn huge_holes_cost_nothing() {
    let objects = MemoryObjects::default();
    let mut writer = ContentWriter::new(u64::MAX);
    writer.push_bytes(&mut &objects, b"x").unwrap();
    writer.push_hole(&mut &objects, MAX_CONTENT_BYTES - 2).unwrap();
    writer.push_bytes(&mut &objects, b"y").unwrap();
    let content = writer.finish(&mut &objects).unwrap();
    assert_eq!(content.size, MAX_CONTENT_BYTES);
    let mut last = [0; 2];
    assert_eq!(ContentReader::new(&objects, &content).read_at(MAX_CONTENT_BYTES - 2, &mut last).unwrap(), 2);
    assert_eq!(&last, b"\0y");

    for over in [MAX_CONTENT_BYTES, u64::MAX] {
        let mut writer = ContentWriter::new(u64::MAX);
        writer.push_bytes(&mut &objects, b"x").unwrap();
        writer.push_hole(&mut &objects, over).unwrap();
        writer.push_hole(&mut &objects, over).unwrap();
        assert_eq!(writer.finish(&mut &objects).unwrap_err().kind(), crate::ErrorKind::Invalid);
    }
}

#[test]
fn a_short_last_chunk_is_not_taken_for_a_small_file() {
    let objects = MemoryObjects::default();
    let bytes = [vec![0; 3 * crate::chunk::BLOCK_BYTES], noise(4, 10)].concat();
    let mut writer = ContentWriter::new(u64::MAX);
    writer.push_bytes(&mut &objects, &bytes).unwrap();
    let content = writer.finish(&mut &objects).unwrap();
    assert_eq!(content, write(&mut &objects, &bytes).unwrap());
    assert!(read_back(&objects, &content) == bytes);
}

#[test]
fn wrong_lengths_are_corrupt() {
    let objects = MemoryObjects::default();
    let bytes = noise(3, 500_000);
    let content = write(&mut &objects, &bytes).unwrap();
    let Body::List(top) = content.body else { panic!("a list") };
    let read_all = |content: &Content| {
        ContentReader::new(&objects, content).pieces().collect::<Result<Vec<_>>>().map(drop)
    };
    read_all(&content).unwrap();
    assert!(read_all(&Content { size: 499_999, ..content.clone() }).unwrap_err().is_corrupt());
    assert!(read_all(&Content { size: 9, body: Body::Chunk(top) }).unwrap_err().is_corrupt());

    let list = List::read(&&objects, top, 500_000, 1).unwrap();
    let first = list.items[0].id.unwrap();
    objects.replace(first, vec![1; 5]);
    assert_eq!(read_all(&content).unwrap_err().subject(), &crate::Subject::Object(first));
    // A list that names itself.
    let itself = Item { len: 250_000, id: Some(top) };
    objects.replace(top, List::encode(1, &[itself, itself]));
    assert!(read_all(&content).unwrap_err().is_corrupt());
    let mut buffer = [0; 9];
    assert!(ContentReader::new(&objects, &content).read_at(300_000, &mut buffer).unwrap_err().is_corrupt());
    objects.lose(&top);
    assert!(read_all(&content).unwrap_err().is_corrupt());
}

#[test]
fn blobs_of_absurd_size_are_refused() {
    let objects = MemoryObjects::default();
    let mut builder = ChunkListBuilder::new();
    builder.push_hole(1 << 40).unwrap();
    let content = builder.finish(&mut &objects).unwrap();
    assert!(read_blob(&&objects, &content).unwrap_err().is_corrupt());
}

/// The format's bytes and names. A change here is a change of the format version.
#[test]
fn bytes_are_pinned() {
    let items =
        [Item { len: 300, id: Some(ObjectId::from_bytes([0xab; 32])) }, Item { len: 1 << 20, id: None }];
    assert_eq!(hex(&List::encode(0, &items)), format!("000201ac02{}00808040", "ab".repeat(32)));

    let objects = MemoryObjects::default();
    let mut holed = noise(9, 400_000);
    holed[65_536..262_144].fill(0);
    let [small, one, many, holes] = [noise(9, 64), noise(9, 65), noise(9, 1 << 20), holed]
        .map(|bytes| write(&mut &objects, &bytes).unwrap().body);
    assert_eq!(small, Body::Inline(noise(9, 64).into()));
    let Body::Chunk(one) = one else { panic!("one chunk") };
    let (Body::List(many), Body::List(holes)) = (many, holes) else { panic!("lists") };
    let Body::List(tall) = long(&objects, 5000, numbered).body else { panic!("a list") };
    let expected = [
        "b2ce2c62d4dbae2f6f150222eb5d03158fd24098a5b5bd80bc2062ceb2b1fbd4",
        "f2adb32f07f74a5ea818ae2418ceb5e3b07a9ae397dc5db5c1bd5291ef44920b",
        "31adba993f45445092b4697fcb04405eb781a5352aa1e2770f58a3ed3c792f8e",
        "0a6e12df133ddc8ff9306fec6e2e0cacfa1f16f0943c90b8df8f1d19c1f51712",
    ];
    assert_eq!([one, many, holes, tall].map(|id| id.to_string()), expected);
}
