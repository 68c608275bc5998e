//! Changing a tree, level by level.
//!
//! On each level the changes are items put or removed by key. Every one touches a natural run (see
//! [`shape`]); the runs touched are read, merged with the changes and cut anew, and what came out differently
//! are the changes of the level above. A run whose first key is removed joins the one before it. Everything
//! else stays as it is, unread.
//!
//! An edit of k scattered paths among n reads and writes O(k log n) nodes. It reads whole natural runs, which
//! are 32 items on average and longer only where someone chose names for it; memory is one natural run
//! besides the changes of one level.

use std::collections::VecDeque;

use super::cursor::{Cursor, TOP};
use super::entry::Entry;
use super::node::{self, Item, Root};
use super::shape::{self, Weight};
use crate::error::{Error, Result, Subject};
use crate::id::ObjectId;
use crate::object::{ObjectBytes, ObjectKind, ObjectSink, ObjectSource};
use crate::path::TreePath;

/// Stores the tree without any path.
pub fn empty(sink: &mut impl ObjectSink) -> Result<Root> {
    build(sink, [])
}

/// Stores the tree of these entries, whose paths must ascend.
///
/// Memory is one level's nodes, not the entries. Fails with *invalid* if the paths do not ascend.
pub fn build(
    sink: &mut impl ObjectSink,
    entries: impl IntoIterator<Item = (TreePath, Entry)>,
) -> Result<Root> {
    let changes = entries.into_iter().map(|(path, entry)| (path, Some(entry)));
    rewrite(&mut Cursor::nowhere(Nothing), sink, None, changes)
}

/// The tree `root` with these changes: each path, in ascending order, gets an entry or loses its own. A path
/// that is removed takes nothing below it along, and removing one that is not there changes nothing.
///
/// Reads and writes only the nodes that the changes touch; the result depends on the resulting map alone.
/// Fails with *invalid* if the paths do not ascend.
pub fn edit(
    source: &impl ObjectSource,
    sink: &mut impl ObjectSink,
    root: &Root,
    changes: impl IntoIterator<Item = (TreePath, Option<Entry>)>,
) -> Result<Root> {
    rewrite(&mut Cursor::new(source, root)?, sink, Some(*root), changes.into_iter())
}

/// Where a tree that is built from nothing reads its old nodes.
struct Nothing;

impl ObjectSource for Nothing {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        Err(Error::corrupt(Subject::Object(*id), "is asked of a tree without nodes"))
    }
}

/// Applies `changes` to the tree `old` under `cursor`.
fn rewrite(
    cursor: &mut Cursor<impl ObjectSource>,
    sink: &mut impl ObjectSink,
    old: Option<Root>,
    changes: impl Iterator<Item = (TreePath, Option<Entry>)>,
) -> Result<Root> {
    let height = old.map_or(0, |root| root.height);
    let mut level = 0_u8;
    let mut outcome = rewrite_level(cursor, sink, level, changes)?;
    loop {
        if outcome.changes.is_empty()
            && let Some(old) = old
        {
            return Ok(old);
        }
        // From the old root's height on, a level has one old node at most, so all of it was rewritten.
        if level >= height && outcome.nodes < 2 {
            return outcome.last.map_or_else(|| Rewriter::<Entry, _>::new(sink, 0).node(&[], None), Ok);
        }
        // With 32 items a node on average, 256 levels are beyond reach.
        level = level.checked_add(1).filter(|level| *level < TOP).ok_or_else(|| {
            Error::invalid(Subject::Argument("changes"), "would make the tree deeper than its format allows")
        })?;
        outcome = rewrite_level(cursor, sink, level, outcome.changes.into_iter())?;
    }
}

/// What rewriting a level did.
struct Outcome {
    /// The level's nodes that are new or gone: the changes to the next level's items.
    changes: Vec<(TreePath, Option<Root>)>,
    /// Nodes made of the runs touched.
    nodes: usize,
    /// The last of them.
    last: Option<Root>,
}

fn rewrite_level<T: Item>(
    cursor: &mut Cursor<impl ObjectSource>,
    sink: &mut impl ObjectSink,
    level: u8,
    changes: impl Iterator<Item = (TreePath, Option<T>)>,
) -> Result<Outcome> {
    let mut changes = Changes::new(changes);
    let mut rewriter = Rewriter::new(sink, level);
    while let Some((path, _)) = &changes.next {
        cursor.seek(path.as_key(), level)?;
        // Back to where the natural run begins; one that loses its first key joins the run before.
        while let Some((first, _)) = cursor.current()
            && (!begins_run(first, level) || changes.removes(first))
            && cursor.step_back(level)?
        {}
        rewrite_runs(cursor, &mut rewriter, &mut changes)?;
    }
    Ok(Outcome { changes: rewriter.changes, nodes: rewriter.nodes, last: rewriter.last })
}

/// Rewrites the natural run at the cursor, and those after it whose first key is removed.
fn rewrite_runs<T: Item>(
    cursor: &mut Cursor<impl ObjectSource>,
    rewriter: &mut Rewriter<'_, T, impl ObjectSink>,
    changes: &mut Changes<T, impl Iterator<Item = (TreePath, Option<T>)>>,
) -> Result<()> {
    let level = rewriter.level;
    let mut is_first = true;
    while let Some((first, node)) = cursor.current() {
        while let Some((path, item)) = changes.take_if(|path| path < first)? {
            rewriter.push_some(path, item)?;
        }
        if !is_first && begins_run(first, level) && !changes.removes(first) {
            break;
        }
        is_first = false;
        rewriter.old.push_back((first.clone(), *node));
        // A node that is not stored is the item that stands for it.
        let stand_in = if node.height < level { T::standing(first, node) } else { None };
        let items = stand_in.map_or_else(|| cursor.items(), |item| Ok(vec![item]))?;
        for (path, item) in items {
            while let Some((path, item)) = changes.take_if(|change| *change < path)? {
                rewriter.push_some(path, item)?;
            }
            let item = changes.take_if(|change| *change == path)?.map_or(Some(item), |(_, changed)| changed);
            rewriter.push_some(path, item)?;
        }
        cursor.step(level)?;
    }
    if cursor.current().is_none() {
        while let Some((path, item)) = changes.take_if(|_| true)? {
            rewriter.push_some(path, item)?;
        }
    }
    rewriter.end()
}

fn begins_run(path: &TreePath, level: u8) -> bool {
    shape::is_boundary(shape::priority(path, level))
}

/// The changes of one level, one of them looked at ahead, checked to ascend.
struct Changes<T, I> {
    next: Option<(TreePath, Option<T>)>,
    later: I,
}

impl<T, I: Iterator<Item = (TreePath, Option<T>)>> Changes<T, I> {
    fn new(mut later: I) -> Self {
        Self { next: later.next(), later }
    }

    fn removes(&self, key: &TreePath) -> bool {
        self.next.as_ref().is_some_and(|(path, item)| path == key && item.is_none())
    }

    fn take_if(&mut self, wanted: impl FnOnce(&TreePath) -> bool) -> Result<Option<(TreePath, Option<T>)>> {
        let Some(taken) = self.next.take_if(|(path, _)| wanted(path)) else { return Ok(None) };
        self.next = self.later.next();
        if let Some((path, _)) = &self.next
            && *path <= taken.0
        {
            return Err(Error::invalid(
                Subject::Path(path.clone()),
                "does not come after the path before it",
            ));
        }
        Ok(Some(taken))
    }
}

/// Makes a level's nodes out of its items, and tells what differs from the nodes that were there.
struct Rewriter<'a, T, K> {
    sink: &'a mut K,
    level: u8,
    /// The natural run so far.
    run: Vec<(TreePath, T)>,
    weights: Vec<Weight>,
    /// Nodes that were read, from the first whose place in the new level is not yet known.
    old: VecDeque<(TreePath, Root)>,
    changes: Vec<(TreePath, Option<Root>)>,
    nodes: usize,
    last: Option<Root>,
}

impl<'a, T: Item, K: ObjectSink> Rewriter<'a, T, K> {
    fn new(sink: &'a mut K, level: u8) -> Self {
        Self {
            sink,
            level,
            run: Vec::new(),
            weights: Vec::new(),
            old: VecDeque::new(),
            changes: Vec::new(),
            nodes: 0,
            last: None,
        }
    }

    fn push_some(&mut self, path: TreePath, item: Option<T>) -> Result<()> {
        let Some(item) = item else { return Ok(()) };
        let priority = shape::priority(&path, self.level);
        if shape::is_boundary(priority) {
            self.end_run()?;
        }
        self.weights.push(Weight { priority, key_bytes: path.as_key().len() });
        self.run.push((path, item));
        Ok(())
    }

    /// Ends the runs that are being rewritten: old nodes that did not come again are gone.
    fn end(&mut self) -> Result<()> {
        self.end_run()?;
        self.changes.extend(self.old.drain(..).map(|(path, _)| (path, None)));
        Ok(())
    }

    fn end_run(&mut self) -> Result<()> {
        let splits = shape::splits(&std::mem::take(&mut self.weights));
        let mut piece = Vec::new();
        for (item, begins) in std::mem::take(&mut self.run).into_iter().zip(splits) {
            if begins {
                self.end_piece(&piece)?;
                piece.clear();
            }
            piece.push(item);
        }
        self.end_piece(&piece)
    }

    fn end_piece(&mut self, piece: &[(TreePath, T)]) -> Result<()> {
        let Some((first, item)) = piece.first() else { return Ok(()) };
        while self.old.front().is_some_and(|(path, _)| path < first) {
            self.changes.extend(self.old.pop_front().map(|(path, _)| (path, None)));
        }
        let again = self.old.front().is_some_and(|(path, _)| path == first);
        let before = if again { self.old.pop_front().map(|(_, node)| node) } else { None };
        let node = match item.alone().filter(|_| piece.len() == 1) {
            Some(child) => child,
            None => self.node(piece, before)?,
        };
        if before != Some(node) {
            self.changes.push((first.clone(), Some(node)));
        }
        self.nodes += 1;
        self.last = Some(node);
        Ok(())
    }

    /// The node of these items; stored unless it is the one that was there `before`.
    fn node(&mut self, items: &[(TreePath, T)], before: Option<Root>) -> Result<Root> {
        let bytes = node::encode(self.level, items);
        if let Some(before) = before
            && before.id == ObjectKind::Node.id_of(&bytes)
        {
            return Ok(before);
        }
        let id = self.sink.put(ObjectKind::Node, &bytes)?;
        Ok(node::describe(id, self.level, items))
    }
}
