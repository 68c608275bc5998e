//! Changing an image in code, with no checkout.
//!
//! An [`Edit`] only collects steps; committing it takes them one after the other on the image's tree, stores what is
//! written and publishes one new image.

mod editor;
mod layer_tar;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::catalog::record::ImageVersion;
use crate::error::{Error, Result, Subject};
use crate::host::file_time;
use crate::ingest::TarOptions;
use crate::path::TreePath;
use crate::task::Phase;
use crate::tree::Timestamp;

use super::commit::{CommitOptions, draft_of_delta};
use super::image::Image;
use super::import::{Draft, WriteReport};
use crate::engine::session::WriteSession;
use editor::Editor;

impl Image {
    /// Begins to change the image: nothing happens before [`Edit::commit`].
    ///
    /// ```
    /// # use layerstone::{CommitOptions, ImageRef, ImportOptions, Store};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let work = std::env::temp_dir().join(format!("layerstone-edit-{}", std::process::id()));
    /// # std::fs::create_dir_all(work.join("etc"))?;
    /// # let project = Store::in_memory()?.create_project(&"demo".parse()?)?;
    /// let base = project.import_directory(&work, &ImportOptions::default())?.image;
    /// let edit = project.find(&ImageRef::Id(base))?.edit();
    /// let edit = edit.write("/etc/motd", "hello").symlink("/motd", "etc/motd").chmod("/etc/motd", 0o600);
    /// let made = edit.commit(&CommitOptions { tags: vec!["os:2".parse()?], ..Default::default() })?;
    /// assert_eq!(project.find(&made.image.into())?.info().parent, Some(base));
    /// # std::fs::remove_dir_all(work)?;
    /// # Ok(()) }
    /// ```
    pub fn edit<'e>(&self) -> Edit<'e> {
        Edit { image: self.clone(), time: None, steps: Vec::new() }
    }
}

/// Steps that are to change an image, in their order. Each sees what those before it did.
///
/// Paths are the image's, `/` being its root. Symbolic links on the way are followed inside the image, as a process in it
/// would; the last part of a path is followed by [`write`](Self::write) and by what changes attributes, not by what
/// makes or removes names. Directories on the way that are not there are made, with mode 755 and owner 0:0. Directories
/// keep their times when names in them come and go.
///
/// A path that can't be, or a step that can't be taken, is an error of [`commit`](Self::commit), which names the path.
#[must_use = "nothing happens before the commit"]
pub struct Edit<'e> {
    image: Image,
    time: Option<Timestamp>,
    steps: Vec<Result<Step<'e>>>,
}

impl fmt::Debug for Edit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit")
            .field("image", &self.image.id())
            .field("steps", &self.steps.len())
            .finish_non_exhaustive()
    }
}

/// Where bytes come from.
enum Bytes<'e> {
    Here(Vec<u8>),
    File(PathBuf),
    Stream(Box<dyn Read + 'e>),
}

impl<'e> Bytes<'e> {
    fn open(self) -> Result<Box<dyn Read + 'e>> {
        Ok(match self {
            Self::Here(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Self::File(path) => {
                let file = File::open(&path);
                Box::new(file.map_err(|error| Error::io(Subject::Host(path), "open it", error))?)
            }
            Self::Stream(stream) => stream,
        })
    }
}

/// Who may do what with a file.
#[derive(Clone, Copy)]
struct Permissions {
    mode: u16,
    uid: u32,
    gid: u32,
}

enum Step<'e> {
    Write { path: TreePath, bytes: Bytes<'e>, permissions: Option<Permissions> },
    Mkdir(TreePath),
    Symlink { path: TreePath, target: Vec<u8> },
    HardLink { path: TreePath, existing: TreePath },
    Remove(TreePath),
    Rename { from: TreePath, to: TreePath },
    Chmod(TreePath, u16),
    Chown(TreePath, u32, u32),
    Touch(TreePath, Timestamp),
    SetXattr { path: TreePath, name: Vec<u8>, value: Option<Vec<u8>> },
    ApplyTar(Bytes<'e>, TarOptions),
}

fn parse(path: impl AsRef<[u8]>) -> Result<TreePath> {
    Ok(TreePath::parse(path.as_ref())?)
}

impl<'e> Edit<'e> {
    fn step(mut self, step: Result<Step<'e>>) -> Self {
        self.steps.push(step);
        self
    }

    /// The modification time of what is written and made: that of the commit otherwise.
    pub fn at(self, time: Timestamp) -> Self {
        Self { time: Some(time), ..self }
    }

    /// Writes a whole file. One that is there keeps its mode, owner and attributes, and its time too if it had these bytes
    /// already; a new one has mode 644 and owner 0:0. Other names of the same inode keep what they had.
    pub fn write(self, path: impl AsRef<[u8]>, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Bytes::Here(bytes.into());
        self.step(parse(path).map(|path| Step::Write { path, bytes, permissions: None }))
    }

    /// The same with bytes that are read when the edit is committed, however many there are.
    pub fn write_from(self, path: impl AsRef<[u8]>, stream: impl Read + 'e) -> Self {
        let bytes = Bytes::Stream(Box::new(stream));
        self.step(parse(path).map(|path| Step::Write { path, bytes, permissions: None }))
    }

    /// Writes a file of the host, which is read when the edit is committed, with this owner, group and mode.
    pub fn lay_file(
        self,
        file: impl Into<PathBuf>,
        path: impl AsRef<[u8]>,
        uid: u32,
        gid: u32,
        mode: u16,
    ) -> Self {
        let bytes = Bytes::File(file.into());
        let permissions = Some(Permissions { mode, uid, gid });
        self.step(parse(path).map(|path| Step::Write { path, bytes, permissions }))
    }

    /// Makes a directory with mode 755 and owner 0:0, if it is not there.
    pub fn mkdir(self, path: impl AsRef<[u8]>) -> Self {
        self.step(parse(path).map(Step::Mkdir))
    }

    /// Makes a symbolic link to `target`, in place of what is there unless that is a directory.
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let target = target.as_ref().to_vec();
        self.step(parse(path).map(|path| Step::Symlink { path, target }))
    }

    /// Makes `path` a further name of an existing file, in place of what is there unless that is a directory.
    pub fn hard_link(self, path: impl AsRef<[u8]>, existing: impl AsRef<[u8]>) -> Self {
        let existing = parse(existing);
        self.step(parse(path).and_then(|path| Ok(Step::HardLink { path, existing: existing? })))
    }

    /// Removes what is at a path, a directory with all that is in it.
    pub fn remove(self, path: impl AsRef<[u8]>) -> Self {
        self.step(parse(path).map(Step::Remove))
    }

    /// Gives a file or a directory another path. A file that is there is replaced by a file; anything else is a conflict.
    pub fn rename(self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        let to = parse(to);
        self.step(parse(from).and_then(|from| Ok(Step::Rename { from, to: to? })))
    }

    /// Sets the permission bits, with setuid, setgid and sticky, of all names of the inode.
    pub fn chmod(self, path: impl AsRef<[u8]>, mode: u16) -> Self {
        self.step(parse(path).map(|path| Step::Chmod(path, mode)))
    }

    /// Sets owner and group of all names of the inode.
    pub fn chown(self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> Self {
        self.step(parse(path).map(|path| Step::Chown(path, uid, gid)))
    }

    /// Sets the modification time of all names of the inode.
    pub fn touch(self, path: impl AsRef<[u8]>, time: Timestamp) -> Self {
        self.step(parse(path).map(|path| Step::Touch(path, time)))
    }

    /// Sets an extended attribute of all names of the inode.
    pub fn set_xattr(
        self,
        path: impl AsRef<[u8]>,
        name: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Self {
        let (name, value) = (name.into(), Some(value.into()));
        self.step(parse(path).map(|path| Step::SetXattr { path, name, value }))
    }

    /// Removes an extended attribute, if it is there.
    pub fn remove_xattr(self, path: impl AsRef<[u8]>, name: impl Into<Vec<u8>>) -> Self {
        let name = name.into();
        self.step(parse(path).map(|path| Step::SetXattr { path, name, value: None }))
    }

    /// Applies a layer as OCI images have them: a tar, plain or compressed with gzip or zstd, whose `.wh.NAME` entries
    /// remove `NAME` and whose `.wh..wh..opq` entries empty their directory. They concern what was there before the
    /// layer, wherever in it they stand.
    pub fn apply_tar(self, tar: impl Read + 'e) -> Self {
        self.apply_tar_with(tar, TarOptions::default())
    }

    /// Applies a layer in the same way, with what is expected of its tar.
    pub fn apply_tar_with(self, tar: impl Read + 'e, options: TarOptions) -> Self {
        self.step(Ok(Step::ApplyTar(Bytes::Stream(Box::new(tar)), options)))
    }

    /// Takes all steps, and publishes what comes of them as a new image whose parent is the one that was edited; if that
    /// is the same tree, gives its UUID back.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid), [`NotFound`](crate::ErrorKind::NotFound) and
    /// [`Conflict`](crate::ErrorKind::Conflict) name the path of a step that can't be taken;
    /// [`Io`](crate::ErrorKind::Io) what can't be read; [`QuotaExceeded`](crate::ErrorKind::QuotaExceeded) a layer that
    /// is too large. Nothing is visible then.
    pub fn commit(self, options: &CommitOptions) -> Result<WriteReport> {
        let _span =
            tracing::info_span!("commit", project = %self.image.project.name, from = "edit").entered();
        if options.base.is_some() {
            let message = "is the image that is edited; leave the option out";
            return Err(Error::invalid(Subject::Argument("base"), message));
        }
        let project = self.image.project.clone();
        let (session, reader, options) = project.begin_commit(self.image.reader.hold(), options)?;
        session.host().build_on(&self.image.record);
        let stage = project.store.task.begin(Phase::Reading, None);
        let made = self.draft(&session, &reader, &options);
        drop(stage);
        project.finish(session, made)
    }

    fn draft(
        self,
        session: &WriteSession,
        reader: &crate::pack::reader::ObjectReader,
        options: &CommitOptions,
    ) -> Result<Draft> {
        let Self { image, time, steps } = self;
        let root = image.root()?;
        let threads = image.project.store.options.threads;
        let mut editor = Editor::new(session, threads, reader, &root, time.unwrap_or_else(file_time))?;
        for step in steps {
            reader.task().advance(1, 0)?;
            editor.take(step?)?;
        }
        let (has_end_mark, examined) = (editor.has_end_mark, editor.examined);
        let source = std::mem::take(&mut editor.source);
        let delta = editor.finish()?;
        let draft =
            draft_of_delta(&ImageVersion::from(&image.record), "edit", &delta, session, reader, options)?;
        Ok(Draft { examined, source, has_end_mark, ..draft })
    }
}
