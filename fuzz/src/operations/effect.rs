//! The calls that change a store, and what each means in the model.

use std::collections::BTreeMap;
use std::io::Read;
use std::str::FromStr;

use layerstone::id::ImageId;
use layerstone::tree::Timestamp;
use layerstone::{CommitOptions, Error, ExportOptions, GcOptions, GcReport, ImportOptions, Store, TagName};

use super::model::{Content, Model, Scope};

/// When every file was modified, so that images with the same bytes are the same.
const MODIFIED_SECONDS: i64 = 1_000_000_000;

/// One call, whose effect is there whole or not at all.
#[derive(Clone, Debug)]
pub enum Effect {
    CreateProject(String),
    RemoveProject {
        scope: String,
        force: bool,
    },
    Import {
        scope: String,
        content: Content,
        tags: Vec<String>,
    },
    Commit {
        scope: String,
        base: ImageId,
        /// Before anything is written.
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
    /// With all tags that the image has in the scope; one of the scope's own is gone then.
    Remove {
        scope: String,
        image: ImageId,
        force: bool,
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
        header.set_mtime(MODIFIED_SECONDS.unsigned_abs());
        tar.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A name from its text, which may be none.
pub fn name<T: FromStr<Err: std::fmt::Display>>(text: &str) -> layerstone::Result<T> {
    text.parse().map_err(|error: T::Err| Error::usage("name", error.to_string()))
}

fn tag_names(texts: &[String]) -> layerstone::Result<Vec<TagName>> {
    texts.iter().map(|text| name(text)).collect()
}

/// The files that a commit makes of its base's.
pub fn edited(base: &Content, removed: &[String], written: &[(String, Vec<u8>)]) -> Content {
    let mut content = BTreeMap::clone(base);
    content.retain(|path, _| !removed.contains(path));
    content.extend(written.iter().cloned());
    content.into()
}

/// A collection, which finds no damage.
pub fn collect(store: &Store, full: bool) -> layerstone::Result<GcReport> {
    let report = store.collect_garbage(&GcOptions { full, ..GcOptions::default() })?;
    assert_eq!(report.damaged_packs, 0);
    Ok(report)
}

impl Effect {
    /// Makes the call; gives the image that it made. Nobody must be reading.
    pub fn apply(&self, store: &Store) -> layerstone::Result<Option<ImageId>> {
        let project = |scope: &String| store.project(&name(scope)?);
        match self {
            Self::CreateProject(scope) => store.create_project(&name(scope)?).map(|_| None),
            Self::RemoveProject { scope, force } => {
                store.remove_project(&name(scope)?, *force).map(|()| None)
            }
            Self::Import { scope, content, tags } => {
                let options = ImportOptions { tags: tag_names(tags)?, ..ImportOptions::default() };
                let report = project(scope)?.import_tar(tar(content).as_slice(), &options)?;
                Ok(Some(report.image))
            }
            Self::Commit { scope, base, removed, written, tags } => {
                let options = CommitOptions { tags: tag_names(tags)?, ..CommitOptions::default() };
                let image = project(scope)?.find(&(*base).into())?;
                let edit = image.edit().at(Timestamp { seconds: MODIFIED_SECONDS, nanos: 0 });
                let edit = removed.iter().fold(edit, layerstone::Edit::remove);
                let edit = written.iter().fold(edit, |edit, (path, bytes)| edit.write(path, bytes.clone()));
                Ok(Some(edit.commit(&options)?.image))
            }
            Self::Tag { scope, image, tags } => {
                let names = tag_names(tags)?;
                project(scope)?.tag(&(*image).into(), &names).map(|_| None)
            }
            Self::Untag { scope, tag } => {
                let tag = name(tag)?;
                project(scope)?.untag(&tag, None).map(|_| None)
            }
            Self::Remove { scope, image, force } => {
                project(scope)?.remove(&(*image).into(), *force).map(|_| None)
            }
            Self::Collect { full } => {
                assert_eq!(collect(store, *full)?.waiting_packs, 0);
                Ok(None)
            }
        }
    }

    /// The model with the effect, and the image that it made.
    pub fn learn(&self, old: &Model, made: Option<ImageId>) -> Model {
        let mut model = old.clone();
        match self {
            Self::CreateProject(name) => drop(model.scopes.insert(name.clone(), Scope::default())),
            Self::RemoveProject { scope, .. } => drop(model.scopes.remove(scope)),
            Self::Import { scope, content, tags } => {
                let Some(made) = made else { return model };
                let scope = model.scopes.get_mut(scope).unwrap();
                scope.owned.insert(made);
                scope.imported.insert(Content::clone(content), made);
                scope.tags.extend(tags.iter().map(|tag| (tag.clone(), made)));
                model.contents.insert(made, Content::clone(content));
            }
            Self::Commit { scope, base, removed, written, tags } => {
                let Some(made) = made else { return model };
                let scope = model.scopes.get_mut(scope).unwrap();
                if made != *base {
                    scope.owned.insert(made);
                    model.contents.insert(made, edited(&old.contents[base], removed, written));
                }
                scope.tags.extend(tags.iter().map(|tag| (tag.clone(), made)));
            }
            Self::Tag { scope, image, tags } => {
                let scope = model.scopes.get_mut(scope).unwrap();
                scope.tags.extend(tags.iter().map(|tag| (tag.clone(), *image)));
            }
            Self::Untag { scope, tag } => drop(model.scopes.get_mut(scope).unwrap().tags.remove(tag)),
            Self::Remove { scope, image, .. } => {
                let scope = model.scopes.get_mut(scope).unwrap();
                scope.tags.retain(|_, tagged| tagged != image);
                scope.imported.retain(|_, imported| imported != image);
                scope.owned.remove(image);
            }
            Self::Collect { .. } => {}
        }
        model
    }
}

/// All files of an image.
pub fn read_all(image: &layerstone::Image) -> layerstone::Result<BTreeMap<String, Vec<u8>>> {
    let mut exported = Vec::new();
    image.export(&mut exported, &ExportOptions::default())?;
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
