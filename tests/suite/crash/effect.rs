//! The calls that change a store, and what each means in the model.

use std::collections::BTreeMap;
use std::io::Read;

use layerstone::id::ImageId;
use layerstone::tree::Timestamp;
use layerstone::{CommitOptions, GcOptions, ImportOptions, Store};

use super::model::{Content, Model, Scope};
use crate::given::{parse, tags};

/// One call, whose effect is there whole or not at all.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    CreateProject(String),
    RemoveProject(String),
    Import {
        scope: String,
        content: Content,
        tags: Vec<String>,
    },
    Commit {
        scope: String,
        base: ImageId,
        removed: Vec<String>,
        written: Vec<(String, Vec<u8>)>,
        tags: Vec<String>,
    },
    Tag {
        scope: String,
        image: ImageId,
        tags: Vec<String>,
    },
    Untag {
        scope: String,
        tag: String,
    },
    /// An image of the scope's own, with all tags that it has there.
    Remove {
        scope: String,
        image: ImageId,
    },
    /// Nobody sees what it does.
    Collect {
        full: bool,
    },
}

fn tar(content: &Content) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in content.iter() {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn names(texts: &[String]) -> Vec<layerstone::TagName> {
    tags(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

impl Effect {
    /// Makes the call; gives the image that it made.
    pub(super) fn apply(&self, store: &Store) -> layerstone::Result<Option<ImageId>> {
        let project = |scope: &String| store.project(&parse(scope));
        match self {
            Self::CreateProject(name) => store.create_project(&parse(name)).map(|_| None),
            Self::RemoveProject(name) => store.remove_project(&parse(name), true).map(|()| None),
            Self::Import { scope, content, tags } => {
                let options = ImportOptions { tags: names(tags), ..ImportOptions::default() };
                let report = project(scope)?.import_tar(tar(content).as_slice(), &options)?;
                Ok(Some(report.image))
            }
            Self::Commit { scope, base, removed, written, tags } => {
                let image = project(scope)?.find(&(*base).into())?;
                let edit = image.edit().at(Timestamp { seconds: 1_000_000_000, nanos: 0 });
                let edit = removed.iter().fold(edit, layerstone::Edit::remove);
                let edit = written.iter().fold(edit, |edit, (path, bytes)| edit.write(path, bytes.clone()));
                let options = CommitOptions { tags: names(tags), ..CommitOptions::default() };
                Ok(Some(edit.commit(&options)?.image))
            }
            Self::Tag { scope, image, tags } => {
                project(scope)?.tag(&(*image).into(), &names(tags)).map(|_| None)
            }
            Self::Untag { scope, tag } => project(scope)?.untag(&parse(tag), None).map(|_| None),
            Self::Remove { scope, image } => project(scope)?.remove(&(*image).into(), true).map(|_| None),
            Self::Collect { full } => {
                let options = GcOptions { full: *full, ..GcOptions::default() };
                let report = store.collect_garbage(&options)?;
                assert_eq!((report.waiting_packs, report.damaged_packs), (0, 0));
                Ok(None)
            }
        }
    }

    /// The model with the effect, and the image that it made.
    pub(super) fn learn(&self, old: &Model, made: Option<ImageId>) -> Model {
        let mut model = old.clone();
        let mut add = |scope: &String, content, tags: &[String]| {
            let Some(made) = made else { return };
            let scope = model.scopes.get_mut(scope).unwrap();
            scope.owned.insert(made);
            scope.tags.extend(tags.iter().map(|tag| (tag.clone(), made)));
            model.contents.insert(made, content);
        };
        match self {
            Self::CreateProject(name) => drop(model.scopes.insert(name.clone(), Scope::default())),
            Self::RemoveProject(name) => drop(model.scopes.remove(name)),
            Self::Import { scope, content, tags } => add(scope, Content::clone(content), tags),
            Self::Commit { scope, base, removed, written, tags } => {
                let mut content = BTreeMap::clone(&old.contents[base]);
                content.retain(|path, _| !removed.contains(path));
                content.extend(written.iter().cloned());
                add(scope, content.into(), tags);
            }
            Self::Tag { scope, image, tags } => {
                let scope = model.scopes.get_mut(scope).unwrap();
                scope.tags.extend(tags.iter().map(|tag| (tag.clone(), *image)));
            }
            Self::Untag { scope, tag } => drop(model.scopes.get_mut(scope).unwrap().tags.remove(tag)),
            Self::Remove { scope, image } => {
                let scope = model.scopes.get_mut(scope).unwrap();
                scope.tags.retain(|_, tagged| tagged != image);
                scope.owned.remove(image);
            }
            Self::Collect { .. } => {}
        }
        model
    }
}

/// All files of an image.
pub(super) fn read_all(image: &layerstone::Image) -> layerstone::Result<BTreeMap<String, Vec<u8>>> {
    let mut exported = Vec::new();
    image.export(&mut exported)?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(exported.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().trim_start_matches("./").to_owned();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
    }
    Ok(files)
}
