//! The algebra's laws over generated trees, and against a naive model of files with names.

mod changeset;
mod given;
mod merge;

use given::{Model, delta_changes, dir, dirs, large, op};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::id::ObjectId;
use crate::object::memory::MemoryObjects;
use crate::object::{ObjectKind, ObjectSource};
use crate::tree::tests::given::{entry, hex, path};
use crate::tree::{self, Entry, Root, group};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn applying_the_difference_gives_the_other(first in vec(op(), 0..40), then in vec(op(), 0..12)) {
        let objects = MemoryObjects::default();
        let mut model = Model::default();
        model.run(&first);
        let a = model.store(&objects);
        model.run(&then);
        let b = model.store(&objects);
        for (from, to) in [(a, b), (b, a)] {
            let delta = diff(&&objects, &from, &to).unwrap();
            prop_assert_eq!(apply(&&objects, &mut &objects, &from, &delta).unwrap(), to, "{:?}", delta);
            prop_assert_eq!(delta.is_empty(), from == to);
            prop_assert_eq!(&Delta::new(delta.changes().to_vec()).unwrap(), &delta, "it is normal");
        }
        prop_assert!(diff(&&objects, &a, &a).unwrap().is_empty());
    }

    #[test]
    fn unrelated_trees_have_a_difference(first in vec(op(), 0..40), other in vec(op(), 0..40)) {
        let objects = MemoryObjects::default();
        let [a, b] = [first, other].map(|ops| {
            let mut model = Model::default();
            model.run(&ops);
            model.store(&objects)
        });
        let delta = diff(&&objects, &a, &b).unwrap();
        prop_assert_eq!(apply(&&objects, &mut &objects, &a, &delta).unwrap(), b, "{:?}", delta);
        let nothing = tree::empty(&mut &objects).unwrap();
        let all = diff(&&objects, &nothing, &b).unwrap();
        prop_assert_eq!(apply(&&objects, &mut &objects, &nothing, &all).unwrap(), b);
        let none = diff(&&objects, &b, &nothing).unwrap();
        prop_assert_eq!(apply(&&objects, &mut &objects, &b, &none).unwrap(), nothing);
    }

    #[test]
    fn any_delta_does_what_the_model_does(ops in vec(op(), 0..30), changes in delta_changes()) {
        let objects = MemoryObjects::default();
        let mut model = Model::default();
        model.run(&ops);
        let root = model.store(&objects);
        let Ok(delta) = Delta::new(changes) else { return Ok(()) };
        match (apply(&&objects, &mut &objects, &root, &delta), model.apply(&delta)) {
            (Ok(applied), Some(())) => prop_assert_eq!(applied, model.store(&objects)),
            (Err(error), None) => prop_assert_eq!(error.kind(), ErrorKind::Invalid),
            (applied, expected) => prop_assert!(false, "{:?}, but the model {:?}", applied, expected),
        }
    }
}

proptest! {
    #[test]
    fn reading_any_record_never_panics(bytes in vec(any::<u8>(), 0..200), at in 0..120_usize, byte: u8) {
        let objects = MemoryObjects::default();
        let id = record(None, 0).write(&mut &objects).unwrap();
        let mut changed = objects.get(&id).unwrap().to_vec();
        if let Some(place) = changed.get_mut(at) {
            *place = byte;
        }
        for bytes in [bytes, changed] {
            objects.replace(id, bytes);
            if let Err(error) = LayerRecord::read(&&objects, id) {
                prop_assert!(error.is_corrupt());
            }
        }
    }
}

fn link(to: &str) -> Entry {
    Entry::HardLink(path(to))
}

fn put(at: &str, entry: Entry) -> DeltaChange {
    DeltaChange::Put(path(at), entry)
}

/// A tree of directories `d` and `e`, the file `f`, and a group of three paths.
fn with_group(objects: &MemoryObjects, members: [&str; 3]) -> Root {
    let file = entry(1).as_inode().unwrap().clone();
    let mut entries = dirs(&["", "d", "e"]);
    entries.push((path("f"), entry(2)));
    entries.extend(group::entries(&mut &*objects, file, members.map(path).into()).unwrap());
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    tree::build(&mut &*objects, entries).unwrap()
}

#[test]
fn a_delta_of_a_group_says_only_what_changed() {
    let objects = MemoryObjects::default();
    let root = with_group(&objects, ["d/1", "d/2", "e/3"]);
    let delta = |changes| {
        let delta = Delta::new(changes).unwrap();
        let changed = apply(&&objects, &mut &objects, &root, &delta).unwrap();
        (delta, changed)
    };
    // The first of the group goes: the second takes its place.
    let (gone, changed) = delta(vec![DeltaChange::Whiteout(path("d/1"))]);
    assert_eq!(diff(&&objects, &root, &changed).unwrap(), gone);
    let (least, inode) = group::resolve(&&objects, &changed, &path("e/3")).unwrap().unwrap();
    assert_eq!((least, group::unlinked(&inode)), (path("d/2"), entry(1).as_inode().unwrap().clone()));
    // A name more, before all others.
    let (more, changed) = delta(vec![put("a", link("d/1"))]);
    assert_eq!(diff(&&objects, &root, &changed).unwrap(), more);
    assert_eq!(group::resolve(&&objects, &changed, &path("d/2")).unwrap().unwrap().0, path("a"));
    // One name becomes a file of its own, with the very same content.
    let (apart, changed) = delta(vec![put("d/1", entry(1))]);
    assert_eq!(tree::get(&&objects, &changed, &path("d/1")).unwrap(), Some(entry(1)));
    assert_eq!(apply(&&objects, &mut &objects, &root, &apart).unwrap(), changed);
    // The directory of most goes.
    let (most, changed) = delta(vec![DeltaChange::Whiteout(path("d"))]);
    assert_eq!(diff(&&objects, &root, &changed).unwrap(), most);
    assert_eq!(tree::get(&&objects, &changed, &path("e/3")).unwrap(), Some(entry(1)));
    // New content is put at every name.
    let (all, changed) = delta(vec![put("d/1", entry(7)), put("d/2", link("d/1")), put("e/3", link("d/1"))]);
    assert_eq!(diff(&&objects, &root, &changed).unwrap(), all);
}

#[test]
fn what_cannot_be_is_invalid() {
    let objects = MemoryObjects::default();
    let root = with_group(&objects, ["d/1", "d/2", "e/3"]);
    let gone = || DeltaChange::Whiteout(path("d"));
    for (at, changes) in [
        ("f/x", vec![put("f/x", entry(1))]),
        ("x/y", vec![put("x/y", entry(1))]),
        ("d/x", vec![gone(), put("d/x", entry(1))]),
        ("x", vec![put("x", link("nowhere"))]),
        ("x", vec![put("x", link("d"))]),
        ("x", vec![gone(), put("x", link("d/1"))]),
        ("x", vec![put("x", link("f")), put("f", dir())]),
        ("a", vec![put("a", link("x")), put("x", link("f"))]),
        ("a", vec![put("a", link("a"))]),
        ("f/x", vec![put("f", entry(1)), put("f/x", entry(1))]),
        ("f/x", vec![put("f", link("d/1")), put("f/x", dir())]),
        ("f", vec![put("f", entry(1)), put("f", entry(2))]),
        ("d", vec![gone(), gone()]),
        ("", vec![put("", entry(1))]),
    ] {
        let applied =
            Delta::new(changes.clone()).and_then(|delta| apply(&&objects, &mut &objects, &root, &delta));
        let error = applied.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{changes:?}");
        assert!(error.subject() == &crate::Subject::Path(path(at)) || at == "x", "{changes:?}: {error}");
    }
}

#[test]
fn normal_form_drops_what_another_change_does() {
    let white = |at: &str| DeltaChange::Whiteout(path(at));
    let changes =
        vec![put("b", entry(1)), white("b/c"), white("a/b"), white("b"), white("a"), put("a", dir())];
    let delta = Delta::new(changes).unwrap();
    assert_eq!(delta.changes(), [white("a"), put("a", dir()), put("b", entry(1))]);
    assert_eq!(delta.put_at(&path("b")), Some(&entry(1)));
    assert_eq!(delta.put_at(&path("a/b")), None);
}

#[test]
fn the_cost_follows_the_delta() {
    let objects = MemoryObjects::default();
    let root = large(&objects);
    let changes =
        [put("usr/7/new", entry(1)), put("usr/99/5", entry(9)), DeltaChange::Whiteout(path("usr/150/1"))];
    let delta = Delta::new(changes.into()).unwrap();
    objects.take_counts();
    let changed = apply(&&objects, &mut &objects, &root, &delta).unwrap();
    let (reads, puts) = objects.take_counts();
    assert!(reads < 60 && puts < 15, "{reads} reads, {puts} puts");
    assert_eq!(diff(&&objects, &root, &changed).unwrap(), delta);
    assert!(objects.take_counts().0 < 30);
}

fn record(previous: Option<ObjectId>, number: u64) -> LayerRecord {
    LayerRecord {
        previous,
        root: ObjectId::from_bytes([7; 32]),
        created_ms: 1_700_000_000_000 + number,
        created_by: "commit".to_owned(),
        comment: "größer".to_owned(),
        added: 1,
        modified: 2,
        removed: 300,
        changed_bytes: 70_000,
        diff_id: Some([9; 32]),
    }
}

#[test]
fn history_is_newest_first() {
    let objects = MemoryObjects::default();
    let mut last = None;
    for number in 0..5 {
        last = Some(record(last, number).write(&mut &objects).unwrap());
    }
    let found: Vec<_> = history(&objects, last.unwrap()).map(Result::unwrap).collect();
    assert_eq!(found.first().map(|(id, _)| *id), last);
    assert!(found.iter().map(|(_, record)| record.created_ms - 1_700_000_000_000).eq([4, 3, 2, 1, 0]));
    assert_eq!(found[0].1, record(Some(found[1].0), 4));
}

#[test]
fn a_history_that_does_not_end_or_decode_is_corrupt() {
    let objects = MemoryObjects::default();
    let id = ObjectId::from_bytes([1; 32]);
    let circle = record(Some(id), 0).write(&mut &objects).unwrap();
    objects.replace(id, objects.get(&circle).unwrap().to_vec());
    let mut short = history(&objects, id);
    short.left = 10;
    let steps: Vec<_> = short.collect();
    assert_eq!(steps.len(), 11);
    assert!(steps[10].as_ref().unwrap_err().is_corrupt());

    let mut bytes = objects.get(&circle).unwrap().to_vec();
    bytes.push(0);
    objects.replace(id, bytes);
    assert!(LayerRecord::read(&&objects, id).unwrap_err().is_corrupt());
    let long = LayerRecord { comment: "x".repeat(2 << 20), ..record(None, 0) };
    assert_eq!(long.write(&mut &objects).unwrap_err().kind(), ErrorKind::Invalid);
}

/// The format's bytes. A change here is a change of the format version.
#[test]
fn bytes_are_pinned() {
    let objects = MemoryObjects::default();
    let id = record(Some(ObjectId::from_bytes([5; 32])), 0).write(&mut &objects).unwrap();
    let bytes = objects.get(&id).unwrap();
    let rest = "fd0068e5cf8b01000006636f6d6d6974086772c3b6c39f65720102fb2c01fc70110100";
    let (five, seven, nine) = ("05".repeat(32), "07".repeat(32), "09".repeat(32));
    assert_eq!(hex(&bytes), format!("01{five}{seven}{rest}01{nine}"));
    assert_eq!(ObjectKind::Layer.id_of(&bytes), id);
    let first = record(None, 0).write(&mut &objects).unwrap();
    assert_eq!(first.to_string(), "2c42821a377e938fd31f914104a345f0e1a4f148dc355f94cca2a821d4d82a97");
}
