//! What merging, rebasing and squashing promise.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::given::{Model, Op, delta_changes, op};
use super::{link, put, with_group};
use crate::layer::{Delta, DeltaChange, Merged, apply, diff, merge, rebase, squash};
use crate::object::memory::MemoryObjects;
use crate::path::TreePath;
use crate::tree::tests::given::{entry, inode, path};
use crate::tree::{self, Entry, Inode, InodeKind, Root, Timestamp, group};

/// A tree, and the two that different steps make of it.
fn fork(objects: &MemoryObjects, first: &[Op], ours: &[Op], theirs: &[Op]) -> [Root; 3] {
    let mut base = Model::default();
    base.run(first);
    let side = |ops| {
        let mut side = base.clone();
        side.run(ops);
        side.store(objects)
    };
    [base.store(objects), side(ours), side(theirs)]
}

fn merged(objects: &MemoryObjects, [base, ours, theirs]: [Root; 3]) -> Merged {
    merge(&objects, &mut &*objects, &base, &ours, &theirs).unwrap()
}

/// Each path's inode, whatever other names it has.
fn inodes(objects: &MemoryObjects, root: &Root) -> BTreeMap<TreePath, Inode> {
    let paths = tree::iter(objects, root).unwrap().map(|entry| entry.unwrap().0);
    paths
        .map(|at| (at.clone(), group::unlinked(&group::resolve(&objects, root, &at).unwrap().unwrap().1)))
        .collect()
}

/// Of each path, those that are names of the same inode.
fn groups(objects: &MemoryObjects, root: &Root) -> BTreeMap<TreePath, TreePath> {
    let paths = tree::iter(objects, root).unwrap().map(|entry| entry.unwrap().0);
    paths.map(|at| (at.clone(), group::resolve(&objects, root, &at).unwrap().unwrap().0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn sides_are_equal_and_what_one_leaves_alone_is_as_on_the_other(
        first in vec(op(), 0..30),
        our_ops in vec(op(), 0..6),
        their_ops in vec(op(), 0..6),
    ) {
        let objects = MemoryObjects::default();
        let roots @ [base, ours, theirs] = fork(&objects, &first, &our_ops, &their_ops);
        let [there, back] = [[base, ours, theirs], [base, theirs, ours]].map(|roots| merged(&objects, roots));
        match (there, back) {
            (Merged::Clean(there), Merged::Clean(back)) => {
                prop_assert_eq!(there, back);
                let [base, ours, theirs] = roots.map(|root| inodes(&objects, &root));
                let found = inodes(&objects, &there);
                let paths: BTreeSet<_> = base.keys().chain(ours.keys()).chain(theirs.keys()).chain(found.keys()).collect();
                for path in paths {
                    let [base, ours, theirs, found] = [&base, &ours, &theirs, &found].map(|inodes| inodes.get(path));
                    if ours == base {
                        prop_assert_eq!(found, theirs, "{}", path);
                    }
                    if theirs == base {
                        prop_assert_eq!(found, ours, "{}", path);
                    }
                }
                // Names that were one inode's on one side, and that the other let be, still are.
                let [base, ours, theirs] = roots.map(|root| groups(&objects, &root));
                let found = groups(&objects, &there);
                let before = inodes(&objects, &roots[0]);
                for (one, other, untouched) in [(&ours, &theirs, roots[2]), (&theirs, &ours, roots[1])] {
                    let after = inodes(&objects, &untouched);
                    let is_untouched = |path: &TreePath| before.contains_key(path) && before.get(path) == after.get(path);
                    let same = |groups: &BTreeMap<TreePath, TreePath>, a, b| groups.get(a).is_some() && groups.get(a) == groups.get(b);
                    for (a, holder) in one {
                        for (b, _) in one.iter().filter(|(b, other)| *other == holder && a < *b) {
                            if is_untouched(a) && is_untouched(b) && same(&base, a, b) && same(other, a, b) {
                                prop_assert!(same(&found, a, b), "{} and {}", a, b);
                            }
                        }
                    }
                }
            }
            (Merged::Conflicting(there), Merged::Conflicting(back)) => {
                let paths = |conflicts: &[crate::layer::Conflict]| -> Vec<_> {
                    conflicts.iter().map(|conflict| conflict.path.clone()).collect()
                };
                prop_assert!(!there.is_empty());
                prop_assert_eq!(paths(&there), paths(&back));
                for conflict in there {
                    prop_assert!(conflict.ours != conflict.base || conflict.theirs != conflict.base, "{:?}", conflict);
                }
            }
            (there, back) => prop_assert!(false, "{:?}, the other way round {:?}", there, back),
        }
    }

    #[test]
    fn work_in_different_directories_never_conflicts(
        first in vec(op(), 0..30),
        our_ops in vec(op(), 0..10),
        their_ops in vec(op(), 0..10),
    ) {
        let objects = MemoryObjects::default();
        let prepare = [Op::Write(path("o/x"), entry(1)), Op::Write(path("t/x"), entry(1))];
        let first: Vec<_> = first.iter().cloned().chain(prepare).collect();
        let below = |ops: &[Op], directory: &str| -> Vec<_> { ops.iter().filter_map(|op| op.below(directory)).collect() };
        let (our_ops, their_ops) = (below(&our_ops, "o"), below(&their_ops, "t"));
        let roots = fork(&objects, &first, &our_ops, &their_ops);
        let [_, both, _] = fork(&objects, &first, &[our_ops, their_ops].concat(), &[]);
        prop_assert_eq!(merged(&objects, roots), Merged::Clean(both));
    }

    #[test]
    fn a_delta_on_its_own_base_is_applied_and_on_another_merged(
        first in vec(op(), 0..30),
        our_ops in vec(op(), 0..6),
        their_ops in vec(op(), 0..6),
    ) {
        let objects = MemoryObjects::default();
        let [base, ours, theirs] = fork(&objects, &first, &our_ops, &their_ops);
        let delta = diff(&&objects, &base, &theirs).unwrap();
        let onto = |root| rebase(&&objects, &mut &objects, &base, &delta, &root).unwrap();
        prop_assert_eq!(onto(base), Merged::Clean(theirs));
        prop_assert_eq!(onto(ours), merged(&objects, [base, ours, theirs]));
    }

    #[test]
    fn one_delta_does_what_several_do(
        ops in vec(op(), 0..30),
        changes in vec(delta_changes(), 0..4),
    ) {
        let objects = MemoryObjects::default();
        let mut model = Model::default();
        model.run(&ops);
        let base = model.store(&objects);
        let deltas: Vec<_> = changes.into_iter().filter_map(|changes| Delta::new(changes).ok()).collect();
        let in_turn = deltas.iter().try_fold(base, |root, delta| apply(&&objects, &mut &objects, &root, delta));
        let before = objects.len();
        match (in_turn, squash(&&objects, &base, &deltas)) {
            (Ok(in_turn), Ok(squashed)) => {
                prop_assert_eq!(objects.len(), before, "nothing is stored on the way");
                prop_assert_eq!(apply(&&objects, &mut &objects, &base, &squashed).unwrap(), in_turn);
            }
            (Err(one), Err(other)) => prop_assert_eq!(one.to_string(), other.to_string()),
            (one, other) => prop_assert!(false, "{:?}, but {:?}", one, other),
        }
    }
}

fn file(mode: u16, content: u64) -> Entry {
    let Entry::Inode(inode) = entry(content) else { unreachable!() };
    Entry::Inode(Inode { mode, ..inode })
}

fn at_time(entry: Entry, seconds: i64) -> Entry {
    let Entry::Inode(inode) = entry else { unreachable!() };
    Entry::Inode(Inode { mtime: Timestamp { seconds, nanos: 0 }, ..inode })
}

/// What comes of two deltas on one tree, and the paths in conflict.
fn both(
    objects: &MemoryObjects,
    base: &Root,
    ours: &[DeltaChange],
    theirs: &[DeltaChange],
) -> Result<Root, Vec<String>> {
    let side = |changes: &[DeltaChange]| {
        apply(&objects, &mut &*objects, base, &Delta::new(changes.to_vec()).unwrap()).unwrap()
    };
    match merged(objects, [*base, side(ours), side(theirs)]) {
        Merged::Clean(root) => Ok(root),
        Merged::Conflicting(conflicts) => {
            Err(conflicts.iter().map(|conflict| conflict.path.to_string()).collect())
        }
    }
}

#[test]
fn fields_of_an_inode_are_merged_one_by_one() {
    let objects = MemoryObjects::default();
    let root = with_group(&objects, ["d/1", "d/2", "e/3"]);
    let found = |ours, theirs| {
        let root = both(&objects, &root, &[put("f", ours)], &[put("f", theirs)])?;
        Ok::<_, Vec<String>>(tree::get(&&objects, &root, &path("f")).unwrap().unwrap())
    };
    let mode = entry(2).as_inode().unwrap().mode;
    assert_eq!(found(file(0o600, 2), file(mode, 9)), Ok(file(0o600, 9)));
    assert_eq!(
        found(at_time(file(mode, 9), 50), at_time(file(0o600, 2), 70)),
        Ok(at_time(file(0o600, 9), 70))
    );
    assert_eq!(found(file(0o600, 2), file(0o640, 2)), Err(vec!["/f".to_owned()]));
    assert_eq!(found(file(mode, 8), file(mode, 9)), Err(vec!["/f".to_owned()]));
}

#[test]
fn fields_of_different_kinds_are_not_mixed() {
    let objects = MemoryObjects::default();
    let root = with_group(&objects, ["d/1", "d/2", "e/3"]);
    let Entry::Inode(link) = Entry::Inode(inode(InodeKind::Symlink(b"x".as_slice().into()))) else {
        unreachable!()
    };
    let link = Entry::Inode(Inode { mode: 0o777, ..link });
    let found = both(&objects, &root, &[put("f", link)], &[put("f", file(0o600, 2))]);
    assert_eq!(found, Err(vec!["/f".to_owned()]));
}

#[test]
fn a_rebase_writes_all_that_its_tree_needs() {
    let objects = MemoryObjects::default();
    let base = with_group(&objects, ["d/1", "d/2", "e/3"]);
    let delta = Delta::new(vec![put("d/x", entry(5)), put("y", link("d/1"))]).unwrap();
    let Merged::Clean(onto_base) = rebase(&&objects, &mut &objects, &base, &delta, &base).unwrap() else {
        panic!("its own base")
    };
    // Nothing but the sink has it.
    assert_eq!(tree::get(&&objects, &onto_base, &path("d/x")).unwrap(), Some(entry(5)));
    assert_eq!(onto_base, apply(&&objects, &mut &objects, &base, &delta).unwrap());
}

#[test]
fn a_directory_s_time_is_no_obstacle() {
    let objects = MemoryObjects::default();
    let root = with_group(&objects, ["d/1", "d/2", "e/3"]);
    let directory = |seconds| put("d", at_time(Entry::Inode(inode(InodeKind::Directory)), seconds));
    let merged =
        both(&objects, &root, &[put("d/x", entry(5)), directory(70)], &[put("d/y", entry(6)), directory(60)]);
    let merged = merged.unwrap();
    assert_eq!(tree::get(&&objects, &merged, &path("d/x")).unwrap(), Some(entry(5)));
    assert_eq!(tree::get(&&objects, &merged, &path("d/y")).unwrap(), Some(entry(6)));
    let found = tree::get(&&objects, &merged, &path("d")).unwrap().unwrap();
    assert_eq!(found.as_inode().unwrap().mtime.seconds, 70);
    // What one empties, the other may remove; what one fills, not.
    let white = |at: &str| DeltaChange::Whiteout(path(at));
    let gone = both(&objects, &root, &[white("d/1"), directory(70)], &[white("d")]).unwrap();
    assert_eq!(tree::get(&&objects, &gone, &path("d")).unwrap(), None);
    let filled = both(&objects, &root, &[put("d/x", entry(5)), directory(70)], &[put("d", entry(3))]);
    assert_eq!(filled, Err(vec!["/d/x".to_owned()]));
}

#[test]
fn a_group_that_one_side_extends_must_be_left_alone_by_the_other() {
    let objects = MemoryObjects::default();
    let root = with_group(&objects, ["d/1", "d/2", "e/3"]);
    let white = |at: &str| DeltaChange::Whiteout(path(at));
    let more = [put("x", link("d/1"))];
    for other in [white("d/1"), white("d"), put("d/2", entry(9)), put("y", link("e/3"))] {
        assert!(both(&objects, &root, &more, std::slice::from_ref(&other)).is_err(), "{other:?}");
    }
    assert!(both(&objects, &root, &more, &more).is_ok());
    // Names that both take away do not contradict each other.
    let rest = both(&objects, &root, &[white("d/1")], &[white("d/2")]).unwrap();
    assert_eq!(tree::get(&&objects, &rest, &path("e/3")).unwrap(), Some(entry(1)));
    // One mode for the whole group, and another content: the names would no longer be one inode's.
    let all = |entry: Entry| [put("d/1", entry), put("d/2", link("d/1")), put("e/3", link("d/1"))];
    let mode = entry(1).as_inode().unwrap().mode;
    assert_eq!(
        both(&objects, &root, &all(file(0o600, 1)), &all(file(mode, 9))),
        Err(vec!["/d/1".to_owned()])
    );
}

#[test]
fn merging_costs_what_differs() {
    let objects = MemoryObjects::default();
    let base = super::given::large(&objects);
    let side = |at: &str| {
        apply(&&objects, &mut &objects, &base, &Delta::new(vec![put(at, entry(77))]).unwrap()).unwrap()
    };
    let roots = [base, side("usr/7/new"), side("usr/150/5")];
    objects.take_counts();
    let clean = merged(&objects, roots);
    let (reads, puts) = objects.take_counts();
    assert!(matches!(clean, Merged::Clean(_)) && reads < 80 && puts < 10, "{reads} reads, {puts} puts");
}
