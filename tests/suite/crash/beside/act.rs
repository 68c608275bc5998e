//! What one does beside another, what it was told, and whether an order explains what both were told.

use std::collections::BTreeMap;

use layerstone::id::ImageId;
use layerstone::{ErrorKind, Store};

use crate::crash::operations::check::Verdict;
use crate::crash::operations::effect::{Effect, collect, read_all};
use crate::crash::operations::model::{Model, View};
use crate::crash::operations::outcome::Made;
use crate::given::parse;

#[derive(Clone, Debug)]
pub(super) enum Act {
    Change(Effect),
    Read { scope: String, image: ImageId },
    Upkeep,
    Verify,
}

/// What a process was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Done(Option<ImageId>),
    Found(BTreeMap<String, Vec<u8>>),
    Refused(ErrorKind, String),
    /// It was killed before it was told.
    Nothing,
}

impl Act {
    pub(super) fn take(&self, store: &Store) -> layerstone::Result<Told> {
        match self {
            // Packs that the other holds may have to wait.
            Self::Change(Effect::Collect { full }) => collect(store, *full).map(|_| Told::Done(None)),
            Self::Change(effect) => effect.apply(store).map(Told::Done),
            Self::Read { scope, image } => {
                let image = store.project(&parse(scope))?.find(&(*image).into())?;
                read_all(&image).map(Told::Found)
            }
            Self::Upkeep => {
                store.wait_for_upkeep();
                Ok(Told::Done(None))
            }
            Self::Verify => {
                let report = store.verify()?;
                assert!(report.is_sound(), "{report:?}");
                Ok(Told::Done(None))
            }
        }
    }

    /// Without its bytes.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Change(Effect::Import { scope, content, tags }) => {
                format!("Import {{ scope: {scope}, files: {}, tags: {tags:?} }}", content.len())
            }
            Self::Change(Effect::Commit { scope, base, tags, .. }) => {
                format!("Commit {{ scope: {scope}, base: {base}, tags: {tags:?} }}")
            }
            other => format!("{other:?}"),
        }
    }

    /// What comes of it.
    fn expected(&self, model: &Model) -> Result<Made, ErrorKind> {
        match self {
            Self::Change(effect) => effect.expected(model),
            Self::Read { scope, image } => {
                let tag = Effect::Tag { scope: scope.clone(), image: *image, tags: Vec::new() };
                tag.expected(model)
            }
            Self::Upkeep | Self::Verify => Ok(Made::NoImage),
        }
    }

    /// The model after it, if it may have been told this.
    fn explain(&self, model: &Model, told: &Told, new: Option<ImageId>) -> Option<Model> {
        let expected = match self {
            // Whoever has found an image can go on from it though it is removed since.
            Self::Change(Effect::Commit { scope, .. }) if model.scopes.contains_key(scope) => Ok(Made::New),
            _ => self.expected(model),
        };
        match (self, told, expected) {
            // Of two collections one is refused; that there were two is looked at before.
            (Self::Change(Effect::Collect { .. }), Told::Refused(ErrorKind::InUse, _), _) => {
                Some(model.clone())
            }
            (_, Told::Refused(kind, _), _) => (self.expected(model) == Err(*kind)).then(|| model.clone()),
            (Self::Read { image, .. }, Told::Found(content), Ok(_)) => {
                (*model.contents[image] == *content).then(|| model.clone())
            }
            (Self::Change(effect), Told::Done(_) | Told::Nothing, Ok(expected)) => {
                let made = match (told, expected) {
                    (Told::Done(made), _) => *made,
                    (_, Made::NoImage) => None,
                    (_, Made::Known(known)) => Some(known),
                    (_, Made::New) => new,
                };
                // Ids are drawn before anything is published, so a new one need not be the newest.
                let is_it = match expected {
                    Made::New => made.is_some_and(|made| !model.contents.contains_key(&made)),
                    other => other.is(made, model),
                };
                is_it.then(|| effect.learn(model, made))
            }
            (Self::Upkeep | Self::Verify, Told::Done(None), _) | (_, Told::Nothing, _) => Some(model.clone()),
            _ => None,
        }
    }
}

/// What a process did and was told, in order.
pub(super) type Story = Vec<(Act, Told)>;

/// What an act comes to in a story: a commit finds its base first.
pub(super) fn tell(story: &mut Story, act: &Act, told: Told) {
    if let (Act::Change(Effect::Commit { scope, base, .. }), Told::Done(_)) = (act, &told) {
        let found = Act::Change(Effect::Tag { scope: scope.clone(), image: *base, tags: Vec::new() });
        story.push((found, Told::Done(None)));
    }
    story.push((act.clone(), told));
}

/// Every model that is left when both stories happened, one call after the other.
fn explain(model: &Model, stories: [&[(Act, Told)]; 2], new: Option<ImageId>, ends: &mut Vec<Model>) {
    if stories.iter().all(|story| story.is_empty()) {
        ends.push(model.clone());
    }
    for (place, story) in stories.into_iter().enumerate() {
        let Some(((act, told), rest)) = story.split_first() else { continue };
        let mut rests = stories;
        rests[place] = rest;
        if *told == Told::Nothing {
            explain(model, rests, new, ends);
        }
        if let Some(after) = act.explain(model, told, new) {
            explain(&after, rests, new, ends);
        }
    }
}

/// The model that explains what both were told and what is seen now.
pub(super) fn find_model(before: &Model, stories: [&Story; 2], view: &View) -> Verdict<Model> {
    let collects = |(act, _): &(Act, Told)| matches!(act, Act::Change(Effect::Collect { .. }));
    let is_refused = |(_, told): &(Act, Told)| matches!(told, Told::Refused(ErrorKind::InUse, _));
    for (story, other) in [(stories[0], stories[1]), (stories[1], stories[0])] {
        if story.iter().any(is_refused) && !other.iter().any(collects) {
            return Err(format!(
                "nobody else collects: {:?}",
                story.iter().map(|(_, told)| told).collect::<Vec<_>>()
            ));
        }
    }
    let seen = view.values().flatten().map(|(image, _)| *image);
    let told = |image: &ImageId| {
        let mut all = stories.iter().copied().flatten();
        all.any(|(_, told)| *told == Told::Done(Some(*image)))
    };
    let new = seen.filter(|image| !before.contents.contains_key(image) && !told(image)).max();
    let mut ends = Vec::new();
    explain(before, stories.map(Vec::as_slice), new, &mut ends);
    let found = ends.into_iter().find(|end| end.view() == *view);
    found.ok_or_else(|| {
        let told = stories.map(|story| story.iter().map(|(_, told)| told).collect::<Vec<_>>());
        format!("no order explains {told:?}\nbefore {:?}\nnow {view:?}", before.view())
    })
}
