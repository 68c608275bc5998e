use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::disk::MemoryDisk;
use crate::layout::segment_file;

fn row(number: u64) -> (ObjectId, Locator) {
    let id = ObjectId::from_bytes(blake3::hash(&number.to_le_bytes()).into());
    let place = Locator {
        pack: PackId::new(u32::try_from(number / 900).unwrap()),
        offset: (1 << 40) + number / 30,
        frame_bytes: 9,
        slot: u16::try_from(number % 1000).unwrap(),
    };
    (id, place)
}

/// Ids that differ in their last byte only: all in one bucket.
fn chosen(byte: u8) -> ObjectId {
    let mut id = [255; 32];
    id[31] = byte;
    ObjectId::from_bytes(id)
}

fn segment(disk: &MemoryDisk, number: u32, rows: Vec<(ObjectId, Locator)>) -> Arc<Segment> {
    let id = SegmentId::new(number);
    write(disk, id, rows).unwrap();
    Arc::new(Segment::open(disk, id).unwrap())
}

fn find(segment: &Segment, id: &ObjectId) -> Option<Locator> {
    segment.find(id, |_| true).map(|(_, place)| place)
}

#[test]
fn present_and_absent() {
    let disk = MemoryDisk::default();
    for count in [0, 1, 2, 39, 40, 41, 1000, 20_000] {
        let open = segment(&disk, 3, (0..count).map(row).collect());
        open.check_body().unwrap();
        assert_eq!(open.len(), count);
        for number in 0..count {
            let (id, place) = row(number);
            assert_eq!(find(&open, &id), Some(place));
        }
        for number in count..count + 1000 {
            assert_eq!(find(&open, &row(number).0), None);
        }
        assert!(open.rows().map(|row| row.unwrap().0).is_sorted());
    }
}

#[test]
fn a_row_costs_at_most_41_bytes_and_few_absent_ids_pass_the_filter() {
    let disk = MemoryDisk::default();
    let open = segment(&disk, 1, (0..100_000).map(row).collect());
    assert!(open.bytes.len() <= 41 * 100_000, "{} bytes", open.bytes.len());
    let passes = |id: &ObjectId| {
        let (_, filter) = open.bucket(bucket_of(id, open.head.buckets)).unwrap();
        filter_bits(id).all(|(byte, bit)| filter[byte] & bit != 0)
    };
    let passed = (100_000..200_000).filter(|number| passes(&row(*number).0)).count();
    assert!(passed < 2_000, "{passed} of 100,000");
}

#[test]
fn a_segment_has_these_bytes() {
    let disk = MemoryDisk::default();
    let open = segment(&disk, 7, (0..100).map(row).collect());
    let hash = blake3::hash(&open.bytes).to_hex();
    assert_eq!(hash.as_str(), "9eaee8d3a9eca74886a210459a9773c322b9115ae91a3bf9bcb0739b99977779");
}

#[test]
fn a_damaged_or_short_segment_is_corrupt() {
    let disk = MemoryDisk::default();
    let damage = |offset: u64| {
        write(&disk, SegmentId::new(3), (0..10).map(row).collect()).unwrap();
        let file = disk.open(&segment_file(SegmentId::new(3)), OpenMode::Write).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, offset).unwrap();
        file.write_at(&[byte[0] ^ 1], offset).unwrap();
        Segment::open(&disk, SegmentId::new(3))
    };
    for offset in 0..HEAD_BYTES as u64 {
        assert!(damage(offset).unwrap_err().is_corrupt(), "byte {offset} of the head");
    }
    let frame = HEAD_BYTES + BUCKET_BYTES;
    for offset in [HEAD_BYTES, frame, frame + FRAME_BYTES, frame + FRAME_BYTES + 9 * ROW_BYTES] {
        assert!(damage(offset as u64).unwrap().check_body().unwrap_err().is_corrupt(), "byte {offset}");
        let damaged = [Arc::new(damage(offset as u64).unwrap())];
        assert!(merge(&disk, SegmentId::new(4), &damaged, |_| false).unwrap_err().is_corrupt());
    }
    write(&disk, SegmentId::new(3), (0..10).map(row).collect()).unwrap();
    disk.open(&segment_file(SegmentId::new(3)), OpenMode::Write).unwrap().set_len(400).unwrap();
    assert!(Segment::open(&disk, SegmentId::new(3)).unwrap_err().is_corrupt());
}

#[test]
fn segments_are_merged_by_size() {
    let due = |rows: &[u64]| {
        let numbered = rows.iter().zip(0..).map(|(rows, number)| (SegmentId::new(number), *rows));
        due_for_merge(numbered).map(|due| due.into_iter().map(SegmentId::get).collect::<Vec<_>>())
    };
    assert_eq!(due(&[]), None);
    assert_eq!(due(&[100, 100, 100]), None);
    assert_eq!(due(&[100, 100, 100, 100]), Some(vec![0, 1, 2, 3]));
    assert_eq!(due(&[100_000, 100, 100, 100, 3, 100]), Some(vec![4, 1, 2, 3, 5]), "the smaller one too");
    assert_eq!(due(&[100_000, 400, 100, 30, 8, 2]), None);
}

#[test]
fn a_growing_index_keeps_few_segments_and_writes_each_row_few_times() {
    let (mut segments, mut written) = (Vec::new(), 0);
    let added = 6_000;
    for number in 0..added {
        segments.push((SegmentId::new(number), 16_384_u64));
        while let Some(due) = due_for_merge(segments.iter().copied()) {
            let rows = segments.iter().filter(|(id, _)| due.contains(id)).map(|(_, rows)| rows).sum();
            segments.retain(|(id, _)| !due.contains(id));
            segments.push((SegmentId::new(added + written as u32), rows));
            written += rows;
        }
        assert!(segments.len() <= 21, "{} segments after {number}", segments.len());
    }
    assert!(written < 7 * 16_384 * u64::from(added), "each row was written {written} / {added} times");
}

proptest! {
    #[test]
    fn chosen_ids_are_found_too(mut bytes in prop::collection::btree_set(0_u8..=255, 1..60), absent: [u8; 32]) {
        let disk = MemoryDisk::default();
        bytes.remove(&77);
        let open = segment(&disk, 0, bytes.iter().map(|byte| (chosen(*byte), row(u64::from(*byte)).1)).collect());
        for byte in &bytes {
            prop_assert_eq!(find(&open, &chosen(*byte)), Some(row(u64::from(*byte)).1));
        }
        prop_assert_eq!(find(&open, &chosen(77)), None);
        prop_assert_eq!(find(&open, &ObjectId::from_bytes(absent)), None);
    }

    /// What a merge gives answers as its inputs do, one after the other, but for packs that are gone; and it has the rows of
    /// all packs that have an object.
    #[test]
    fn a_merged_segment_answers_as_its_parts(
        parts in prop::collection::vec(prop::collection::btree_set(0_u64..300, 0..150), 1..5),
        gone in prop::collection::btree_set(0_u32..5, 0..3),
    ) {
        let disk = MemoryDisk::default();
        let pack = |part: usize| PackId::new(u32::try_from(part).unwrap());
        let place = |part: usize, number| Locator { pack: pack(part), ..row(number).1 };
        let inputs: Vec<_> = parts.iter().enumerate().map(|(part, numbers)| {
            let rows = numbers.iter().map(|number| (row(*number).0, place(part, *number))).collect();
            segment(&disk, u32::try_from(part).unwrap(), rows)
        }).collect();
        let id = SegmentId::new(100);
        let is_there = |pack: PackId| !gone.contains(&pack.get());
        let rows = merge(&disk, id, &inputs, |pack| !is_there(pack)).unwrap();
        let merged = Segment::open(&disk, id).unwrap();
        merged.check_body().unwrap();
        prop_assert_eq!(merged.len(), rows);
        let left = parts.iter().enumerate().filter(|(part, _)| is_there(pack(*part)));
        prop_assert_eq!(rows, left.map(|(_, numbers)| numbers.len() as u64).sum::<u64>());
        prop_assert!(merged.frames().all(|frame| is_there(frame.pack)));
        for number in 0..300 {
            let id = row(number).0;
            let expected = inputs.iter().find_map(|input| input.find(&id, is_there).map(|(_, place)| place));
            prop_assert_eq!(find(&merged, &id), expected);
            // Each pack's own row is there.
            for (part, numbers) in parts.iter().enumerate().filter(|(part, _)| is_there(pack(*part))) {
                let found = merged.find(&id, |found| found == pack(part)).map(|(_, place)| place);
                prop_assert_eq!(found, numbers.contains(&number).then(|| place(part, number)));
            }
        }
    }
}
