//! The store against a model of it: any sequence of calls gives what plain maps say it should.

use std::collections::{BTreeMap, BTreeSet};

use layerstone::id::ImageId;
use layerstone::{ErrorKind, Expected, ListOptions, Project, Scope, Store, TagName};
use proptest::prelude::*;

use crate::given::{Place, parse, project, reference, tags};

/// The public scope, then the projects.
const SCOPES: [&str; 3] = ["public", "a", "b"];
const PUBLIC: usize = 0;
const NAMES: [&str; 4] = ["x", "x:latest", "y", "y:latest"];

/// What a call names: a tag by its place in `NAMES`, or an image by when it was made.
#[derive(Clone, Debug)]
enum Named {
    Tag(usize),
    Image(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Import { content: u8, names: Vec<usize> },
    Tag { image: Named, names: Vec<usize> },
    TagIf { image: Named, name: usize, expected: Option<usize> },
    Untag { name: usize },
    UntagAll { image: Named },
    Remove { image: Named, force: bool },
    RemoveProject,
}

fn any_named() -> impl Strategy<Value = Named> {
    prop_oneof![(0..NAMES.len()).prop_map(Named::Tag), (0..12_usize).prop_map(Named::Image)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let names = || prop::collection::vec(0..NAMES.len(), 0..3);
    prop_oneof![
        6 => (0..5_u8, names()).prop_map(|(content, names)| Step::Import { content, names }),
        4 => (any_named(), names()).prop_map(|(image, names)| Step::Tag { image, names }),
        2 => (any_named(), 0..NAMES.len(), prop::option::of(0..12_usize))
            .prop_map(|(image, name, expected)| Step::TagIf { image, name, expected }),
        2 => (0..NAMES.len()).prop_map(|name| Step::Untag { name }),
        1 => any_named().prop_map(|image| Step::UntagAll { image }),
        4 => (any_named(), any::<bool>()).prop_map(|(image, force)| Step::Remove { image, force }),
        1 => Just(Step::RemoveProject),
    ]
}

/// One scope as the model has it.
#[derive(Clone, Debug, Default)]
struct ModelScope {
    /// Images it owns, with their content.
    owned: BTreeMap<ImageId, u8>,
    tags: BTreeMap<&'static str, ImageId>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    scopes: [ModelScope; 3],
    /// Every image ever made, oldest first.
    made: Vec<ImageId>,
}

type Outcome<T> = Result<T, ErrorKind>;

impl Model {
    /// Whether the scope sees the image: as its owner's, as one it has tagged, or as one of the public scope.
    fn sees(&self, scope: usize, image: ImageId) -> bool {
        let has =
            |scope: usize| self.scopes[scope].owned.contains_key(&image) || self.has_tag_of(scope, image);
        has(scope) || has(PUBLIC)
    }

    fn has_tag_of(&self, scope: usize, image: ImageId) -> bool {
        self.scopes[scope].tags.values().any(|tagged| *tagged == image)
    }

    fn id_of(&self, made: usize) -> ImageId {
        self.made.get(made).copied().unwrap_or_else(absent)
    }

    /// The image, and the scope and name of the tag that answered.
    fn resolve(&self, scope: usize, named: &Named) -> Outcome<(ImageId, Option<(usize, &'static str)>)> {
        let name = match named {
            Named::Image(made) => {
                let image = self.id_of(*made);
                return if self.sees(scope, image) { Ok((image, None)) } else { Err(ErrorKind::NotFound) };
            }
            Named::Tag(index) => NAMES[*index],
        };
        let latest = NAMES.into_iter().find(|other| *other == format!("{name}:latest"));
        let candidates = [Some(name), latest].into_iter().flatten();
        let mut answers = candidates.flat_map(|name| [(scope, name), (PUBLIC, name)]);
        answers
            .find_map(|(scope, name)| Some((*self.scopes[scope].tags.get(name)?, Some((scope, name)))))
            .ok_or(ErrorKind::NotFound)
    }

    fn set_tags(&mut self, scope: usize, names: &[usize], image: ImageId) {
        self.scopes[scope].tags.extend(names.iter().map(|name| (NAMES[*name], image)));
    }

    fn untag(&mut self, scope: usize, name: &'static str) -> Outcome<ImageId> {
        match self.scopes[scope].tags.remove(name) {
            Some(image) => Ok(image),
            None if self.scopes[PUBLIC].tags.contains_key(name) => Err(ErrorKind::Invalid),
            None => Err(ErrorKind::NotFound),
        }
    }

    fn untag_all(&mut self, scope: usize, named: &Named) -> Outcome<Vec<&'static str>> {
        let (image, _) = self.resolve(scope, named)?;
        let names: Vec<_> = self.own_tags(scope, image);
        self.scopes[scope].tags.retain(|_, tagged| *tagged != image);
        Ok(names)
    }

    fn own_tags(&self, scope: usize, image: ImageId) -> Vec<&'static str> {
        let tags = self.scopes[scope].tags.iter();
        tags.filter(|(_, tagged)| **tagged == image).map(|(name, _)| *name).collect()
    }

    fn remove(&mut self, scope: usize, named: &Named, force: bool) -> Outcome<(usize, bool)> {
        let (image, answer) = self.resolve(scope, named)?;
        let owns = self.scopes[scope].owned.contains_key(&image);
        let is_foreign = answer.is_some_and(|(answering, _)| answering != scope);
        if is_foreign || (!owns && !self.has_tag_of(scope, image)) {
            return Err(ErrorKind::Invalid);
        }
        let all = self.own_tags(scope, image);
        let gone = match answer {
            Some((_, name)) => vec![name],
            None if all.len() > 1 && !force => return Err(ErrorKind::Conflict),
            None => all.clone(),
        };
        self.scopes[scope].tags.retain(|name, _| !gone.contains(name));
        let is_removed = owns && gone.len() == all.len();
        if is_removed {
            self.scopes[scope].owned.remove(&image);
        }
        Ok((gone.len(), is_removed))
    }

    /// What a listing shows: images, newest first, each with its visible tags.
    fn list(&self, scope: usize) -> Vec<(ImageId, Vec<&'static str>)> {
        let images: BTreeSet<_> = self.made.iter().filter(|image| self.sees(scope, **image)).collect();
        let shown = |image: ImageId| {
            let mut names = self.own_tags(scope, image);
            let public = self.own_tags(PUBLIC, image).into_iter();
            names.extend(public.filter(|name| !self.scopes[scope].tags.contains_key(name)));
            names.sort_unstable();
            names
        };
        images.into_iter().rev().map(|image| (*image, shown(*image))).collect()
    }
}

fn absent() -> ImageId {
    match reference("0190c8f0-0000-7000-8000-000000000000") {
        layerstone::ImageRef::Id(id) => id,
        _ => unreachable!(),
    }
}

/// The store and its model, side by side.
struct Pair {
    place: Place,
    store: Store,
    projects: [Project; 3],
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let store = Store::in_memory().unwrap();
        let projects = SCOPES.map(|name| project(&store, name));
        Self { place: Place::new(), store, projects, model: Model::default() }
    }

    fn reference(&self, named: &Named) -> layerstone::ImageRef {
        match named {
            Named::Tag(index) => reference(NAMES[*index]),
            Named::Image(made) => self.model.id_of(*made).into(),
        }
    }

    fn take(&mut self, scope: usize, step: &Step) {
        let project = self.projects[scope].clone();
        match step {
            Step::Import { content, names } => self.import(scope, *content, names),
            Step::Tag { image, names } => {
                let real = project.tag(&self.reference(image), &names_of(names));
                let expected = self.model.resolve(scope, image).map(|(image, _)| image);
                assert_eq!(outcome(real), expected);
                if let Ok(image) = expected {
                    self.model.set_tags(scope, names, image);
                }
            }
            Step::TagIf { image, name, expected } => {
                let wanted = expected.map(|made| self.model.id_of(made));
                let condition = wanted.map_or(Expected::Absent, Expected::Image);
                let real = project.tag_if(&self.reference(image), &parse(NAMES[*name]), condition);
                let resolved = self.model.resolve(scope, image).and_then(|(image, _)| {
                    let current = self.model.scopes[scope].tags.get(NAMES[*name]).copied();
                    if current == wanted { Ok(image) } else { Err(ErrorKind::Conflict) }
                });
                assert_eq!(outcome(real), resolved);
                if let Ok(image) = resolved {
                    self.model.set_tags(scope, &[*name], image);
                }
            }
            Step::Untag { name } => {
                let real = project.untag(&parse(NAMES[*name]), None);
                assert_eq!(outcome(real), self.model.untag(scope, NAMES[*name]));
            }
            Step::UntagAll { image } => {
                let real = project.untag_all(&self.reference(image));
                let names = self.model.untag_all(scope, image).map(|names| tags(&names));
                assert_eq!(outcome(real), names);
            }
            Step::Remove { image, force } => {
                let real = project.remove(&self.reference(image), *force);
                let counts = real.map(|report| (report.untagged.len(), report.removed.is_some()));
                assert_eq!(outcome(counts), self.model.remove(scope, image, *force));
            }
            Step::RemoveProject => {
                let name = parse(SCOPES[scope]);
                let is_removed = self.store.remove_project(&name, true).is_ok();
                assert_eq!(is_removed, scope != PUBLIC);
                if is_removed {
                    self.projects[scope] = self.store.create_project(&name).unwrap();
                    self.model.scopes[scope] = ModelScope::default();
                }
            }
        }
    }

    fn import(&mut self, scope: usize, content: u8, names: &[usize]) {
        let texts: Vec<_> = names.iter().map(|name| NAMES[*name]).collect();
        let image = self.place.import(&self.projects[scope], &format!("content {content}"), &texts);
        let mut known = self.model.scopes[scope].owned.iter();
        if let Some((known, _)) = known.find(|(_, known)| **known == content) {
            assert_eq!(image, *known, "the same content is the same image");
        } else {
            assert!(self.model.made.last().is_none_or(|last| *last < image), "ids ascend");
            self.model.made.push(image);
            self.model.scopes[scope].owned.insert(image, content);
        }
        self.model.set_tags(scope, names, image);
    }

    /// Compares everything that can be asked.
    fn compare(&self) {
        for (scope, project) in self.projects.iter().enumerate() {
            let named = (0..NAMES.len()).map(Named::Tag);
            for named in named.chain((0..=self.model.made.len()).map(Named::Image)) {
                let real = project.resolve(&self.reference(&named)).map(|resolved| {
                    let answer = resolved.tag.map(|tag| (resolved.scope == Scope::Project, tag.to_string()));
                    (resolved.id, answer)
                });
                let expected = self.model.resolve(scope, &named).map(|(image, answer)| {
                    let is_own = |answering| answering == scope && scope != PUBLIC;
                    (image, answer.map(|(answering, name)| (is_own(answering), name.to_owned())))
                });
                assert_eq!(outcome(real), expected, "{named:?} in {}", SCOPES[scope]);
            }
            let page = project.images(&ListOptions { limit: None, ..ListOptions::default() }).unwrap();
            let shown: Vec<_> = page.images.into_iter().map(|image| (image.id, image.tags)).collect();
            let expected = self.model.list(scope).into_iter();
            let expected: Vec<_> = expected.map(|(image, names)| (image, tags(&names))).collect();
            assert_eq!(shown, expected, "listing in {}", SCOPES[scope]);
        }
    }
}

fn names_of(names: &[usize]) -> Vec<TagName> {
    names.iter().map(|name| parse(NAMES[*name])).collect()
}

fn outcome<T>(result: layerstone::Result<T>) -> Outcome<T> {
    result.map_err(|error| error.kind())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_what_its_model_says(
        steps in prop::collection::vec((0..SCOPES.len(), any_step()), 1..40),
    ) {
        let mut pair = Pair::new();
        for (scope, step) in &steps {
            pair.take(*scope, step);
            pair.compare();
        }
    }
}
