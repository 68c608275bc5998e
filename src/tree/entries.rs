//! Reading a tree: look-up, iteration, children, totals.

use super::cursor::{Cursor, TOP};
use super::entry::Entry;
use super::node::Root;
use crate::error::Result;
use crate::object::ObjectSource;
use crate::path::TreePath;

/// The entry at `path`, none if there is none. Reads one node per level.
pub fn get(source: &impl ObjectSource, root: &Root, path: &TreePath) -> Result<Option<Entry>> {
    iter(source, root)?.find(path)
}

/// All entries, in ascending order of their paths.
pub fn iter<S: ObjectSource>(source: S, root: &Root) -> Result<Entries<S>> {
    let cursor = Cursor::new(source, root)?;
    Ok(Entries { cursor, leaf: None, index: 0, end: None, failed: false })
}

/// The entries from `from` on, itself included.
pub fn range<S: ObjectSource>(source: S, root: &Root, from: &TreePath) -> Result<Entries<S>> {
    let mut entries = iter(source, root)?;
    entries.seek(from)?;
    Ok(entries)
}

/// The entry of `dir` and of everything below it.
pub fn subtree<S: ObjectSource>(source: S, root: &Root, dir: &TreePath) -> Result<Entries<S>> {
    let mut entries = range(source, root, dir)?;
    entries.end = subtree_end(dir);
    Ok(entries)
}

/// The entries directly in `dir`. What is below them is jumped over: the cost follows the children.
pub fn children<S: ObjectSource>(source: S, root: &Root, dir: &TreePath) -> Result<Children<S>> {
    let mut entries = iter(source, root)?;
    entries.end = subtree_end(dir);
    let next = if dir.is_root() { vec![1] } else { [dir.as_key(), &[0]].concat() };
    Ok(Children { entries, dir: dir.clone(), next })
}

/// How much there is at `dir` and below it, as (paths, bytes of file content). Adds up what branches say:
/// reads two nodes per level at most, however much it is.
pub fn summary(source: &impl ObjectSource, root: &Root, dir: &TreePath) -> Result<(u64, u64)> {
    if dir.is_root() {
        return Ok((root.entries, root.bytes));
    }
    let end = subtree_end(dir);
    let is_inside = |key: &TreePath| key >= dir && end.as_deref().is_none_or(|end| key.as_key() < end);
    let ends_inside = |key: &TreePath| end.as_deref().is_none_or(|end| key.as_key() <= end);
    let mut cursor = Cursor::new(source, root)?;
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    cursor.seek(dir.as_key(), TOP)?;
    while let Some((first, node)) = cursor.current() {
        if first > dir && !is_inside(first) {
            break;
        }
        let upper = cursor.upper();
        if is_inside(first) && upper.is_some_and(ends_inside) {
            entries = entries.saturating_add(node.entries);
            bytes = bytes.saturating_add(node.bytes);
        } else if upper.is_none_or(|upper| upper > dir) {
            if node.height > 0 {
                cursor.enter()?;
                continue;
            }
            for (_, entry) in cursor.items::<Entry>()?.iter().filter(|(path, _)| is_inside(path)) {
                entries = entries.saturating_add(1);
                bytes = bytes.saturating_add(entry.file_bytes());
            }
        }
        cursor.step(TOP)?;
    }
    Ok((entries, bytes))
}

/// The first key after `dir` and everything below it; none after the root's.
fn subtree_end(dir: &TreePath) -> Option<Vec<u8>> {
    if dir.is_root() { None } else { Some([dir.as_key(), &[1]].concat()) }
}

/// Iterator over a tree's entries in ascending order, which can be moved. It ends after an error.
pub struct Entries<S> {
    cursor: Cursor<S>,
    /// The items of the leaf that the cursor is on, once it was read.
    leaf: Option<Vec<(TreePath, Entry)>>,
    /// The next entry in `leaf`.
    index: usize,
    /// The first key that does not belong here any more.
    end: Option<Vec<u8>>,
    failed: bool,
}

impl<S: ObjectSource> Entries<S> {
    /// Goes to the first entry at or after `path`. Costs nothing inside one leaf, and on the way elsewhere
    /// only what has to be read anew.
    pub fn seek(&mut self, path: &TreePath) -> Result<()> {
        self.seek_key(path.as_key())
    }

    /// Goes to `path` and gives its entry, none if there is none.
    pub fn find(&mut self, path: &TreePath) -> Result<Option<Entry>> {
        self.seek(path)?;
        Ok(self.peek()?.filter(|(found, _)| found == path).map(|(_, entry)| entry.clone()))
    }

    /// The entry that comes next.
    pub fn peek(&mut self) -> Result<Option<&(TreePath, Entry)>> {
        self.load()?;
        let end = self.end.as_deref();
        let next = self.leaf.as_deref().and_then(|leaf| leaf.get(self.index));
        Ok(next.filter(|(path, _)| end.is_none_or(|end| path.as_key() < end)))
    }

    fn seek_key(&mut self, key: &[u8]) -> Result<()> {
        let starts_before =
            |leaf: &[(TreePath, Entry)]| leaf.first().is_some_and(|(path, _)| path.as_key() <= key);
        let ends_after = self.cursor.upper().is_none_or(|upper| key < upper.as_key());
        if !(ends_after && self.leaf.as_deref().is_some_and(starts_before)) {
            self.leaf = None;
            self.cursor.seek(key, 0)?;
            self.leaf = Some(self.cursor.items()?);
        }
        self.index =
            self.leaf.as_deref().unwrap_or_default().partition_point(|(path, _)| path.as_key() < key);
        Ok(())
    }

    /// Reads the leaf that holds the next entry, unless it is here or there is none.
    fn load(&mut self) -> Result<()> {
        match &self.leaf {
            Some(leaf) if self.index < leaf.len() => return Ok(()),
            Some(_) => {
                if !self.cursor.step(0)? {
                    return Ok(());
                }
            }
            None => self.cursor.seek(&[], 0)?,
        }
        self.leaf = None;
        self.leaf = Some(self.cursor.items()?);
        self.index = 0;
        Ok(())
    }
}

impl<S: ObjectSource> Iterator for Entries<S> {
    type Item = Result<(TreePath, Entry)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.peek().map(Option::<&_>::cloned) {
            Ok(next) => {
                self.index += usize::from(next.is_some());
                next.map(Ok)
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// Iterator over the entries directly in a directory, in ascending order. It ends after an error.
pub struct Children<S> {
    entries: Entries<S>,
    dir: TreePath,
    /// The least key that the next child can have.
    next: Vec<u8>,
}

impl<S: ObjectSource> Children<S> {
    fn advance(&mut self) -> Result<Option<(TreePath, Entry)>> {
        loop {
            self.entries.seek_key(&self.next)?;
            let Some((path, entry)) = self.entries.peek()? else { return Ok(None) };
            let prefix = if self.dir.is_root() { 0 } else { self.dir.as_key().len() + 1 };
            let below = path.as_key().get(prefix..).unwrap_or_default();
            let name = below.split(|byte| *byte == 0).next().unwrap_or_default();
            let child = path.as_key().get(..prefix + name.len()).unwrap_or_default();
            self.next = [child, &[1]].concat();
            if child == path.as_key() {
                return Ok(Some((path.clone(), entry.clone())));
            }
        }
    }
}

impl<S: ObjectSource> Iterator for Children<S> {
    type Item = Result<(TreePath, Entry)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.entries.failed {
            return None;
        }
        let next = self.advance();
        self.entries.failed = next.is_err();
        next.transpose()
    }
}
