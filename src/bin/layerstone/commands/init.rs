//! `init`: makes a store.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use clap::Args;
use layerstone::path::JsonPath;
use schemars::JsonSchema;
use serde::Serialize;

use super::new_store::NewStore;
use super::{Context, Outcome, make_folders_of};
use crate::output::{Output, Report, shown};

/// Make a store, and the directories that it lies in; prints its directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone init\n  layerstone init --store /srv/images/store")]
pub(crate) struct InitArguments {}

pub(super) fn run(context: &Context, _: &InitArguments) -> Outcome {
    let location = context.location()?;
    context.made.replace(NewStore::planned(&location));
    make_folders_of(&location)?;
    let store = context.options()?.open(location)?;
    // It stays, also where that can't be said.
    context.made.take();
    let store = store.location();
    let made = Made { store, path: JsonPath::of(store.as_os_str().as_bytes()) };
    context.out.report(&made, || format!("the store {} is there", shown(store)))
}

/// A store that is there now.
#[derive(Serialize, JsonSchema)]
pub(super) struct Made<'a> {
    #[serde(skip)]
    store: &'a Path,
    #[serde(flatten)]
    path: JsonPath,
}

impl Report for Made<'_> {
    fn text(&self) -> io::Result<()> {
        Output::path(self.store)
    }
}
