//! Saved images: what `docker save` and programs for OCI images write holds an image's layers, and not its files. Who imports
//! one as a root file system gets a tree of blobs.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::archive::{Member, MemberKind};
use crate::error::{Error, Remedy, Result, Subject};
use crate::host::source::{SourceDirectory, SourceTree};
use crate::host::stat::FileKind;
use crate::path::TreePath;

/// Names of the files that tell one, at the top.
const MANIFEST: &[u8] = b"manifest.json";
const LAYOUT: &[u8] = b"oci-layout";
/// It tells one where [`BLOBS`] is beside it.
const INDEX: &[u8] = b"index.json";
const BLOBS: &[u8] = b"blobs";
/// As `docker save` wrote one alone before version 1.10.
const REPOSITORIES: &[u8] = b"repositories";
/// What a directory that is called like a layer has, as `docker save` wrote it before version 1.10. An image without a name
/// has nothing else.
const LAYER_FILES: [&[u8]; 3] = [b"VERSION", b"json", b"layer.tar"];
/// All of them.
const TELLING: [&[u8]; 4] = [MANIFEST, LAYOUT, INDEX, REPOSITORIES];
/// Bytes that such a file has at most, as many as registries take: it is parsed whole.
pub(super) const BYTES_MAX: u64 = 4 << 20;
/// What a file contains that a link with a telling name may lead to.
const WORDS: [&[u8]; 2] = [b"\"Layers\"", b"\"imageLayoutVersion\""];
/// How many such files and links are remembered.
const REMEMBERED_MAX: usize = 64;

/// Returns whether a file of this name may tell a saved image: at the top, or in a directory there.
pub(super) fn may_tell(path: &TreePath) -> bool {
    path.depth() <= 2 && path.file_name().is_some_and(|name| TELLING.contains(&name))
}

/// What the members of a tar tell, in whatever order they come.
pub(super) struct Evidence {
    /// Whether a layer is read, which may well bring a saved image in a directory.
    is_layer: bool,
    /// The first directory at the top.
    top: Option<TreePath>,
    /// Whether something else is at the top, too.
    has_others: bool,
    /// Directories in which [`BLOBS`] is that has members.
    blobs: Vec<TreePath>,
    /// Files that tell one under these names.
    told: BTreeMap<TreePath, Vec<&'static [u8]>>,
    /// Links with telling names.
    links: BTreeMap<TreePath, TreePath>,
    /// Which [`LAYER_FILES`] are in directories that are called like layers.
    layers: BTreeMap<TreePath, [bool; LAYER_FILES.len()]>,
}

impl Evidence {
    pub(super) fn new(is_layer: bool) -> Self {
        let (top, has_others, blobs, told, links, layers) = Default::default();
        Self { is_layer, top, has_others, blobs, told, links, layers }
    }

    /// Looks at a member.
    pub(super) fn member<F>(&mut self, member: &Member<F>) {
        let path = &member.path;
        let mut names = path.components();
        let Some(top) = names.next() else { return };
        match &self.top {
            None => {
                self.top = TreePath::root().join(top).ok();
                self.has_others = path.depth() == 1 && !matches!(member.kind, MemberKind::Directory);
            }
            Some(known) => self.has_others |= known.file_name() != Some(top),
        }
        let (first, second) = (names.next(), names.next());
        let at = if top == BLOBS && first.is_some() {
            Some(TreePath::root())
        } else if first == Some(BLOBS) && second.is_some() {
            self.top.clone()
        } else {
            None
        };
        self.blobs.extend(at.filter(|at| !self.blobs.contains(at)));
        self.layer_file(path);
        let target = match &member.kind {
            _ if !may_tell(path) || self.links.len() >= REMEMBERED_MAX => None,
            MemberKind::HardLink(target) => Some(target.clone()),
            MemberKind::Symlink(target) => led(path, target),
            _ => None,
        };
        self.links.extend(target.map(|target| (path.clone(), target)));
    }

    /// Looks at a path in what may be the directory of a layer.
    fn layer_file(&mut self, path: &TreePath) {
        let named = path.file_name().and_then(|name| LAYER_FILES.iter().position(|file| *file == name));
        let (Some(file), Some(directory), 2 | 3) = (named, path.parent(), path.depth()) else { return };
        let is_known = self.layers.contains_key(&directory);
        if directory.file_name().is_some_and(is_layer_id) && (is_known || self.layers.len() < REMEMBERED_MAX)
        {
            let found = self.layers.entry(directory).or_default();
            found.iter_mut().skip(file).take(1).for_each(|is_there| *is_there = true);
        }
    }

    /// Looks at a file's content. Fails if that alone tells a saved image.
    pub(super) fn file(&mut self, path: &TreePath, content: &[u8]) -> Result<()> {
        let begins = without_mark(content).trim_ascii_start().first();
        if self.told.len() >= REMEMBERED_MAX || !matches!(begins, Some(b'{' | b'[')) {
            return Ok(());
        }
        let has = |word: &&[u8]| content.windows(word.len()).any(|found| found == *word);
        if !may_tell(path) && !WORDS.iter().any(has) {
            return Ok(());
        }
        let names = tells(content);
        if path.depth() == 1
            && let Some(name) = path.file_name().filter(|name| *name != INDEX && names.contains(name))
        {
            return Err(refusal(name, Subject::Archive));
        }
        if !names.is_empty() {
            self.told.insert(path.clone(), names);
        }
        Ok(())
    }

    /// Fails if all together is a saved image, or a directory that holds nothing else.
    pub(super) fn judge(&self) -> Result<()> {
        let alone = self.top.as_ref().filter(|_| !self.is_layer && !self.has_others);
        for directory in [Some(&TreePath::root()), alone].into_iter().flatten() {
            for name in TELLING {
                let Ok(path) = directory.join(name) else { continue };
                let held = self.links.get(&path).unwrap_or(&path);
                let is_told = self.told.get(held).is_some_and(|names| names.contains(&name));
                if is_told && (name != INDEX || self.blobs.contains(directory)) {
                    return Err(refusal(&path.to_relative(), Subject::Archive));
                }
            }
            let is_layer = |(layer, has): &(&TreePath, &_)| {
                layer.parent().as_ref() == Some(directory) && **has == [true; 3]
            };
            if let Some((layer, _)) = self.layers.iter().find(is_layer) {
                return Err(refusal(&layer.to_relative(), Subject::Archive));
            }
        }
        Ok(())
    }
}

/// Returns where a symbolic link leads, links on the way left aside.
fn led(path: &TreePath, target: &[u8]) -> Option<TreePath> {
    if target.starts_with(b"/") {
        return TreePath::parse(target).ok();
    }
    let directory = path.parent()?.to_absolute();
    TreePath::parse(&[&directory, &b"/"[..], target].concat()).ok()
}

/// The content without a mark of its encoding.
fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

/// Returns the names under which this content tells a saved image.
fn tells(content: &[u8]) -> Vec<&'static [u8]> {
    let has_digest = |item: &Value| item.get("digest").is_some_and(Value::is_string);
    match serde_json::from_slice(without_mark(content)) {
        Ok(Value::Array(images)) => {
            let has_layers =
                |image: &Value| matches!(image.get("Layers"), Some(Value::Array(_) | Value::Null));
            if !images.is_empty() && images.iter().all(has_layers) { vec![MANIFEST] } else { Vec::new() }
        }
        Ok(Value::Object(fields)) => {
            let all = |name: &str| fields.get(name).and_then(Value::as_array);
            let has_version = fields.contains_key("schemaVersion");
            // Names, each with its tags, each with the id of its last layer.
            let is_id = |id: &Value| id.as_str().is_some_and(|id| is_layer_id(id.as_bytes()));
            let has_ids = |tags: &Value| tags.as_object().is_some_and(|tags| tags.values().all(is_id));
            let found = [
                // As `skopeo copy` writes one to a directory.
                (MANIFEST, has_version && all("layers").is_some_and(|layers| layers.iter().all(has_digest))),
                (LAYOUT, fields.get("imageLayoutVersion").is_some_and(Value::is_string)),
                (INDEX, has_version && all("manifests").is_some_and(|all| all.iter().all(has_digest))),
                (REPOSITORIES, !fields.is_empty() && fields.values().all(has_ids)),
            ];
            found.into_iter().filter(|(_, is_told)| *is_told).map(|(name, _)| name).collect()
        }
        _ => Vec::new(),
    }
}

fn refusal(name: &[u8], subject: Subject) -> Error {
    let name = crate::path::escape_bytes(name);
    let message = format!(
        "is a saved image, as its '/{name}' says: it holds layers instead of files; unpack it to a root file system first \
         ('podman load', then 'podman export' of a container; or 'umoci unpack')"
    );
    Error::unsupported(subject, message).with_remedy(Remedy::AcceptSavedImage)
}

/// Whether a text is what programs name layers by: 64 hexadecimal digits.
fn is_layer_id(text: &[u8]) -> bool {
    text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit)
}

/// Fails if a directory is an unpacked saved image or an OCI image layout, or holds nothing but one.
pub(crate) fn refuse_directory(source: &SourceTree) -> Result<()> {
    let Some(root) = source.directory(&TreePath::root())? else { return Ok(()) };
    refuse_in(source, &root)?;
    let listed = root.list()?;
    let [only] = &listed[..] else { return Ok(()) };
    let Some(found) = root.find(&only.name)?.filter(|found| found.stat.kind == FileKind::Directory) else {
        return Ok(());
    };
    match source.directory(&found.path)? {
        Some(directory) => refuse_in(source, &directory),
        None => Ok(()),
    }
}

fn refuse_in(source: &SourceTree, directory: &SourceDirectory<'_>) -> Result<()> {
    let refused =
        |path: &TreePath| refusal(&path.to_relative(), Subject::Host(source.host_path(&TreePath::root())));
    for name in TELLING {
        let Some(mut found) = directory.find(name)? else { continue };
        if found.stat.kind == FileKind::Symlink {
            let target = directory.read_link(name)?;
            let beside = target.strip_prefix(b"./").unwrap_or(&target);
            // One that leads elsewhere is left aside.
            let is_name = !beside.contains(&b'/') && !matches!(beside, b"" | b"." | b"..");
            let Some(held) = is_name.then(|| directory.find(beside).ok().flatten()).flatten() else {
                continue;
            };
            found = held;
        }
        if found.stat.kind != FileKind::File || found.stat.size > BYTES_MAX {
            continue;
        }
        let is_enough = name != INDEX || directory.find(BLOBS)?.is_some();
        let mut buf = vec![0; usize::try_from(found.stat.size).map_or(0, |size| size + 1)];
        let content = directory.open_file(&found)?.read_whole(&mut buf)?;
        if is_enough && content.is_some_and(|content| tells(content).contains(&name)) {
            return Err(refused(&directory.join(name)?));
        }
    }
    for listed in directory.list()?.iter().filter(|listed| is_layer_id(&listed.name)) {
        let path = directory.join(&listed.name)?;
        let is_directory =
            directory.find(&listed.name)?.is_some_and(|found| found.stat.kind == FileKind::Directory);
        let Some(layer) = is_directory.then(|| source.directory(&path)).transpose()?.flatten() else {
            continue;
        };
        let mut has_all = true;
        for name in LAYER_FILES {
            has_all &= layer.find(name)?.is_some();
        }
        if has_all {
            return Err(refused(&path));
        }
    }
    Ok(())
}
