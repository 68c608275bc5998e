//! The tree against a `BTreeMap`: the same root whatever the way there, and the cost of the way.

mod cost;
mod damage;
pub(crate) mod given;
mod golden;

use std::collections::BTreeMap;

use given::{Map, entry, path};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::object::memory::MemoryObjects;

fn list(objects: &MemoryObjects, root: &Root) -> Map {
    iter(objects, root).unwrap().map(Result::unwrap).collect()
}

fn build_map(objects: &MemoryObjects, map: &Map) -> Root {
    build(&mut &*objects, map.clone()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_and_batching_gives_the_root_of_the_map(batches in vec(given::changes(0..120), 1..8)) {
        let objects = MemoryObjects::default();
        let mut map = Map::new();
        let mut root = empty(&mut &objects).unwrap();
        for batch in batches {
            for (path, entry) in &batch {
                match entry {
                    Some(entry) => map.insert(path.clone(), entry.clone()),
                    None => map.remove(path),
                };
            }
            root = edit(&&objects, &mut &objects, &root, batch).unwrap();
            prop_assert_eq!(root, build_map(&objects, &map));
            prop_assert_eq!(Root::open(&&objects, root.id).unwrap(), root);
            prop_assert_eq!(root.entries(), map.len() as u64);
            prop_assert_eq!(root.bytes(), map.values().map(Entry::file_bytes).sum::<u64>());
        }
        prop_assert_eq!(list(&objects, &root), map);
    }

    #[test]
    fn one_by_one_gives_the_root_of_the_map(map in given::map(0..200)) {
        let objects = MemoryObjects::default();
        let mut root = empty(&mut &objects).unwrap();
        // Backwards, so that each edit comes before all that is there.
        for (path, entry) in map.iter().rev() {
            root = edit(&&objects, &mut &objects, &root, [(path.clone(), Some(entry.clone()))]).unwrap();
        }
        prop_assert_eq!(root, build_map(&objects, &map));
        for path in map.keys() {
            root = edit(&&objects, &mut &objects, &root, [(path.clone(), None)]).unwrap();
        }
        prop_assert_eq!(root, empty(&mut &objects).unwrap());
    }

    #[test]
    fn reading_agrees_with_the_map(map in given::map(0..400), probes in vec(given::any_path(), 1..20)) {
        let objects = MemoryObjects::default();
        let root = build_map(&objects, &map);
        let mut moving = iter(&objects, &root).unwrap();
        for probe in probes {
            prop_assert_eq!(get(&&objects, &root, &probe).unwrap(), map.get(&probe).cloned());
            prop_assert_eq!(moving.find(&probe).unwrap(), map.get(&probe).cloned());

            let from: Vec<_> = range(&objects, &root, &probe).unwrap().map(Result::unwrap).collect();
            let expected: Vec<_> = map.range(probe.clone()..).map(|(p, e)| (p.clone(), e.clone())).collect();
            prop_assert_eq!(from, expected);

            let below: Map = subtree(&objects, &root, &probe).unwrap().map(Result::unwrap).collect();
            let mut expected = map.clone();
            expected.retain(|path, _| path.starts_with(&probe));
            prop_assert_eq!(&below, &expected);
            let totals = (expected.len() as u64, expected.values().map(Entry::file_bytes).sum());
            prop_assert_eq!(summary(&&objects, &root, &probe).unwrap(), totals);

            let direct: Map = children(&objects, &root, &probe).unwrap().map(Result::unwrap).collect();
            expected.retain(|path, _| path.parent().as_ref() == Some(&probe));
            prop_assert_eq!(direct, expected);
        }
    }

    #[test]
    fn diff_is_what_differs(a in given::map(0..300), batch in given::changes(0..40)) {
        let objects = MemoryObjects::default();
        let mut b = a.clone();
        for (path, entry) in &batch {
            match entry {
                Some(entry) => b.insert(path.clone(), entry.clone()),
                None => b.remove(path),
            };
        }
        let (root_a, root_b) = (build_map(&objects, &a), build_map(&objects, &b));
        let mut expected = BTreeMap::new();
        for path in a.keys().chain(b.keys()) {
            if a.get(path) != b.get(path) {
                let (before, after) = (a.get(path).cloned(), b.get(path).cloned());
                expected.insert(path.clone(), Change { path: path.clone(), before, after });
            }
        }
        let found: Vec<_> = diff(&objects, &root_a, &root_b).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(found, expected.into_values().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_tall_tree_edits_to_the_root_of_the_map(
        batches in vec((0..4000_usize, 1..1500_usize, 1..40_usize, any::<bool>()), 1..6),
    ) {
        let objects = MemoryObjects::default();
        let all: Vec<_> = given::wide(5000).into_iter().collect();
        let mut map: Map = all.iter().step_by(2).cloned().collect();
        let mut root = build_map(&objects, &map);
        prop_assert!(root.height() >= 2);
        for (from, count, step, remove) in batches {
            let touched = all.iter().skip(from).step_by(step).take(count).cloned();
            let changes: Vec<_> = touched.map(|(path, entry)| (path, Some(entry).filter(|_| !remove))).collect();
            for (path, entry) in &changes {
                match entry {
                    Some(entry) => map.insert(path.clone(), entry.clone()),
                    None => map.remove(path),
                };
            }
            let before = root;
            root = edit(&&objects, &mut &objects, &root, changes).unwrap();
            prop_assert_eq!(root, build_map(&objects, &map));
            let back = diff(&objects, &root, &before).unwrap().map(Result::unwrap);
            let back: Vec<_> = back.map(|change| (change.path, change.after)).collect();
            prop_assert_eq!(edit(&&objects, &mut &objects, &root, back).unwrap(), before);
        }
    }
}

#[test]
fn a_big_tree_is_built_and_read_quickly() {
    let objects = MemoryObjects::default();
    let map = given::wide(100_000);
    let root = build_map(&objects, &map);
    assert_eq!(root.entries(), 100_000);
    assert!(root.height() < 8, "{}", root.height());
    assert!(iter(&objects, &root).unwrap().map(Result::unwrap).eq(map));
}

#[test]
fn paths_must_ascend() {
    let objects = MemoryObjects::default();
    let twice = [(path("a"), entry(1)), (path("a"), entry(2))];
    let error = build(&mut &objects, twice).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Invalid);
    let back = [(path("b"), entry(1)), (path("a"), entry(2))];
    assert_eq!(build(&mut &objects, back).unwrap_err().kind(), crate::ErrorKind::Invalid);
}

#[test]
fn no_change_stores_nothing() {
    let objects = MemoryObjects::default();
    let map = given::wide(1000);
    let root = build_map(&objects, &map);
    objects.take_counts();
    let (same, there) = map.iter().nth(500).unwrap();
    let changes = [(same.clone(), Some(there.clone())), (path("zz/absent"), None)];
    assert_eq!(edit(&&objects, &mut &objects, &root, changes).unwrap(), root);
    assert_eq!(edit(&&objects, &mut &objects, &root, []).unwrap(), root);
    assert_eq!(objects.take_counts().1, 0);
    let empty_root = empty(&mut &objects).unwrap();
    assert_eq!(edit(&&objects, &mut &objects, &empty_root, [(path("a"), None)]).unwrap(), empty_root);
}
