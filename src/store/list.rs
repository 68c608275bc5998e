//! Listings: filtered, newest first, in pages that stay put while others write.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::catalog::record::ImageRecord;
use crate::catalog::table::{Images, Tags, key_bytes};
use crate::catalog::{Direction, ReadTables, ReadTx};
use crate::error::Result;
use crate::id::{ImageId, ProjectId};
use crate::time::Moment;

use super::image::{ImageInfo, ImageKind};
use super::project::Project;
use crate::engine::image_id::latest_created;

/// Rows that are read ahead.
const PAGE_ROWS: usize = 256;

/// Which images to list. All filters must hold.
#[derive(Clone, Debug)]
#[must_use]
pub struct ListOptions {
    /// Only images with a tag that begins so.
    pub prefix: Option<String>,
    /// Only images with a tag.
    pub tagged_only: bool,
    /// Only images of this kind.
    pub kind: Option<ImageKind>,
    /// Only images made at this moment or later.
    pub since: Option<Moment>,
    /// Only images made before this moment.
    pub until: Option<Moment>,
    /// Only this image.
    pub id: Option<ImageId>,
    /// At most this many; none for all.
    pub limit: Option<usize>,
    /// Only images older than this one: the cursor of the page before.
    pub after: Option<ImageId>,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            prefix: None,
            tagged_only: false,
            kind: None,
            since: None,
            until: None,
            id: None,
            limit: Some(100),
            after: None,
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImagePage {
    /// The images, newest first: in the order in which they were made, also where the clock had gone back.
    pub images: Vec<ImageInfo>,
    /// Where the next page begins, if the limit cut this one: the [`after`](ListOptions::after) to ask with.
    pub next: Option<ImageId>,
}

impl Project {
    /// Lists the project's images and the public ones, newest first. A public tag that the project shadows is not
    /// shown.
    pub fn images(&self, options: &ListOptions) -> Result<ImagePage> {
        self.store.read(|tx| {
            self.check(tx)?;
            let mut page = ImagePage { images: Vec::new(), next: None };
            for record in self.candidates(tx, options)? {
                let record = record?;
                // No image is younger than its id, and those that follow have earlier ids.
                if options.since.is_some_and(|since| latest_created(record.id) < since) {
                    break;
                }
                let created = record.created();
                let is_within = options.since.is_none_or(|since| created >= since)
                    && options.until.is_none_or(|until| created < until);
                if !is_within {
                    continue;
                }
                let info = self.info(tx, &record)?;
                if !matches_options(&info, options) {
                    continue;
                }
                if options.limit == Some(page.images.len()) {
                    page.next = page.images.last().map(|last| last.id);
                    break;
                }
                page.images.push(info);
            }
            Ok(page)
        })
    }

    /// The images that the filters with an index leave, newest first.
    fn candidates<'t>(
        &self,
        tx: &'t ReadTx,
        options: &ListOptions,
    ) -> Result<Box<dyn Iterator<Item = Result<ImageRecord>> + 't>> {
        let some = match (options.id, &options.prefix) {
            (Some(id), _) => BTreeSet::from([id]),
            (None, Some(prefix)) => self.ids_by_prefix(tx, prefix)?,
            (None, None) => {
                let scopes = self.scopes().map(|scope| ScopeImages::new(tx, scope, options.after).peekable());
                return Ok(Box::new(NewestFirst { scopes: scopes.collect() }));
            }
        };
        let project = self.clone();
        let after = options.after;
        let wanted = some.into_iter().rev().filter(move |id| after.is_none_or(|after| *id < after));
        Ok(Box::new(wanted.filter_map(move |id| project.image_row(tx, id).transpose())))
    }

    fn ids_by_prefix(&self, tx: &ReadTx, prefix: &str) -> Result<BTreeSet<ImageId>> {
        let mut ids = BTreeSet::new();
        for scope in self.scopes() {
            let mut start = key_bytes(&scope);
            start.extend_from_slice(prefix.as_bytes());
            tx.scan::<Tags>(&start, None, Direction::Ascending, |_, tag| {
                ids.insert(tag.image);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(ids)
    }
}

fn matches_options(info: &ImageInfo, options: &ListOptions) -> bool {
    let has_prefix = |prefix: &String| info.tags.iter().any(|tag| tag.as_str().starts_with(prefix));
    (!options.tagged_only || !info.tags.is_empty())
        && options.kind.is_none_or(|kind| info.kind == kind)
        && options.prefix.as_ref().is_none_or(has_prefix)
}

/// The images of one scope, newest first, read in pages.
struct ScopeImages<'t> {
    tx: &'t ReadTx,
    scope: ProjectId,
    after: Option<ImageId>,
    page: std::vec::IntoIter<ImageRecord>,
    is_last: bool,
}

impl<'t> ScopeImages<'t> {
    fn new(tx: &'t ReadTx, scope: ProjectId, after: Option<ImageId>) -> Self {
        Self { tx, scope, after, page: Vec::new().into_iter(), is_last: false }
    }

    fn read_page(&mut self) -> Result<()> {
        let mut page = Vec::new();
        let after = self.after.map(|id| (self.scope, id));
        self.tx.scan::<Images>(
            &key_bytes(&self.scope),
            after.as_ref(),
            Direction::Descending,
            |_, record| {
                page.push(record);
                Ok(if page.len() < PAGE_ROWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            },
        )?;
        self.is_last = page.len() < PAGE_ROWS;
        self.after = page.last().map(|record| record.id).or(self.after);
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for ScopeImages<'_> {
    type Item = Result<ImageRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0
            && !self.is_last
            && let Err(error) = self.read_page()
        {
            self.is_last = true;
            return Some(Err(error));
        }
        self.page.next().map(Ok)
    }
}

/// Several scopes' images as one, newest first; an image that two scopes have comes once, from the first.
struct NewestFirst<'t> {
    scopes: Vec<Peekable<ScopeImages<'t>>>,
}

impl Iterator for NewestFirst<'_> {
    type Item = Result<ImageRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        // An error counts as newest, so that it is not passed over.
        let key = |row: &Result<ImageRecord>| row.as_ref().ok().map(|record| record.id);
        let mut newest: Option<Option<ImageId>> = None;
        for scope in &mut self.scopes {
            let Some(row) = scope.peek() else { continue };
            let id = key(row);
            newest = match (newest, id) {
                (_, None) | (Some(None), _) => Some(None),
                (None, id) => Some(id),
                (Some(known), id) => Some(known.max(id)),
            };
        }
        let newest = newest?;
        let mut found = None;
        for scope in &mut self.scopes {
            if let Some(row) = scope.next_if(|row| key(row) == newest) {
                found = found.or(Some(row));
            }
        }
        found
    }
}
