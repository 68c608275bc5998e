//! Looks for the command in an image: what it names, and what that needs to run.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use layerstone::{EntryInfo, EntryKind, Error, Image, Result, TreePath};

use super::below::Found;
use super::elf;
use super::inside::{Inside, Place};

/// How many scripts the kernel runs by each other.
const MOST_SCRIPTS: usize = 5;
/// The bytes of a script that the kernel looks at, and those of a program in which its loader is looked for.
const FIRST_LINE_BYTES: usize = 256;
const BEGIN_BYTES: u64 = 4096;

/// Why a command can't be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// The directory to start in is no directory.
    Directory,
    /// There is no such program.
    Program,
    /// What the first line of the script names is not there.
    Interpreter(Vec<u8>),
    /// The loader that the program names is not there.
    Loader(Vec<u8>),
    /// It is no file that can be executed.
    Permission,
    /// It leads into what the image has not, where it may be any program of the host.
    Outside,
    /// The program at this path, which is to run it, can't be run.
    By(Vec<u8>, Box<Self>),
    /// It is no program of this machine and no script.
    Format,
}

/// What is found, or why it can't be run.
type Checked<T> = std::result::Result<T, Lacking>;

/// Looks for programs as a process with an image as its root directory does.
pub(super) struct Finder<'i> {
    inside: Inside<'i>,
    /// Whether this machine runs other formats, too.
    has_other_formats: bool,
}

impl<'i> Finder<'i> {
    /// For a process that starts in this directory.
    pub(super) fn new(image: &'i Image, directory: &Path) -> Result<Checked<Self>> {
        let inside = Inside::new(image, directory.as_os_str().as_bytes())?;
        let is_directory = match inside.find(b".")? {
            Some(Place::Entry(entry)) => entry.kind == EntryKind::Directory,
            Some(Place::Mounted(below)) => matches!(below.found(), Found::Directory | Found::Unknown),
            None => false,
        };
        let has_other_formats = has_other_formats(Path::new("/proc/sys/fs/binfmt_misc"));
        Ok(if is_directory { Ok(Self { inside, has_other_formats }) } else { Err(Lacking::Directory) })
    }

    /// Whether a program of this name can be run, which without a `/` is looked for in the directories of `search`.
    pub(super) fn find(&self, name: &OsStr, search: &str) -> Result<Checked<()>> {
        if name.as_bytes().contains(&b'/') {
            return self.check(name.as_bytes(), MOST_SCRIPTS);
        }
        let mut outcome = Err(Lacking::Program);
        for folder in search.split(':').filter(|_| !name.is_empty()) {
            match self.check(Path::new(folder).join(name).as_os_str().as_bytes(), MOST_SCRIPTS)? {
                Ok(()) => return Ok(Ok(())),
                Err(Lacking::Program) => {}
                // It may be there, and the search ends with it.
                Err(Lacking::Outside) => return Ok(Err(Lacking::Outside)),
                // The search goes on, but this is what is said in the end.
                Err(lacking) => outcome = Err(lacking),
            }
        }
        Ok(outcome)
    }

    fn check(&self, path: &[u8], scripts: usize) -> Result<Checked<()>> {
        let entry = match self.executable(path)? {
            Ok(entry) => entry,
            Err(lacking) => return Ok(Err(lacking)),
        };
        let begin = self.begin(&entry.path)?;
        if begin.starts_with(elf::MAGIC) {
            return self.check_program(&entry, &begin);
        }
        let Some(interpreter) = interpreter(&begin) else { return Ok(self.check_format(false)) };
        if scripts == 0 {
            return Ok(Err(Lacking::Permission));
        }
        Ok(self.check(interpreter, scripts - 1)?.map_err(|lacking| match lacking {
            Lacking::Program => Lacking::Interpreter(interpreter.to_vec()),
            by @ Lacking::By(..) => by,
            lacking => Lacking::By(interpreter.to_vec(), Box::new(lacking)),
        }))
    }

    /// The file that a path leads to, if it may be executed.
    fn executable(&self, path: &[u8]) -> Result<Checked<EntryInfo>> {
        Ok(match self.inside.find(path)? {
            Some(Place::Entry(entry)) if can_be_executed(&entry) => Ok(entry),
            Some(Place::Entry(_)) => Err(Lacking::Permission),
            Some(Place::Mounted(below)) => Err(match below.found() {
                Found::Nothing => Lacking::Program,
                Found::Directory | Found::Other => Lacking::Permission,
                Found::Unknown => Lacking::Outside,
            }),
            None => Err(Lacking::Program),
        })
    }

    fn check_program(&self, entry: &EntryInfo, begin: &[u8]) -> Result<Checked<()>> {
        let Some(loader) = elf::loader(begin) else {
            return Ok(self.check_format(elf::is_native(begin, entry.size)));
        };
        let entry = match self.executable(loader)? {
            Ok(entry) => entry,
            Err(Lacking::Program) => return Ok(Err(Lacking::Loader(loader.to_vec()))),
            Err(lacking) => return Ok(Err(Lacking::By(loader.to_vec(), Box::new(lacking)))),
        };
        let is_native =
            elf::is_native(begin, entry.size) && elf::is_native(&self.begin(&entry.path)?, entry.size);
        Ok(self.check_format(is_native))
    }

    /// The runtimes differ in what they make of a file that the kernel refuses; one gives text to a shell.
    fn check_format(&self, is_native: bool) -> Checked<()> {
        if is_native || self.has_other_formats { Ok(()) } else { Err(Lacking::Format) }
    }

    fn begin(&self, path: &TreePath) -> Result<Vec<u8>> {
        let mut begin = Vec::new();
        let read = self.inside.image().read_file(path)?.take(BEGIN_BYTES).read_to_end(&mut begin);
        read.map_err(Error::from_stream)?;
        Ok(begin)
    }
}

/// Whether the kernel hands files of other formats to programs, as it does those of other machines to QEMU.
fn has_other_formats(registered: &Path) -> bool {
    let names = std::fs::read_dir(registered).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name != "register" && name != "status")
}

fn can_be_executed(entry: &EntryInfo) -> bool {
    entry.kind == EntryKind::File && entry.mode & 0o111 != 0
}

/// What the first line of a script names.
fn interpreter(begin: &[u8]) -> Option<&[u8]> {
    let begin = begin.get(..FIRST_LINE_BYTES).unwrap_or(begin);
    let line = begin.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use layerstone::{ImportOptions, Store};

    use super::*;

    fn make_programs(root: &Path) {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("opt")).unwrap();
        symlink("/usr/bin", root.join("bin")).unwrap();
        symlink("../opt", root.join("usr/opt")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/dev/shm", root.join("shm")).unwrap();
        symlink("/proc/self/exe", root.join("usr/bin/self")).unwrap();
        // Hidden by what is mounted.
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::write(root.join("dev/nope"), "").unwrap();
        let files = [
            ("tool", "", 0o644),
            ("text", "echo text\n", 0o755),
            ("empty", "", 0o755),
            ("nameless", "#! \n", 0o755),
            ("cut", "\x7fELF", 0o755),
            ("of-text", "#!/bin/text\n", 0o755),
            ("good", "#! /bin/run -e\n", 0o755),
            ("deep", "#!../bin/good", 0o755),
            ("bad", "#!/bin/nope\nx", 0o755),
            ("worse", "#!bin/tool", 0o755),
            ("itself", "#!/bin/itself", 0o755),
            ("of-self", "#!/proc/self/root/bin/run", 0o755),
            ("of-bad", "#!/bin/bad", 0o755),
            ("of-of-bad", "#!/bin/of-bad", 0o755),
        ];
        for (name, text, mode) in files {
            fs::write(root.join("usr/bin").join(name), text).unwrap();
            fs::set_permissions(root.join("usr/bin").join(name), Permissions::from_mode(mode)).unwrap();
        }
        let own = fs::read("/proc/self/exe").unwrap();
        fs::write(root.join("usr/bin/run"), &own).unwrap();
        fs::set_permissions(root.join("usr/bin/run"), Permissions::from_mode(0o711)).unwrap();
        if let Some(loader) = elf::loader(&own) {
            let loader = Path::new(OsStr::from_bytes(loader));
            let place = root.join(loader.strip_prefix("/").unwrap());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(loader, place).unwrap();
        }
    }

    #[test]
    fn a_program_is_looked_for_as_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        make_programs(root);
        let project = Store::in_memory().unwrap().default_project().unwrap();
        let id = project.import_directory(root, &ImportOptions::default()).unwrap().image;
        let image = project.find(&id.into()).unwrap();
        let start = |directory: &str| Finder::new(&image, Path::new(directory)).unwrap();
        for directory in ["/nowhere", "/bin/tool", "/loop", "/bin/tool/.."] {
            assert_eq!(start(directory).err(), Some(Lacking::Directory), "{directory}");
        }
        let from =
            |directory: &str, name: &str| start(directory).unwrap().find(OsStr::new(name), "").unwrap();
        assert_eq!(from("/usr/opt/..", "usr/bin/run"), Ok(()), "up from where the link leads");
        let finder = start("/bin/../").unwrap();
        let find = |name: &str| finder.find(OsStr::new(name), "/sbin:/bin").unwrap();
        for name in ["run", "/bin/run", "./bin/run", "opt/../usr/bin/run", "good", "bin//good", "deep"] {
            assert_eq!(find(name), Ok(()), "{name}");
        }
        for name in
            ["sh", "./usr/bin/run", "", "/loop", "/bin/run/x", "/bin/run/../run", "/bin/run/", "/bin/run/."]
        {
            assert_eq!(find(name), Err(Lacking::Program), "{name}");
        }
        for name in ["tool", "/usr/bin", "/usr/bin/"] {
            assert_eq!(find(name), Err(Lacking::Permission), "{name}");
        }
        for (name, by) in [("worse", "bin/tool"), ("itself", "/bin/itself")] {
            assert_eq!(find(name), Err(Lacking::By(by.into(), Box::new(Lacking::Permission))), "{name}");
        }
        if !has_other_formats(Path::new("/proc/sys/fs/binfmt_misc")) {
            for name in ["text", "empty", "nameless", "cut"] {
                assert_eq!(find(name), Err(Lacking::Format), "{name}");
            }
            assert_eq!(find("of-text"), Err(Lacking::By("/bin/text".into(), Box::new(Lacking::Format))));
        }
        let names_nope = Lacking::Interpreter(b"/bin/nope".to_vec());
        assert_eq!(find("bad"), Err(names_nope.clone()));
        for name in ["of-bad", "of-of-bad"] {
            let by = Lacking::By("/bin/bad".into(), Box::new(names_nope.clone()));
            assert_eq!(find(name), Err(by), "the last of a chain is to blame");
        }
        // What is in a process's directories can't be known, and may be any program of the host.
        for directory in ["/proc", "/dev/shm", "/sys/../proc", "/shm", "/proc/self/fd", "/sys/kernel"] {
            assert!(start(directory).is_ok(), "{directory}");
        }
        for directory in
            ["/dev/null", "/dev/nope", "/proc/nope", "/proc/sys/nope", "/sys/nope", "/proc/version"]
        {
            assert_eq!(start(directory).err(), Some(Lacking::Directory), "{directory}");
        }
        for directory in ["/proc", "/sys/../proc"] {
            assert_eq!(from(directory, "self/root/bin/run"), Err(Lacking::Outside), "{directory}");
        }
        assert_eq!(from("/proc", "../bin/run"), Ok(()));
        for name in ["../bin/nope", "../usr/proc/run"] {
            assert_eq!(from("/proc", name), Err(Lacking::Program), "{name}");
        }
        for name in ["/proc/self/root/bin/run", "/proc/1/exe", "/dev/fd/3", "/dev/stdin", "self"] {
            assert_eq!(find(name), Err(Lacking::Outside), "{name}");
        }
        let by = Lacking::By("/proc/self/root/bin/run".into(), Box::new(Lacking::Outside));
        assert_eq!(find("of-self"), Err(by));
        for name in ["/dev/nope", "/dev/shm/nope", "/sys/nope", "/proc/nope"] {
            assert_eq!(find(name), Err(Lacking::Program), "{name}");
        }
        for name in ["/dev/null", "/dev", "/proc/", "/sys/kernel", "/proc/version"] {
            assert_eq!(find(name), Err(Lacking::Permission), "{name}");
        }
        let search = |search: &str| finder.find(OsStr::new("run"), search).unwrap();
        assert_eq!(search("/dev:/sys:/bin:/proc/self"), Ok(()));
        assert_eq!(search("/proc/self:/bin"), Err(Lacking::Outside), "it is looked for there first");
        assert_eq!(finder.find(OsStr::new("run"), "/sbin::bin").unwrap(), Ok(()), "none is where it starts");
    }
}
