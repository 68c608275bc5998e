//! What a store should hold: plain maps that know nothing of how it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use layerstone::id::ImageId;

pub const PUBLIC: &str = "public";

/// An image's files.
pub type Content = Arc<BTreeMap<String, Vec<u8>>>;

/// What each scope lists: its images, newest first, with the tags that are seen there.
pub type View = BTreeMap<String, Vec<(ImageId, Vec<String>)>>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    pub owned: BTreeSet<ImageId>,
    /// Those of them that were imported: the same content again is the same image.
    pub imported: BTreeMap<Content, ImageId>,
    pub tags: BTreeMap<String, ImageId>,
}

impl Scope {
    /// Images it owns, and those of others that it has tagged.
    pub fn images(&self) -> impl Iterator<Item = ImageId> {
        self.owned.iter().chain(self.tags.values()).copied()
    }

    pub fn tags_of(&self, image: ImageId) -> impl Iterator<Item = &String> {
        self.tags.iter().filter(move |(_, tagged)| **tagged == image).map(|(name, _)| name)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub scopes: BTreeMap<String, Scope>,
    /// Of every image that was ever made.
    pub contents: BTreeMap<ImageId, Content>,
}

impl Default for Model {
    fn default() -> Self {
        let scopes = BTreeMap::from([(PUBLIC.to_owned(), Scope::default())]);
        Self { scopes, contents: BTreeMap::new() }
    }
}

impl Model {
    /// The images that a scope sees, oldest first.
    pub fn seen(&self, scope: &str) -> BTreeSet<ImageId> {
        self.scopes[scope].images().chain(self.scopes[PUBLIC].images()).collect()
    }

    pub fn view(&self) -> View {
        let view = |(name, scope): (&String, &Scope)| {
            let images = self.seen(name).into_iter().rev().map(|image| {
                let mut tags: Vec<_> = scope.tags_of(image).cloned().collect();
                let public = self.scopes[PUBLIC].tags_of(image);
                tags.extend(public.filter(|tag| !scope.tags.contains_key(*tag)).cloned());
                tags.sort_unstable();
                tags.dedup();
                (image, tags)
            });
            (name.clone(), images.collect())
        };
        self.scopes.iter().map(view).collect()
    }
}
