//! Steps on a tree do what they do to a file system of names and inodes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::given::{Model, Op, name, op};
use crate::ErrorKind;
use crate::error::Result;
use crate::layer::{Changeset, apply};
use crate::object::memory::MemoryObjects;
use crate::path::TreePath;
use crate::tree::tests::given::{entry, inode, path};
use crate::tree::{self, InodeKind};

#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    Rename(TreePath, TreePath),
    Clear(TreePath),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => op().prop_map(Step::Op),
        2 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => name().prop_map(Step::Clear),
    ]
}

type Changes<'o> = Changeset<&'o MemoryObjects>;

fn is_directory(changes: &mut Changes<'_>, path: &TreePath) -> bool {
    changes.find(path).unwrap().is_some_and(|inode| inode.kind == InodeKind::Directory)
}

fn make_parents(changes: &mut Changes<'_>, path: &TreePath) {
    let Some(parent) = path.parent() else { return };
    if !is_directory(changes, &parent) {
        make_parents(changes, &parent);
        changes.put(&parent, inode(InodeKind::Directory)).unwrap();
    }
}

/// Takes the step on both, where it can be taken at all.
fn take(step: &Step, model: &mut Model, changes: &mut Changes<'_>) -> Result<()> {
    match step {
        Step::Op(op @ Op::Write(path, entry)) => {
            model.run(std::slice::from_ref(op));
            make_parents(changes, path);
            changes.put(path, entry.as_inode().unwrap().clone())
        }
        Step::Op(op @ Op::Link(nth, path)) => {
            let Some(target) = model.nth_file(*nth) else { return Ok(()) };
            if path.starts_with(&target) || target.starts_with(path) {
                return Ok(());
            }
            model.run(std::slice::from_ref(op));
            make_parents(changes, path);
            changes.link(path, &target)
        }
        Step::Op(op @ Op::Remove(path)) => {
            model.run(std::slice::from_ref(op));
            if changes.find(path)?.is_some() {
                return changes.remove(path);
            }
            assert_eq!(changes.remove(path).unwrap_err().kind(), ErrorKind::NotFound);
            Ok(())
        }
        Step::Op(op @ Op::Chmod(path, mode)) => {
            model.run(std::slice::from_ref(op));
            if changes.find(path)?.is_none() {
                return Ok(());
            }
            changes.change(path, |inode| inode.mode = *mode)
        }
        Step::Rename(from, to) => {
            let parent = to.parent().unwrap();
            let can = changes.find(from)?.is_some()
                && changes.find(to)?.is_none()
                && !to.starts_with(from)
                && is_directory(changes, &parent);
            assert_eq!(model.rename(from, to), can);
            let renamed = changes.rename(from, to);
            assert_eq!(renamed.is_ok(), can, "{renamed:?}");
            Ok(())
        }
        Step::Clear(path) => {
            let can = is_directory(changes, path);
            assert_eq!(model.clear(path), can);
            let cleared = changes.clear(path);
            assert_eq!(cleared.is_ok(), can, "{cleared:?}");
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn steps_do_what_they_do_to_the_model(first in vec(op(), 0..30), steps in vec(step(), 0..12)) {
        let objects = MemoryObjects::default();
        let mut model = Model::default();
        model.run(&first);
        let root = model.store(&objects);
        let mut changes = Changeset::new(&objects, &root).unwrap();
        for step in &steps {
            take(step, &mut model, &mut changes).unwrap();
        }
        let expected = model.store(&objects);
        for (path, inode) in model.inodes() {
            prop_assert_eq!(changes.find(&path).unwrap(), Some(inode), "{}", path);
        }
        let delta = changes.finish().unwrap();
        prop_assert_eq!(apply(&&objects, &mut &objects, &root, &delta).unwrap(), expected, "{:?}", delta);
    }
}

#[test]
fn a_put_of_what_is_there_parts_from_its_links() {
    let objects = MemoryObjects::default();
    let mut entries = super::given::dirs(&[""]);
    entries.push((path("b"), entry(1)));
    let root = tree::build(&mut &objects, entries).unwrap();
    let mut changes = Changeset::new(&objects, &root).unwrap();
    changes.put(&path("b"), entry(1).as_inode().unwrap().clone()).unwrap();
    assert!(changes.finish().unwrap().is_empty());
    let mut changes = Changeset::new(&objects, &root).unwrap();
    changes.link(&path("c"), &path("b")).unwrap();
    changes.put(&path("b"), entry(1).as_inode().unwrap().clone()).unwrap();
    let parted = apply(&&objects, &mut &objects, &root, &changes.finish().unwrap()).unwrap();
    assert_eq!(tree::get(&&objects, &parted, &path("c")).unwrap(), Some(entry(1)));
}

#[test]
fn a_few_steps_cost_what_they_touch() {
    let objects = MemoryObjects::default();
    let root = super::given::large(&objects);
    objects.take_counts();
    let mut changes = Changeset::new(&objects, &root).unwrap();
    changes.put(&path("usr/7/new"), entry(1).as_inode().unwrap().clone()).unwrap();
    changes.remove(&path("usr/99")).unwrap();
    changes.rename(&path("usr/150/1"), &path("usr/151/renamed")).unwrap();
    changes.change(&path("usr/12/3"), |inode| inode.uid = 7).unwrap();
    let delta = changes.finish().unwrap();
    assert!(objects.take_counts().0 < 40);
    assert_eq!(delta.changes().len(), 5);
}
