//! What differs between two trees.
//!
//! Both are walked side by side. Where the same node comes next in both it is skipped with all below it;
//! otherwise whichever reaches further is opened, so that two trees of different shape meet again at the
//! first node they share. Only nodes that differ are read.

use std::cmp::Ordering;

use super::cursor::{Cursor, TOP};
use super::entry::Entry;
use super::node::Root;
use crate::error::Result;
use crate::object::ObjectSource;
use crate::path::TreePath;

/// One path whose entry differs between two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// Its entry in the first tree; never equal to `after`.
    pub before: Option<Entry>,
    /// Its entry in the second tree.
    pub after: Option<Entry>,
}

/// The paths whose entries differ between `a` and `b`, in ascending order.
pub fn diff<S: ObjectSource + Clone>(source: S, a: &Root, b: &Root) -> Result<Diff<S>> {
    let sides = if a == b { None } else { Some((Side::new(source.clone(), a)?, Side::new(source, b)?)) };
    Ok(Diff { sides })
}

/// Iterator of [`diff`]. It ends after an error.
pub struct Diff<S> {
    /// None once nothing more differs.
    sides: Option<(Side<S>, Side<S>)>,
}

/// One tree: the rest of an opened leaf, then what the cursor is on.
struct Side<S> {
    cursor: Cursor<S>,
    leaf: std::vec::IntoIter<(TreePath, Entry)>,
}

/// What comes next on a side.
enum Head<'a> {
    Entry(&'a TreePath),
    Node(&'a TreePath, &'a Root),
}

impl Head<'_> {
    fn path(&self) -> &TreePath {
        match self {
            Self::Entry(path) | Self::Node(path, _) => path,
        }
    }

    /// A number that is greater the more may be behind this head: 0 for an entry.
    fn reach(&self) -> u16 {
        match self {
            Self::Entry(..) => 0,
            Self::Node(_, root) => u16::from(root.height) + 1,
        }
    }
}

impl<S: ObjectSource> Side<S> {
    fn new(source: S, root: &Root) -> Result<Self> {
        Ok(Self { cursor: Cursor::new(source, root)?, leaf: Vec::new().into_iter() })
    }

    fn head(&self) -> Option<Head<'_>> {
        match self.leaf.as_slice().first() {
            Some((path, _)) => Some(Head::Entry(path)),
            None => self.cursor.current().map(|(path, root)| Head::Node(path, root)),
        }
    }

    /// Opens the node that comes next.
    fn open(&mut self) -> Result<()> {
        if self.cursor.current().is_some_and(|(_, root)| root.height > 0) {
            return self.cursor.enter();
        }
        self.leaf = self.cursor.items()?.into_iter();
        self.skip_node()
    }

    /// Leaves out the node that comes next.
    fn skip_node(&mut self) -> Result<()> {
        self.cursor.step(TOP).map(drop)
    }

    /// Takes the entry that comes next.
    fn take(&mut self) -> Option<Entry> {
        self.leaf.next().map(|(_, entry)| entry)
    }
}

/// What to do about the two heads.
enum Step {
    SkipBoth,
    Open(bool, bool),
    Take(bool, bool),
}

fn step(a: Option<&Head<'_>>, b: Option<&Head<'_>>) -> Option<Step> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (Some(a), None) => return Some(alone(a, true)),
        (None, Some(b)) => return Some(alone(b, false)),
        (None, None) => return None,
    };
    if let (Head::Node(_, a), Head::Node(_, b)) = (a, b)
        && a == b
    {
        return Some(Step::SkipBoth);
    }
    Some(match a.path().cmp(b.path()) {
        Ordering::Less => alone(a, true),
        Ordering::Greater => alone(b, false),
        Ordering::Equal if a.reach() == 0 && b.reach() == 0 => Step::Take(true, true),
        Ordering::Equal => Step::Open(a.reach() >= b.reach(), b.reach() >= a.reach()),
    })
}

/// The step for a head whose first key the other side has not.
fn alone(head: &Head<'_>, is_a: bool) -> Step {
    if head.reach() == 0 { Step::Take(is_a, !is_a) } else { Step::Open(is_a, !is_a) }
}

impl<S: ObjectSource> Diff<S> {
    fn advance(&mut self) -> Result<Option<Change>> {
        let Some((a, b)) = &mut self.sides else { return Ok(None) };
        loop {
            let (head_a, head_b) = (a.head(), b.head());
            match step(head_a.as_ref(), head_b.as_ref()) {
                None => return Ok(None),
                Some(Step::SkipBoth) => {
                    a.skip_node()?;
                    b.skip_node()?;
                }
                Some(Step::Open(open_a, open_b)) => {
                    if open_a {
                        a.open()?;
                    }
                    if open_b {
                        b.open()?;
                    }
                }
                Some(Step::Take(take_a, take_b)) => {
                    let head = if take_a { head_a } else { head_b };
                    let path = head.map(|head| head.path().clone()).unwrap_or_default();
                    let before = if take_a { a.take() } else { None };
                    let after = if take_b { b.take() } else { None };
                    if before != after {
                        return Ok(Some(Change { path, before, after }));
                    }
                }
            }
        }
    }
}

impl<S: ObjectSource> Iterator for Diff<S> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.sides = None;
        }
        next
    }
}
