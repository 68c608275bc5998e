//! What is no longer there: the paths of the base against those that a scan sees, both in order.

use std::iter::Peekable;

use crate::error::Result;
use crate::path::TreePath;

/// A path that the base has.
pub(super) struct Expected {
    pub(super) path: TreePath,
    /// The checkout did not make it: it is not missing, as long as there is a directory that it would be in.
    pub(super) was_omitted: bool,
}

/// Finds the expected paths that are not seen.
pub(super) struct Missing<I: Iterator<Item = Result<Expected>>> {
    expected: Peekable<I>,
    /// The directories that lead to what was seen last, itself included.
    directories: Vec<TreePath>,
    gone: Vec<TreePath>,
}

impl<I: Iterator<Item = Result<Expected>>> Missing<I> {
    pub(super) fn new(expected: I) -> Self {
        Self { expected: expected.peekable(), directories: Vec::new(), gone: Vec::new() }
    }

    /// Takes the next path that was seen.
    pub(super) fn see(&mut self, path: &TreePath, is_directory: bool) -> Result<()> {
        self.pass(|expected| expected < path)?;
        self.expected.next_if(|next| next.as_ref().is_ok_and(|next| next.path == *path));
        while self.directories.last().is_some_and(|last| !path.starts_with(last)) {
            self.directories.pop();
        }
        if is_directory {
            self.directories.push(path.clone());
        }
        Ok(())
    }

    /// What was missing, once everything was seen.
    pub(super) fn finish(mut self) -> Result<Vec<TreePath>> {
        self.pass(|_| true)?;
        Ok(self.gone)
    }

    fn pass(&mut self, is_before: impl Fn(&TreePath) -> bool) -> Result<()> {
        while let Some(expected) =
            self.expected.next_if(|next| next.as_ref().map_or(true, |next| is_before(&next.path)))
        {
            let Expected { path, was_omitted } = expected?;
            // A directory that was seen and would hold it leads to what was seen last, which comes before it.
            let parent = path.parent();
            let has_place = || parent.is_none_or(|parent| self.directories.contains(&parent));
            if !(was_omitted && has_place()) {
                self.gone.push(path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(expected: &[(&str, bool)], seen: &[(&str, bool)]) -> Vec<String> {
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        let expected = expected
            .iter()
            .map(|(text, was_omitted)| Ok(Expected { path: path(text), was_omitted: *was_omitted }));
        let mut found = Missing::new(expected);
        for (text, is_directory) in seen {
            found.see(&path(text), *is_directory).unwrap();
        }
        found.finish().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_seen_is_missing() {
        let expected = [("", false), ("a", false), ("b", false), ("b/c", false), ("d", false)];
        assert_eq!(
            missing(&expected, &[("", true), ("a", false), ("b", true), ("b/c", false), ("d", false)]),
            [""; 0]
        );
        assert_eq!(
            missing(&expected, &[("", true), ("0", true), ("b", true), ("b/x", false)]),
            ["/a", "/b/c", "/d"]
        );
        assert_eq!(missing(&expected, &[("", true)]), ["/a", "/b", "/b/c", "/d"]);
    }

    #[test]
    fn what_was_never_made_is_missing_only_with_its_directory() {
        let expected =
            [("", false), ("dev", false), ("dev/null", true), ("dev/sub", false), ("dev/zero", true)];
        assert_eq!(
            missing(&expected, &[("", true), ("dev", true), ("dev/a", true), ("dev/a/b", false)]),
            ["/dev/sub"]
        );
        assert_eq!(
            missing(&expected, &[("", true), ("dev", true), ("dev/sub", true), ("dev/sub/x", true)]),
            [""; 0]
        );
        let all = ["/dev/null", "/dev/sub", "/dev/zero"];
        assert_eq!(missing(&expected, &[("", true), ("dev", false)]), all, "it is a file now");
        assert_eq!(missing(&expected, &[("", true), ("other", true)]), [&["/dev"], &all[..]].concat());
    }
}
