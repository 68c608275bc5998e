use super::record::{OriginRecord, TagRecord};
use super::table::{Sequence, Tags, key_bytes};
use super::*;
use crate::disk::MemoryDisk;
use crate::id::{DirectoryId, ImageId, ProjectId};
use crate::layout::NEW_CATALOG_FILE;

fn open(disk: &MemoryDisk) -> Catalog {
    Catalog::create(disk).unwrap();
    Catalog::open(disk, Poison::default()).unwrap()
}

fn image(number: u128) -> ImageId {
    ImageId::from_uuid(uuid::Uuid::from_u128(number))
}

fn tag(name: &str) -> (ProjectId, crate::TagName) {
    (ProjectId::new(1), name.parse().unwrap())
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let disk = MemoryDisk::default();
    let record = TagRecord { image: image(5), set_ms: 9 };
    open(&disk).write(|tx| tx.put::<Tags>(&tag("a"), &record)).unwrap();
    assert_eq!(open(&disk).read(|tx| tx.get::<Tags>(&tag("a"))).unwrap(), Some(record));
    assert!(!disk.exists(NEW_CATALOG_FILE).unwrap());
}

#[test]
fn a_transaction_that_fails_leaves_nothing() {
    let disk = MemoryDisk::default();
    let catalog = open(&disk);
    let result = catalog.write(|tx| {
        tx.next(Sequence::Pack)?;
        Err::<(), _>(Error::invalid(Subject::Catalog, "no"))
    });
    assert!(result.is_err());
    assert_eq!(catalog.read(|tx| tx.last(Sequence::Pack)).unwrap(), 0);
}

#[test]
fn of_several_attempts_only_the_failed_one_leaves_nothing() {
    let disk = MemoryDisk::default();
    let catalog = open(&disk);
    let outcomes = catalog.write(|tx| {
        let mut attempt = |is_good: bool| {
            tx.attempt(|tx| {
                let number = tx.next(Sequence::Pack)?;
                tx.put::<Tags>(&tag(&number.to_string()), &TagRecord { image: image(1), set_ms: 0 })?;
                if is_good { Ok(number) } else { Err(Error::invalid(Subject::Catalog, "no")) }
            })
        };
        Ok([true, false, true].map(|is_good| attempt(is_good).ok()))
    });
    assert_eq!(outcomes.unwrap(), [Some(1), None, Some(2)]);
    assert_eq!(open(&disk).read(|tx| Ok(tx.collect::<Tags>(&[])?.len())).unwrap(), 2);
}

proptest::proptest! {
    /// An attempt sees what it changed over what was there, whatever it looks at and from which side.
    #[test]
    fn an_attempt_sees_its_own_changes(
        before in proptest::collection::btree_set(0_u64..20, 0..20),
        changes in proptest::collection::vec((0_u64..20, proptest::bool::ANY), 0..20),
        after in proptest::option::of(0_u64..20),
        limit in 1_usize..30,
    ) {
        let disk = MemoryDisk::default();
        let key = |number: u64| (DirectoryId::new(number / 10), number % 10);
        open(&disk).write(|tx| {
            before.iter().try_for_each(|number| tx.put::<Numbers>(&key(*number), number))?;
            tx.attempt(|tx| {
                let mut model: std::collections::BTreeMap<_, _> =
                    before.iter().map(|number| (key(*number), *number)).collect();
                for (number, is_put) in &changes {
                    if *is_put {
                        tx.put::<Numbers>(&key(*number), &(number + 100))?;
                        model.insert(key(*number), number + 100);
                    } else {
                        assert_eq!(tx.remove::<Numbers>(&key(*number))?, model.remove(&key(*number)).is_some());
                    }
                }
                let after = after.map(key);
                for number in 0..20 {
                    assert_eq!(tx.get::<Numbers>(&key(number))?, model.get(&key(number)).copied());
                }
                for (prefix, direction) in [(None, Direction::Ascending), (Some(1), Direction::Descending), (Some(0), Direction::Ascending)] {
                    let mut expected: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
                    expected.retain(|(key, _)| prefix.is_none_or(|prefix| key.0.get() == prefix));
                    if direction == Direction::Descending {
                        expected.reverse();
                        expected.retain(|(key, _)| after.is_none_or(|after| *key < after));
                    } else {
                        expected.retain(|(key, _)| after.is_none_or(|after| *key > after));
                    }
                    expected.truncate(limit);
                    let mut found = Vec::new();
                    let prefix = prefix.map(|prefix| key_bytes(&DirectoryId::new(prefix))).unwrap_or_default();
                    tx.scan::<Numbers>(&prefix, after.as_ref(), direction, |key, value| {
                        found.push((key, value));
                        let is_enough = found.len() >= limit;
                        Ok(if is_enough { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) })
                    })?;
                    assert_eq!(found, expected);
                }
                Ok(())
            })
        }).unwrap();
    }
}

/// A table for a model: it has the place of one that the store has.
struct Numbers;

impl super::table::Table for Numbers {
    const NAME: &'static str = "directories";
    type Key = (DirectoryId, u64);
    type Value = u64;
}

#[test]
fn scans_keep_to_their_prefix_and_direction() {
    let disk = MemoryDisk::default();
    let catalog = open(&disk);
    let record = TagRecord { image: image(1), set_ms: 0 };
    catalog
        .write(|tx| {
            for (project, name) in [(0, "z"), (1, "a"), (1, "b"), (1, "c"), (2, "a")] {
                tx.put::<Tags>(&(ProjectId::new(project), name.parse().unwrap()), &record)?;
            }
            Ok(())
        })
        .unwrap();
    let names = |after: Option<&str>, direction| {
        let after = after.map(tag);
        catalog
            .read(|tx| {
                let mut names = String::new();
                tx.scan::<Tags>(
                    &key_bytes(&ProjectId::new(1)),
                    after.as_ref(),
                    direction,
                    |(_, name), _| {
                        names.push_str(name.as_str());
                        Ok(std::ops::ControlFlow::Continue(()))
                    },
                )?;
                Ok(names)
            })
            .unwrap()
    };
    assert_eq!(names(None, Direction::Ascending), "abc");
    assert_eq!(names(None, Direction::Descending), "cba");
    assert_eq!(names(Some("b"), Direction::Ascending), "c");
    assert_eq!(names(Some("b"), Direction::Descending), "a");
}

#[test]
fn a_record_under_another_key_is_corrupt() {
    let bytes =
        crate::format::record::encode("tags", b"key", &TagRecord { image: image(1), set_ms: 2 }).unwrap();
    let decode =
        |table: &str, key: &[u8], bytes: &[u8]| crate::format::record::decode::<TagRecord>(table, key, bytes);
    assert!(decode("tags", b"key", &bytes).is_ok());
    assert!(decode("tags", b"kez", &bytes).is_err());
    assert!(decode("images", b"key", &bytes).is_err());
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 4;
        assert!(decode("tags", b"key", &damaged).is_err(), "byte {position}");
    }
}

#[test]
fn an_image_record_has_these_bytes() {
    let record = record::ImageRecord {
        id: image(1),
        owner: ProjectId::new(2),
        root: crate::id::ObjectId::from_bytes([3; 32]),
        layer: crate::id::ObjectId::from_bytes([4; 32]),
        parent: Some(image(5)),
        created_ms: 6,
        origin: OriginRecord::Tar([7; 32]),
        entries: 8,
        logical_bytes: 9,
        comment: "ten".into(),
    };
    let key = key_bytes(&(record.owner, record.id));
    let bytes = crate::format::record::encode("images", &key, &record).unwrap();
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "0ffa92249a54739eef06e67c097005fede9ef3f0610cc6e51f28955c9501a193"
    );
}
