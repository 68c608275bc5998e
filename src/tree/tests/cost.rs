//! What reading and editing cost, with ordinary names and with names chosen to hurt.

use super::super::node::Node;
use super::super::shape;
use super::given::{Map, entry, path, wide};
use super::*;
use crate::path::TreePath;

/// Leaves and branches of a tree, found by walking it, with each node's items.
fn node_sizes(objects: &MemoryObjects, root: &Root) -> Vec<(u8, usize)> {
    let mut sizes = Vec::new();
    let mut todo = vec![root.id];
    while let Some(id) = todo.pop() {
        match Node::read(&objects, id).unwrap() {
            Node::Leaf(items) => sizes.push((0, items.len())),
            Node::Branch(level, children) => {
                sizes.push((level, children.len()));
                todo.extend(children.iter().map(|(_, child)| child.id));
            }
        }
    }
    sizes
}

#[test]
fn scattered_edits_touch_few_nodes() {
    let objects = MemoryObjects::default();
    let mut map = wide(20_000);
    let root = build_map(&objects, &map);
    let nodes = node_sizes(&objects, &root).len();
    objects.take_counts();

    let changed: Vec<_> = map.keys().step_by(800).cloned().collect();
    assert_eq!(changed.len(), 25);
    let changes = changed.iter().map(|path| (path.clone(), Some(entry(7_000_000))));
    let edited = edit(&&objects, &mut &objects, &root, changes).unwrap();
    let (reads, puts) = objects.take_counts();
    assert!(puts <= 25 + 25 + 4, "{puts} of {nodes} nodes stored");
    assert!(reads <= 25 * 6, "{reads} of {nodes} nodes read");

    let found = diff(&objects, &root, &edited).unwrap().map(|change| change.unwrap().path);
    assert!(found.eq(changed.iter().cloned()));
    let (reads, _) = objects.take_counts();
    assert!(reads <= 2 * puts, "{reads} nodes read for a difference of {puts}");

    map.extend(changed.into_iter().map(|path| (path, entry(7_000_000))));
    assert_eq!(edited, build_map(&objects, &map));
}

#[test]
fn a_diff_of_a_grown_tree_reads_what_is_new() {
    let objects = MemoryObjects::default();
    let map = wide(20_000);
    let root = build_map(&objects, &map);
    let before = objects.len();
    // In front, behind and enough to make the tree taller.
    let mut more: Vec<_> = (0..9000).map(|i| (path(&format!("a/{i}")), Some(entry(i)))).collect();
    more.push((path("zz"), Some(entry(1))));
    more.sort_by(|(a, _), (b, _)| a.cmp(b));
    let grown = edit(&&objects, &mut &objects, &root, more.clone()).unwrap();
    let new = objects.len() - before;
    objects.take_counts();
    assert_eq!(diff(&objects, &root, &grown).unwrap().count(), more.len());
    let (reads, _) = objects.take_counts();
    assert!(reads <= new + 20, "{reads} read, {new} new");
}

#[test]
fn a_diff_finds_a_whole_tree_inside_a_taller_one() {
    let objects = MemoryObjects::default();
    let all = wide(20_000);
    // Up to a key that begins a node on two levels, so that the small tree is one node of the big one.
    let begins_two = |path: &&TreePath| (0..2).all(|level| shape::is_boundary(shape::priority(path, level)));
    let end = all.keys().skip(100).find(begins_two).unwrap();
    let small: Map = all.range(..end).map(|(path, entry)| (path.clone(), entry.clone())).collect();
    let root = build_map(&objects, &small);
    let before = objects.len();
    let big = build_map(&objects, &all);
    let new = objects.len() - before;
    assert!(big.height() > root.height() && small.len() > 300, "{} entries", small.len());
    objects.take_counts();
    assert_eq!(diff(&objects, &root, &big).unwrap().count(), all.len() - small.len());
    let (reads, _) = objects.take_counts();
    assert!(reads <= new + 1, "{reads} read, {new} new");
}

#[test]
fn looking_costs_the_height() {
    let objects = MemoryObjects::default();
    let map = wide(20_000);
    let root = build_map(&objects, &map);
    let levels = usize::from(root.height()) + 1;
    objects.take_counts();
    assert_eq!(get(&&objects, &root, &path("usr/77/file-7700")).unwrap(), Some(entry(7700)));
    assert!(objects.take_counts().0 <= levels);

    let (entries, _) = summary(&&objects, &root, &path("usr")).unwrap();
    assert_eq!(entries, 20_000);
    assert!(objects.take_counts().0 <= 2 * levels);

    // 200 directories that are not stored themselves, jumped over: not the 20,000 below them.
    let extra = (0..200).map(|i| (path(&format!("usr/{i}")), Some(entry(i))));
    let mut extra: Vec<_> = extra.collect();
    extra.sort_by(|(a, _), (b, _)| a.cmp(b));
    let root = edit(&&objects, &mut &objects, &root, extra).unwrap();
    objects.take_counts();
    assert_eq!(children(&objects, &root, &path("usr")).unwrap().count(), 200);
    let (reads, _) = objects.take_counts();
    assert!(reads <= 300, "{reads} nodes read for 200 children");
}

/// Names whose ranks on the lowest level ascend with them: each split cuts one item off.
fn ascending(count: u64) -> Map {
    let floor = u64::MAX / 16;
    let step = (u64::MAX - floor) / count;
    let mined = |i: u64| {
        let wanted = floor + i * step..floor + (i + 1) * step;
        let mut names = (0_u64..).map(|n| path(&format!("{i:08}-{n:x}")));
        names.find(|path| wanted.contains(&shape::priority(path, 0))).unwrap()
    };
    (0..count).map(|i| (mined(i), entry(i))).collect()
}

/// Names that are no boundary on the lowest level.
fn boundless(count: usize) -> Map {
    let names = (0_u64..).map(|n| path(&format!("name-{n:08}")));
    let names = names.filter(|path| !shape::is_boundary(shape::priority(path, 0)));
    names.take(count).zip((0..).map(entry)).collect()
}

/// Names that are boundaries on the lowest level, all of them.
fn all_boundaries(count: usize) -> Map {
    let names = (0_u64..).map(|n| path(&format!("name-{n:08}")));
    let names = names.filter(|path| shape::is_boundary(shape::priority(path, 0)));
    names.take(count).zip((0..).map(entry)).collect()
}

#[test]
fn mined_names_make_edits_no_dearer() {
    for (what, map) in [
        ("ascending", ascending(1500)),
        ("boundless", boundless(10_000)),
        ("boundaries", all_boundaries(3000)),
    ] {
        let objects = MemoryObjects::default();
        let root = build_map(&objects, &map);
        assert!(root.height() <= 6, "{what}: height {}", root.height());
        for (level, items) in node_sizes(&objects, &root) {
            assert!(items <= shape::MAX_ITEMS, "{what}: {items} items on level {level}");
        }
        for at in [0, map.len() / 3, map.len() / 2, map.len() - 1] {
            let (middle, _) = map.iter().nth(at).unwrap();
            let beside = TreePath::from_key(&[middle.as_key(), b"+"].concat()).unwrap();
            let mut edited = map.clone();
            let mut expect_few = |changes: Vec<(TreePath, Option<Entry>)>| {
                for (path, entry) in &changes {
                    match entry {
                        Some(entry) => edited.insert(path.clone(), entry.clone()),
                        None => edited.remove(path),
                    };
                }
                objects.take_counts();
                let new = edit(&&objects, &mut &objects, &root, changes).unwrap();
                let (_, puts) = objects.take_counts();
                assert!(puts <= 3 * (usize::from(root.height()) + 1), "{what}: {puts} nodes stored");
                assert_eq!(new, build_map(&objects, &edited), "{what}");
                edited.clone_from(&map);
            };
            expect_few(vec![(middle.clone(), Some(entry(9_999_999)))]);
            expect_few(vec![(beside, Some(entry(1)))]);
            expect_few(vec![(middle.clone(), None)]);
        }
    }
}

#[test]
fn long_keys_are_capped_too() {
    let objects = MemoryObjects::default();
    let deep = "d".repeat(250);
    let prefix = [deep.as_str(); 15].join("/");
    let map: Map = (0..300).map(|i| (path(&format!("{prefix}/{i}")), entry(i))).collect();
    let root = build_map(&objects, &map);
    for (_, items) in node_sizes(&objects, &root) {
        assert!(items * 3700 <= shape::MAX_KEY_BYTES + 3700, "{items}");
    }
    assert_eq!(list(&objects, &root), map);
}
