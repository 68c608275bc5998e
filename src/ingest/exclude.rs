//! Which names of a directory an import leaves out.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result, Subject};
use crate::path::TreePath;

/// The byte order mark that some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// More than any file of patterns has.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Patterns of what an import of a directory leaves out, in the syntax of gitignore(5) and relative to that directory:
/// `*.log` is any such name, `/proc` the one at the top, `cache/` only directories, `!keep.log` takes a name in again. The
/// last pattern that matches decides. What is below a directory that is left out is left out with it, whatever matches it:
/// to keep part of a directory, leave out `/var/*` and take in `!/var/lib`. Names are compared byte by byte, and upper and
/// lower case are different.
///
/// ```
/// let mut exclude = layerstone::Excludes::new();
/// for pattern in ["/proc/*", "*.log", "!important.log"] {
///     exclude.add(pattern)?;
/// }
/// let options = layerstone::ImportOptions { exclude, ..Default::default() };
/// # Ok::<(), layerstone::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Excludes {
    builder: GitignoreBuilder,
    /// Those that begin at the top of the directory.
    anchored: Vec<String>,
}

impl Default for Excludes {
    fn default() -> Self {
        Self::new()
    }
}

impl Excludes {
    /// Leaves nothing out.
    pub fn new() -> Self {
        Self { builder: GitignoreBuilder::new("."), anchored: Vec::new() }
    }

    /// Adds a pattern. Error: [`Invalid`](crate::ErrorKind::Invalid) for one that is malformed, empty or a comment, or that
    /// matches nothing, since it has `.` or `..` for a name.
    pub fn add(&mut self, pattern: &str) -> Result<()> {
        let invalid = |what: &str| {
            let message = format!("'{}' {what}; expected a pattern as in .gitignore", pattern.escape_debug());
            Error::invalid(Subject::Argument("exclude"), message)
        };
        if pattern.starts_with('#') || matches!(pattern.trim(), "" | "!" | "/") {
            return Err(invalid("names nothing"));
        }
        let names = pattern.strip_prefix('!').unwrap_or(pattern);
        if names.split('/').any(|name| matches!(name, "." | "..")) {
            return Err(invalid("has '.' or '..', which are no names ('/x' is x at the top)"));
        }
        self.add_line(pattern).map_err(|error| invalid(&format!("is malformed ({error})")))
    }

    /// Adds the patterns of a file, one on each line; empty lines and those that begin with `#` are comments.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) naming the line of a malformed pattern;
    /// [`Io`](crate::ErrorKind::Io) if the file can't be read.
    pub fn add_file(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Error::host(path, "open it", error))?;
        self.add_from(file, path)
    }

    /// Adds the patterns that a stream gives as [`add_file`](Self::add_file) does those of a file; errors name `path`.
    ///
    /// Error: [`Invalid`](crate::ErrorKind::Invalid) also for a stream of more than 16 MiB.
    pub fn add_from(&mut self, stream: impl Read, path: impl AsRef<Path>) -> Result<()> {
        let subject = || Subject::Host(path.as_ref().to_owned());
        let mut bytes = Vec::new();
        let read = stream.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::host(path.as_ref(), "read the patterns in it", error))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::invalid(
                subject(),
                "has more than 16 MiB; expected patterns as in .gitignore",
            ));
        }
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let invalid = |error: &dyn std::fmt::Display| {
                let message = format!("line {} is no pattern as in .gitignore: {error}", number + 1);
                Error::invalid(subject(), message)
            };
            let line = std::str::from_utf8(line)
                .map_err(|_| invalid(&"it is not UTF-8; put '*' in the place of such bytes"))?;
            self.add_line(line).map_err(|error| invalid(&error))?;
        }
        Ok(())
    }

    fn add_line(&mut self, line: &str) -> Result<(), ignore::Error> {
        self.builder.add_line(None, &with_literal_braces(line))?;
        let pattern = line.trim_end();
        if !pattern.starts_with('#') && pattern.trim_end_matches('/').contains('/') {
            self.anchored.push(pattern.to_owned());
        }
        Ok(())
    }

    /// Fails if a pattern is a path of the host that leads into this directory, which matches nothing: patterns are relative to
    /// the directory. [`import_directory`](crate::Project::import_directory) fails in the same way.
    ///
    /// Error: [`Invalid`](crate::ErrorKind::Invalid) naming the pattern, and the one that may be meant.
    pub fn check_relative_to(&self, directory: impl AsRef<Path>) -> Result<()> {
        let directory = directory.as_ref();
        let names =
            [Some(directory.to_owned()), std::path::absolute(directory).ok(), directory.canonicalize().ok()];
        // Every path lies below the root directory, and is relative to it.
        for name in names.into_iter().flatten().filter(|name| name.file_name().is_some()) {
            let below = directory.join(name.strip_prefix("/").unwrap_or(&name));
            let is_slip = |pattern: &&String| Path::new(pattern.trim_start_matches('!')).starts_with(&name);
            let Some(pattern) = self.anchored.iter().find(is_slip) else { continue };
            if below.symlink_metadata().is_ok() {
                continue;
            }
            let rest =
                Path::new(pattern.trim_start_matches('!')).strip_prefix(&name).unwrap_or(Path::new("*"));
            let not = if pattern.starts_with('!') { "!" } else { "" };
            let meant = format!("{not}/{}{}", rest.display(), if pattern.ends_with('/') { "/" } else { "" });
            let message = format!(
                "'{}' begins with the directory itself and matches nothing, since patterns are relative to that; give '{}'",
                pattern.escape_debug(),
                if rest.as_os_str().is_empty() { "/*".to_owned() } else { meant.escape_debug().to_string() },
            );
            return Err(Error::invalid(Subject::Argument("exclude"), message));
        }
        Ok(())
    }

    /// What tells of each path whether it is left out.
    pub(crate) fn matcher(&self) -> Result<Excluded> {
        let invalid = |error: ignore::Error| Error::invalid(Subject::Argument("exclude"), error.to_string());
        let patterns = self.builder.build().map_err(invalid)?;
        Ok(Excluded { patterns: (!patterns.is_empty()).then_some(patterns) })
    }
}

/// Tells which paths are left out.
#[derive(Debug, Default)]
pub(crate) struct Excluded {
    /// None if nothing is.
    patterns: Option<Gitignore>,
}

impl Excluded {
    /// Whether anything may be left out.
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_none()
    }

    /// Whether this path below the root is left out, if its directory is not.
    pub(super) fn has(&self, path: &TreePath, is_directory: bool) -> bool {
        self.patterns.as_ref().is_some_and(|patterns| {
            let relative = path.to_relative();
            patterns.matched(Path::new(OsStr::from_bytes(&relative)), is_directory).is_ignore()
        })
    }
}

/// Returns a pattern in which braces stand for themselves, as they do to git; to the crate they hold alternatives. In a class
/// they are characters anyway.
fn with_literal_braces(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains(['{', '}']) {
        return Cow::Borrowed(pattern);
    }
    let mut literal = String::with_capacity(pattern.len() + 2);
    let (mut is_in_class, mut is_escaped) = (false, false);
    for letter in pattern.chars() {
        match letter {
            '{' | '}' if !is_in_class && !is_escaped => literal.push('\\'),
            '[' if !is_escaped => is_in_class = true,
            ']' if !is_escaped => is_in_class = false,
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped && !is_in_class;
        literal.push(letter);
    }
    Cow::Owned(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(patterns: &[&str], path: &[u8], is_directory: bool) -> bool {
        let mut excludes = Excludes::new();
        for pattern in patterns {
            excludes.add(pattern).unwrap();
        }
        excludes.matcher().unwrap().has(&TreePath::parse(path).unwrap(), is_directory)
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        for (patterns, path, is_directory, expected) in [
            (&["*.log"][..], &b"a/b.log"[..], false, true),
            (&["*.log", "!b.log"], b"a/b.log", false, false),
            (&["!b.log", "*.log"], b"a/b.log", false, true),
            (&["*.log"], b"a/b.LOG", false, false),
            (&["/proc"], b"proc", true, true),
            (&["/proc"], b"a/proc", true, false),
            (&["proc/"], b"a/proc", true, true),
            (&["proc/"], b"a/proc", false, false),
            (&["a/b"], b"c/a/b", true, false),
            (&["a/**"], b"a", true, false),
            (&["a/**"], b"a/b/c", false, true),
            (&["**/c"], b"a/b/c", false, true),
            (&["a/*", "!a/b"], b"a/b", true, false),
            (&["*"], b"anything", true, true),
            (&["x  "], b"x", false, true),
            (&["x\\ "], b"x ", false, true),
            (&["x\\ "], b"x", false, false),
            (&["\\#x"], b"#x", false, true),
            (&["\\!x"], b"!x", false, true),
            (&["caf*"], b"caf\xe9", false, true),
            (&["caf?"], b"caf\xe9", false, true),
            (&["a\nb"], b"a\nb", false, true),
        ] {
            let text = String::from_utf8_lossy(path);
            assert_eq!(excluded(patterns, path, is_directory), expected, "{patterns:?} {text}");
        }
    }

    #[test]
    fn braces_are_letters_as_they_are_to_git() {
        assert!(!excluded(&["*.{tmp,log}"], b"a.tmp", false));
        assert!(excluded(&["*.{tmp,log}"], b"a.{tmp,log}", false));
        assert!(excluded(&["\\{a\\}"], b"{a}", false), "escaped already");
        assert!(excluded(&["[{}]"], b"{", false) && !excluded(&["[{}]"], b"\\", false), "in a class");
        assert!(excluded(&["a{"], b"a{", false) && excluded(&["}"], b"}", false), "alone");
    }

    #[test]
    fn a_pattern_that_names_nothing_or_is_malformed_is_refused() {
        for pattern in ["", "  ", "# x", "!", "/", "[z-a]", "./x", "!../x", "a/./b", "."] {
            let error = Excludes::new().add(pattern).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{pattern}: {error}");
        }
    }

    #[test]
    fn a_file_of_patterns_is_read_as_git_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("patterns");
        std::fs::write(&file, "\u{feff}*.log\r\n\r\n# a comment\r\n!keep.log\r\nlast").unwrap();
        let mut excludes = Excludes::new();
        excludes.add_file(&file).unwrap();
        let excluded = excludes.matcher().unwrap();
        let has = |path: &str| excluded.has(&TreePath::parse(path.as_bytes()).unwrap(), false);
        assert!(has("a.log") && has("last") && !has("keep.log") && !has("# a comment"));
        std::fs::write(&file, b"good\nbad\xff\n").unwrap();
        let error = excludes.add_file(&file).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        let error = excludes.add_file(folder.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
