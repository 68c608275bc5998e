//! A position among the nodes of one level, and the only way down a tree.
//!
//! A cursor is a stack of branches, the root's parent at the bottom, with one item chosen in each; every
//! operation but [`Cursor::enter`] leaves it on an item whose height is at most the level asked for, which so
//! stands for a node of that level. It holds no more than one branch per level. Every node that it reads is
//! checked against the place it was reached by: its height and totals, its first key, and that its keys end
//! before the next node's.

use super::node::{self, Item, Node, Root};
use crate::error::Result;
use crate::object::ObjectSource;
use crate::path::TreePath;

/// The level above every node: stepping there never goes down.
pub(super) const TOP: u8 = u8::MAX;

pub(super) struct Cursor<S> {
    source: S,
    /// Never empty; the bottom one holds the root alone, or nothing for an empty tree.
    frames: Vec<Frame>,
    /// The root node, until it is asked for: it had to be read for its first key.
    root_node: Option<Node>,
}

struct Frame {
    children: Vec<(TreePath, Root)>,
    /// The chosen child; beyond the end, in the bottom frame only, after the last.
    index: usize,
}

impl Frame {
    fn current(&self) -> Option<&(TreePath, Root)> {
        self.children.get(self.index)
    }
}

impl<S: ObjectSource> Cursor<S> {
    /// A cursor on the root; reads it.
    pub(super) fn new(source: S, root: &Root) -> Result<Self> {
        let node = node::read(&source, root)?;
        let children = node.first().map(|first| (first.clone(), *root)).into_iter().collect();
        Ok(Self { source, frames: vec![Frame { children, index: 0 }], root_node: Some(node) })
    }

    /// A cursor on no tree, with the empty tree's nodes: none.
    pub(super) fn nowhere(source: S) -> Self {
        Self { source, frames: vec![Frame { children: Vec::new(), index: 0 }], root_node: None }
    }

    /// The first key and the node here, none after the last.
    pub(super) fn current(&self) -> Option<&(TreePath, Root)> {
        self.frames.last()?.current()
    }

    /// The first key of what follows the node here; none if nothing does.
    pub(super) fn upper(&self) -> Option<&TreePath> {
        let next = |frame: &'_ Frame| frame.index.checked_add(1);
        self.frames.iter().rev().find_map(|frame| frame.children.get(next(frame)?)).map(|(path, _)| path)
    }

    /// Reads the items of the node here; none of it is left if it has items of another type.
    pub(super) fn items<T: Item>(&mut self) -> Result<Vec<(TreePath, T)>> {
        let at_root = self.frames.len() == 1;
        let kept = self.root_node.take_if(|_| at_root);
        let Some((first, root)) = self.current() else { return Ok(Vec::new()) };
        let node = kept.map_or_else(|| node::read(&self.source, root), Ok)?;
        let ends_before = |upper| node.last().is_some_and(|last| last < upper);
        if node.first() != Some(first) || !self.upper().is_none_or(ends_before) {
            return Err(node::misplaced(root.id));
        }
        T::items(node).ok_or_else(|| node::misplaced(root.id))
    }

    /// Goes down from the branch here to its first child.
    pub(super) fn enter(&mut self) -> Result<()> {
        let children = self.items()?;
        self.frames.push(Frame { children, index: 0 });
        Ok(())
    }

    /// Goes to the node of `level` that holds `key`: the last that begins at or before it, otherwise the
    /// first. Branches that the way there shares with the present one are not read again.
    pub(super) fn seek(&mut self, key: &[u8], level: u8) -> Result<()> {
        let mut depth = 0;
        while let Some(frame) = self.frames.get_mut(depth) {
            let index = frame.children.partition_point(|(path, _)| path.as_key() <= key).saturating_sub(1);
            let moved = frame.index != index;
            frame.index = index;
            depth += 1;
            let below = frame.current().is_some_and(|(_, root)| root.height > level);
            if moved || !below {
                self.frames.truncate(depth);
            }
            if below && self.frames.len() == depth {
                self.enter()?;
            }
        }
        Ok(())
    }

    /// Goes to the next node of `level`; false, and nowhere, if there is none.
    pub(super) fn step(&mut self, level: u8) -> Result<bool> {
        while let Some(frame) = self.frames.last_mut() {
            frame.index = frame.index.saturating_add(1).min(frame.children.len());
            if frame.index < frame.children.len() {
                self.descend(level, false)?;
                return Ok(true);
            }
            if self.frames.len() == 1 {
                break;
            }
            self.frames.pop();
        }
        Ok(false)
    }

    /// Goes to the previous node of `level`; false, and no move, if there is none.
    pub(super) fn step_back(&mut self, level: u8) -> Result<bool> {
        let Some(depth) = self.frames.iter().rposition(|frame| frame.index > 0) else { return Ok(false) };
        self.frames.truncate(depth + 1);
        if let Some(frame) = self.frames.last_mut() {
            frame.index -= 1;
        }
        self.descend(level, true)?;
        Ok(true)
    }

    fn descend(&mut self, level: u8, last: bool) -> Result<()> {
        while self.current().is_some_and(|(_, root)| root.height > level) {
            self.enter()?;
            if let Some(frame) = self.frames.last_mut()
                && last
            {
                frame.index = frame.children.len().saturating_sub(1);
            }
        }
        Ok(())
    }
}
