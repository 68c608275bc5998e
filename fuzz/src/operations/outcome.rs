//! What the model says that comes of a call: what it makes, or why it is refused.

use layerstone::ErrorKind;
use layerstone::id::ImageId;

use super::effect::{Effect, edited};
use super::model::{Model, PUBLIC};

/// What a call makes that is not refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Made {
    NoImage,
    /// The image that has this content already.
    Known(ImageId),
    /// One that is newer than all that were ever made.
    New,
}

impl Made {
    /// Whether this is what was made.
    pub fn is(self, made: Option<ImageId>, before: &Model) -> bool {
        match self {
            Self::NoImage => made.is_none(),
            Self::Known(known) => made == Some(known),
            Self::New => made > before.contents.last_key_value().map(|(newest, _)| *newest),
        }
    }
}

/// Words of letters, digits, `_` and `-` with single separators between them, of which the first begins with none of `_-`.
fn is_name(text: &str, separators: &[char]) -> bool {
    let is_in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.split(separators).all(|word| !word.is_empty() && word.chars().all(is_in_word))
}

/// Whether a scope may have this name.
pub fn is_scope_name(text: &str) -> bool {
    is_name(text, &['.'])
}

fn is_tag_name(text: &str) -> bool {
    let is_uuid = text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    is_name(text, &[':', '/', '.']) && !text.starts_with("tag:") && !is_uuid
}

impl Effect {
    /// Whether the call is refused for its names, whatever the store holds.
    pub fn is_misnamed(&self) -> bool {
        let (scope, tags) = match self {
            Self::CreateProject(scope) | Self::RemoveProject { scope, .. } => {
                return !is_scope_name(scope) || scope == PUBLIC;
            }
            Self::Import { scope, tags, .. }
            | Self::Commit { scope, tags, .. }
            | Self::Tag { scope, tags, .. } => (scope, tags.as_slice()),
            Self::Untag { scope, tag } => (scope, std::slice::from_ref(tag)),
            Self::Remove { scope, .. } => (scope, [].as_slice()),
            Self::Collect { .. } => return false,
        };
        !is_scope_name(scope) || !tags.iter().all(|tag| is_tag_name(tag))
    }

    /// What comes of the call in a store that holds this.
    pub fn expected(&self, model: &Model) -> Result<Made, ErrorKind> {
        if self.is_misnamed() {
            return Err(ErrorKind::Invalid);
        }
        let find = |scope: &String| model.scopes.get(scope).ok_or(ErrorKind::NotFound);
        let see = |scope: &String, image: &ImageId| {
            find(scope)?;
            if model.seen(scope).contains(image) { Ok(()) } else { Err(ErrorKind::NotFound) }
        };
        match self {
            Self::CreateProject(scope) if find(scope).is_ok() => Err(ErrorKind::AlreadyExists),
            Self::RemoveProject { scope, force } if find(scope)?.images().next().is_some() && !force => {
                Err(ErrorKind::Conflict)
            }
            Self::Import { scope, content, .. } => {
                let known = find(scope)?.imported.get(content);
                Ok(known.map_or(Made::New, |known| Made::Known(*known)))
            }
            Self::Commit { scope, base, removed, written, .. } => {
                see(scope, base)?;
                let content = &model.contents[base];
                if !removed.iter().all(|path| content.contains_key(path)) {
                    return Err(ErrorKind::NotFound);
                }
                let is_changed = edited(content, removed, written) != *content;
                Ok(if is_changed { Made::New } else { Made::Known(*base) })
            }
            Self::Tag { scope, image, .. } => see(scope, image).map(|()| Made::NoImage),
            Self::Untag { scope, tag } if !find(scope)?.tags.contains_key(tag) => {
                // A project may only read what is public.
                let is_public = model.scopes[PUBLIC].tags.contains_key(tag);
                Err(if is_public { ErrorKind::Invalid } else { ErrorKind::NotFound })
            }
            Self::Remove { scope, image, force } => {
                see(scope, image)?;
                let scope = &model.scopes[scope];
                match scope.tags_of(*image).count() {
                    _ if !scope.images().any(|own| own == *image) => Err(ErrorKind::Invalid),
                    2.. if !force => Err(ErrorKind::Conflict),
                    _ => Ok(Made::NoImage),
                }
            }
            Self::CreateProject(_)
            | Self::RemoveProject { .. }
            | Self::Untag { .. }
            | Self::Collect { .. } => Ok(Made::NoImage),
        }
    }
}
